"""Random cases in which features of the token loop cross, and what plain decoding says of each.

A case is a seed: a target of some family, a drafter, a loop's sizes, requests of every kind, and
what happens at which step. Each request is compared with plain decoding of it alone, cold.
"""

from collections import Counter
from dataclasses import dataclass, field, replace

import numpy as np

from models.drafting.draft import NOTHING, Shape
from models.drafting.sizing.sizing import FixedSize
from models.loop.token_loop import TokenLoop
from models.requests.request import Request, Result
from models.targets.target import Target
from tests.models.crossings.dice import pick
from tests.models.crossings.drafters import DRAFTERS, Maker, random_shape
from tests.models.crossings.families import FAMILIES
from tests.models.crossings.requests import begin_alike, random_requests
from tests.models.crossings.spelling import grammars, spell
from tests.models.crossings.text_targets import CONTEXT


@dataclass
class Case:
    """One random crossing."""

    number: int
    family: str
    target: Target
    requests: list[Request]  # whole, none continues
    plain: dict[str, Result]
    rows: int
    max_length: int
    scratch: int
    chunk: int
    entries: int | None
    drafter: str
    shape: Shape
    seen: Counter[str] = field(default_factory=Counter)


def alone(target: Target, request: Request) -> Result:
    """Plain decoding: nothing drafted, nothing shared, the prompt read at once."""
    bare = replace(request, prediction=(), drafts=False, cache_salt=b"", stream=False, priority=0)
    length = len(request.prompt) + request.sampling.max_tokens
    loop = TokenLoop(
        target, None, FixedSize(NOTHING), rows=1, max_length=length, scratch=1, decode=spell,
        prefill_chunk=CONTEXT, grammars=lambda: grammars(target.vocab_size),
    )  # fmt: skip
    (result,) = loop.run([bare])
    return result


def random_case(
    number: int,
    drafters: dict[str, Maker] = DRAFTERS,
    *,
    family: str = "",
    alike: bool = False,
) -> Case:
    """`family`: a random one, if none is given. `alike`: long texts begin alike, more often."""
    rng = np.random.default_rng([number, 17])
    names = list(FAMILIES)
    family = family or str(rng.choice(names, p=[FAMILIES[name][1] for name in names]))
    target = FAMILIES[family][0](rng)
    image = target.context_length - 1 if target.input_size > target.vocab_size else None
    requests = random_requests(rng, target, image=image)
    if alike:
        requests = begin_alike(rng, requests, target.vocab_size)
    if family == "adapted":
        requests = requests[:3]
    plain = {request.id: alone(target, request) for request in requests}
    # A text like the output: the output itself, with some other tokens.
    for i, request in enumerate(requests):
        if rng.random() < 0.25:
            tokens = [t for t in plain[request.id].tokens if rng.random() < 0.9]
            requests[i] = replace(request, prediction=tuple(tokens))
    in_order = target.schedule.in_order
    drafter = str(rng.choice(list(drafters))) if in_order else "none"
    shape = random_shape(rng, drafter)
    rows = int(rng.integers(1, 6)) if len(requests) < 10 else int(rng.integers(8, 20))
    longest = max(len(r.prompt) + r.sampling.max_tokens for r in requests)
    max_length = longest + int(rng.integers(0, 20))
    scratch = shape.budget + 1 + pick(rng, (0, 0, 8, 20)) if in_order else 1
    least = max_length + scratch
    return Case(
        number, family, target, requests, plain,
        rows=rows,
        max_length=max_length,
        scratch=scratch,
        chunk=pick(rng, (1, 3, 7, 16, 64, 256)),
        entries=None if rng.random() < 0.3 else least + int(rng.integers(0, 1 + least // 2)),
        drafter=drafter,
        shape=shape,
    )  # fmt: skip
