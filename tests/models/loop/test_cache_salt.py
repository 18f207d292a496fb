"""Requests share entries of the KV cache under one salt only; tokens are the same either way."""

from dataclasses import replace

import pytest

from models.engine import build_loop
from models.engine_config import EngineConfig
from models.requests.request import Request, Sampling

PROMPT = tuple((7 * i * i + i) % 2000 + 1 for i in range(200))


@pytest.fixture(scope="module")
def loop():
    target = "examples/models/text-target"
    drafter = "examples/models/text-draft"
    config = EngineConfig(target=target, drafter=drafter, device="cpu", threads=1, max_length=256)
    return build_loop(config)


def request(name: str, salt: bytes) -> Request:
    sampling = Sampling(max_tokens=3)
    return Request(id=name, prompt=PROMPT, sampling=sampling, seed=1, cache_salt=salt)


def test_a_cache_is_warm_for_its_own_salt_alone(loop) -> None:
    cached, tokens = [], set()
    for number, salt in enumerate([b"a", b"a", b"b", b"b", b"", b""]):
        (result,) = loop.run([request(str(number), salt)])
        cached.append(result.cached_tokens)
        tokens.add(result.tokens)
    assert cached == [0, 192, 0, 192, 0, 192]
    assert len(tokens) == 1


def test_requests_that_run_together_share_by_salt(loop) -> None:
    prompt = PROMPT[::-1]
    salts = [b"a", b"a", b"b", b"a", b"c", b"b"]
    asked = [replace(request(str(i), salt), prompt=prompt) for i, salt in enumerate(salts)]
    results = sorted(loop.run(asked), key=lambda result: result.id)
    assert len({result.tokens for result in results}) == 1
    assert [result.cached_tokens > 0 for result in results] == [
        False,
        True,
        False,
        True,
        False,
        True,
    ]
