"""What a server promises follows from its options and from what its targets run on."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from models.exactness import DISTRIBUTION, IDENTICAL, ROUNDED
from pipelines.serve.config import ServeConfig
from pipelines.serve.generation.facts import Facts, known
from pipelines.serve.server import facts_of

TARGET = str(Path(__file__).parents[3] / "examples" / "models" / "text-target")
STEADY = {"exactness": IDENTICAL, "arithmetic": "steady", "device": "cpu (x86_64, AVX2)"}
TORCH = {"exactness": ROUNDED, "arithmetic": "torch", "device": "cpu (x86_64, AVX2)"}


def served(told: dict[str, Any], **options: Any) -> Facts:
    return known(facts_of(ServeConfig(target=TARGET, **options)), told)


@pytest.fixture(scope="module")
def steady() -> Facts:
    return served(STEADY)


def test_steady_servers_are_one(steady: Facts) -> None:
    """Drafters, devices that were asked for and other CPUs change no token."""
    assert steady.repeats
    other = served({**STEADY, "device": "cpu (x86_64, AVX512)"}, drafter="lookup", device="cpu")
    assert replace(other, created=0, others="") == replace(steady, created=0, others="")


@pytest.mark.parametrize(
    ("told", "options"),
    [
        (TORCH, {}),
        ({**TORCH, "device": "cuda (NVIDIA H200)"}, {"device": "cuda"}),
        ({**STEADY, "exactness": DISTRIBUTION}, {"drafter": "lookup", "verify": "rejection"}),
        (STEADY, {"arithmetic": "fast"}),
    ],
)
def test_other_arithmetic_gives_other_fingerprints_and_no_ids(
    steady: Facts, told: dict[str, Any], options: dict[str, Any]
) -> None:
    found = served(told, **options)
    assert not found.repeats
    assert found.fingerprint != steady.fingerprint


def test_what_decides_where_answers_do_not_repeat() -> None:
    gpu = {**TORCH, "device": "cuda (NVIDIA H200)"}
    options: list[dict[str, Any]] = [{}, {"drafter": "lookup"}, {"dtype": "bfloat16"}]
    found = [served(gpu), *(served(TORCH, **each) for each in options)]
    assert len({each.fingerprint for each in found}) == len(found)
    assert served(gpu).fingerprint == found[0].fingerprint
