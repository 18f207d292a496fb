"""The law of whole generations when drafts are drawn elsewhere and some never come."""

from concurrent.futures import Future
from dataclasses import replace

import pytest
import torch

from actors.drafts.draft import DraftActor, sparse
from actors.drafts.remote_drafter import RemoteDrafter
from actors.messages import DraftAsk, DraftReply, DraftTeam
from models.drafting.draft import Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.requests.request import Sampling
from tests.models.test_law import DRAFT_MODEL, PROMPT, TARGET, decode, fit, reference
from tests.models.tiny import exact_law

SEEDS, ROWS, V = 600, 40, DRAFT_MODEL.vocab_size
TOP_P = {"top_p": 0.8, "frequency_penalty": 0.5, "temperature": 1.2}


def p_value(verify: str, settings: dict, tell=lambda reply: reply) -> float:
    """The chance of what is seen if the law is right; every third ask is lost."""
    drafting, asked = DraftActor(), [0]
    drafting.serve(ModelDrafter(DRAFT_MODEL, rows=ROWS, capacity=60), rows=ROWS)

    def send(ask: DraftAsk) -> "Future[object]":
        future: Future[object] = Future()
        asked[0] += 1
        reply = drafting.draft(ask)
        if asked[0] % 3 == 0:
            reply = replace(reply, guesses=(), missing=tuple(g.id for g in ask.growths))
        future.set_result(tell(reply))
        return future

    drafter = RemoteDrafter(DraftTeam(name="model", max_width=1), client="target-0")
    drafter.connect({"draft-0": send})
    sampling = Sampling(max_tokens=3, **settings)
    found, figures = decode(TARGET, drafter, Shape(depth=2), sampling, verify, seeds=SEEDS)
    assert figures.accepted > SEEDS / 10
    return fit(list(found.values()), exact_law(TARGET, PROMPT, 3, reference(sampling)))


@pytest.mark.parametrize(
    ("verify", "settings"), [("rejection", {}), ("rejection", TOP_P), ("block", {})]
)
def test_the_law_is_the_targets(verify, settings):
    assert p_value(verify, settings) > 0.001


def test_a_draft_actor_that_lies_about_its_distribution_is_seen_here():
    """The control: this much a target cannot check, and the test above would tell."""

    def lie(reply: DraftReply) -> DraftReply:
        told = tuple(
            replace(g, probs=sparse(torch.full((len(g.tokens), V), 1 / V))) for g in reply.guesses
        )
        return replace(reply, guesses=told)

    assert p_value("rejection", {}, lie) < 1e-6
