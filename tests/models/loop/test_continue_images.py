"""A raster image target with guidance: its images stream as tokens and continue anywhere."""

from pathlib import Path

import pytest

from models.engine import build_loop
from models.engine_config import EngineConfig
from models.requests.request import Request, Sampling
from tests.models.loop.test_continue import cut, told
from tests.models.loop.test_updates import joined, run

DIGITS = str(Path(__file__).parents[3] / "examples" / "models" / "digits-raster")


def loop_of(drafter: str, rows: int):
    return build_loop(
        EngineConfig(
            target=DIGITS,
            drafter=drafter,
            draft_tokens=6 if drafter == "jacobi" else "auto",
            batch_size=rows,
            guidance=2.0,
            device="cpu",
        )
    )


@pytest.mark.parametrize(("before", "after"), [("none", "jacobi"), ("jacobi", "none")])
def test_an_image_continues_at_every_row(before, after):
    loop = loop_of(before, 2)
    target = loop.target
    size, classes = target.context_length - 1, target.input_size - target.vocab_size - 1
    sampling = Sampling(max_tokens=size, logprobs=1, top_k=50)
    asked = [
        Request(id=str(i), prompt=(target.vocab_size + i % classes,), sampling=sampling, seed=i,
                stream=True)
        for i in (3, 8)
    ]  # fmt: skip
    results, updates = run(loop, asked)
    rest = []
    for request in asked:
        assert joined(updates[request.id], "tokens") == results[request.id].tokens
        assert {u.text for u in updates[request.id]} == {None}
        rest += [cut(request, results[request.id], count) for count in range(0, size, 9)]
    found, more = run(loop_of(after, 3), rest)
    for request in rest:
        result = results[request.id.split("@")[0]]
        assert told(found[request.id]) == told(result)
        assert joined(more[request.id], "tokens") == result.tokens[len(request.generated) :]
