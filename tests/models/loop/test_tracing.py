"""Traces: where a request's time went, step by step; no token depends on them."""

from dataclasses import replace
from itertools import pairwise

import pytest

from models.requests import spans
from models.requests.spans import Span
from tests.models.looping import DRAFTERS, loop_of, request_of
from tests.models.schedules.test_schedule import TARGETS
from tests.models.schedules.test_schedule import loop_of as group_loop_of
from tests.models.schedules.test_schedule import request_of as group_request_of

PARTS = ("draft", "score", "verify")
SLACK_US = 2  # of rounding


def traced(asked):
    return [replace(request, trace=request.id != "r1") for request in asked]


def by_name(spans: tuple[Span, ...], *names: str) -> list[Span]:
    return [span for span in spans if span.name in names]


def end(span: Span) -> int:
    return span.began_us + span.took_us


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_rounds_add_up_to_the_result(drafter):
    asked = [request_of(i, length=12, ignore_eos=True, stop=()) for i in range(6)]
    plain = {r.id: r for r in loop_of(drafter, chunk=5).run(asked)}
    found = {r.id: r for r in loop_of(drafter, chunk=5).run(traced(asked))}
    assert {i: r.tokens for i, r in found.items()} == {i: r.tokens for i, r in plain.items()}
    assert not any(r.spans for r in plain.values())
    assert not found.pop("r1").spans
    for result in found.values():
        rounds, reads = by_name(result.spans, "round"), by_name(result.spans, "prefill")
        assert len(rounds) == result.target_passes
        assert sum(span.facts["tokens"] for span in rounds) == len(result.tokens)
        assert sum(span.facts["draft_tokens"] for span in rounds) == result.draft_tokens
        assert sum(span.facts["accepted"] for span in rounds) == len(result.tokens) - len(rounds)
        assert 0 < sum(span.facts["tokens"] for span in reads) <= 11
        assert len(by_name(result.spans, "waiting")) == 1
        told = any("drafter" in span.facts for span in rounds)
        assert told == (result.draft_tokens > 0)
    assert (drafter == "none") != any(r.draft_tokens for r in found.values())


@pytest.mark.parametrize("drafter", ["none", "tree"])
def test_what_follows_begins_after_what_came_before(drafter):
    asked = traced([request_of(i, length=9, ignore_eos=True, stop=()) for i in range(6)])
    for result in loop_of(drafter, chunk=4).run(asked):
        outer = by_name(result.spans, "waiting", "prefill", "round")
        for before, after in pairwise(outer):
            assert end(before) <= after.began_us + SLACK_US, (before, after)
        inner, rounds = by_name(result.spans, *PARTS), by_name(result.spans, "round")
        for span in inner:
            around = [r for r in rounds if r.began_us - SLACK_US <= span.began_us]
            assert end(span) <= end(around[-1]) + SLACK_US


def test_a_request_that_gave_way_waits_again():
    asked = traced([request_of(i, length=8, max_tokens=40, ignore_eos=True) for i in (0, 2, 3)])
    loop = loop_of(rows=3, entries=140, max_length=60)
    waits = [len(by_name(r.spans, "waiting")) for r in loop.run(asked)]
    assert loop.figures().preemptions > 0
    assert sum(waits) == 3 + loop.figures().preemptions


@pytest.mark.parametrize("name", TARGETS)
def test_groups_of_positions_are_rounds(name):
    asked = [replace(group_request_of(i), trace=True) for i in range(3)]
    for result in group_loop_of(TARGETS[name]).run(asked):
        rounds = by_name(result.spans, "round")
        assert len(rounds) == result.target_passes
        assert sum(span.facts["tokens"] for span in rounds) == len(result.tokens)


def test_long_answers_have_bounded_traces(monkeypatch):
    monkeypatch.setattr(spans, "MOST", 20)
    (result,) = loop_of().run([replace(request_of(0, max_tokens=17, ignore_eos=True), trace=True)])
    assert len(result.tokens) == 17
    assert len(result.spans) == 20
    assert result.spans[-1].name == "what follows is not noted"
