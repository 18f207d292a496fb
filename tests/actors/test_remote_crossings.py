"""Random crossings with drafters elsewhere, which forget, fail and are late: the same tokens.

The other ends are real draft actors in this process, reached by futures instead of Ray.
CROSSINGS=N runs N cases.
"""

import os
from collections import Counter
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace

import numpy as np
import pytest

from actors.drafts.draft import DraftActor
from actors.drafts.line import Send
from actors.drafts.remote_drafter import RemoteDrafter
from actors.messages import DraftAsk, DraftTeam
from models.drafting.drafter import Drafter
from tests.actors.test_remote_drafter import carried
from tests.models.crossings.case import random_case
from tests.models.crossings.comparison import differences, told
from tests.models.crossings.drafters import DRAFTERS
from tests.models.crossings.making import Making
from tests.models.crossings.run import run_case

CASES = int(os.environ.get("CROSSINGS", "18"))
PART = 6
NAMES = ("model", "lookup", "jacobi", "eagle", "medusa", "hydra")


def sending(actor: DraftActor, dice: np.random.Generator) -> Send:
    """Answers at once, late (after the next ask) or never; some asks end in an error."""
    late: list[tuple[Future[object], DraftAsk]] = []

    def send(ask: DraftAsk) -> "Future[object]":
        future: Future[object] = Future()
        while late:
            waiting, old = late.pop()
            waiting.set_result(carried(actor.draft(carried(old))))
        luck = dice.random()
        if luck < 0.05:
            late.append((future, ask))
        elif luck < 0.07:
            future.set_exception(RuntimeError("dead"))
        else:
            future.set_result(carried(actor.draft(carried(ask))))
        return future

    return send


def remote(name: str) -> Callable[[Making], Drafter]:
    def make(making: Making) -> Drafter:
        rng, sends = making.rng, {}
        rows = max(1, making.rows - int(rng.integers(0, 2)))  # one that forgets
        for number in range(int(rng.integers(1, 3))):
            actor = DraftActor()
            made = DRAFTERS[name](replace(making, rows=rows + 1))
            assert made is not None
            actor.serve(made, rows=rows, max_length=making.max_length)
            layers = tuple(actor.describe()["layers"])  # type: ignore[arg-type]
            dice = np.random.default_rng(int(rng.integers(1 << 30)))
            sends[f"draft-{number}"] = sending(actor, dice)
        team = DraftTeam(
            name=name, max_width=8, layers=layers, by_choices=name == "jacobi", patience=0.01
        )
        drafter = RemoteDrafter(team, client="target-0")
        drafter.connect(sends)
        return drafter

    return make


REMOTE = {name: DRAFTERS[name] for name in ("none", "lookup")}
REMOTE |= {f"remote {name}": remote(name) for name in NAMES}


@pytest.mark.parametrize("first", range(0, CASES, PART))
def test_each_request_is_as_it_is_alone(first: int) -> None:
    seen: Counter[str] = Counter()
    for number in range(first, min(first + PART, CASES)):
        case = random_case(number, REMOTE)
        found = differences(case, run_case(case, REMOTE))
        assert not found, "\n".join([*found, told(case)])
        seen += case.seen
    assert seen["accepted"] > 0
