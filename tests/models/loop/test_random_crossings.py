"""Whatever crosses in a token loop, each request gets what plain decoding gives it alone, cold.

CROSSINGS=N runs N cases instead of a few dozen. A failure names its case: `random_case(number)`
of tests/models/crossings/case.py makes it again.
"""

import os
from collections import Counter
from functools import cache

import pytest

from models.requests.sequence import Sequence
from models.verify import match
from models.verify.round import Commit, Round
from tests.models.crossings.case import random_case
from tests.models.crossings.comparison import differences, told
from tests.models.crossings.drafters import DRAFTERS
from tests.models.crossings.families import FAMILIES
from tests.models.crossings.run import run_case

CASES = int(os.environ.get("CROSSINGS", "24"))
PART = 6  # cases of a test


@cache
def seen() -> Counter[str]:
    """What has happened in all cases so far."""
    return Counter()


def crossed(number: int, *, family: str = "") -> list[str]:
    case = random_case(number, family=family)
    found = differences(case, run_case(case))
    seen().update(case.seen)
    return [*found, told(case)] if found else []


@pytest.mark.parametrize("first", range(0, CASES, PART))
def test_each_request_is_as_it_is_alone(first: int) -> None:
    for number in range(first, min(first + PART, CASES)):
        found = crossed(number)
        assert not found, "\n".join(found)


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family(family: str) -> None:
    found = crossed(10_000, family=family)
    assert not found, "\n".join(found)


def test_the_cases_cross_what_they_should() -> None:
    """Counted over a few cases of its own, whatever ran before in this process."""
    counts: Counter[str] = Counter()
    for number in range(12):
        case = random_case(number, family="text")
        run_case(case)
        counts += case.seen
    for name, least in LEAST.items():
        assert counts[name] >= least, (name, counts)


def test_eagle_drafters_begin_with_what_others_have_read() -> None:
    """They share blocks of whole 64 tokens, which the requests of other cases seldom have."""
    eagle, shared = {"eagle": DRAFTERS["eagle"]}, 0
    for number in range(4):
        case = random_case(number, eagle, family="text", alike=True)
        found = differences(case, run_case(case, eagle))
        assert not found, "\n".join([*found, told(case)])
        shared += case.seen["shared"] > 0
    assert shared >= 2


LEAST = {
    "accepted": 50,
    "preempted": 1,
    "shared": 64,
    "moved": 10,
    "continued": 5,
    "came again": 5,
    "changed": 5,
}


def trusting(round_: Round) -> list[Commit]:
    """The first chain of every draft is accepted without a look."""
    commits = []
    for sequence, draft in zip(round_.sequences, round_.drafts, strict=True):
        commits.append(trusted(sequence, draft.tokens.tolist(), draft.parents.tolist()))
    return commits


def trusted(sequence: Sequence, tokens: list[int], parents: list[int]) -> Commit:
    commit, tip = Commit(path=[0]), -1
    for node, (token, parent) in enumerate(zip(tokens, parents, strict=True)):
        if parent == tip and len(commit.tokens) < sequence.num_left:
            commit.tokens.append(token)
            tip = node
            if sequence.append(token):
                return commit
            commit.path.append(node + 1)
    commit.tokens.append(0)
    sequence.append(0)
    return commit


def test_a_rule_that_trusts_drafts_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """A control: the comparison fails when tokens are not the target's."""
    case = next(c for c in map(random_case, range(100)) if c.drafter == "prophet" and c.requests)
    assert not differences(case, run_case(case))
    monkeypatch.setattr(match, "match", trusting)
    assert differences(case, run_case(case))
