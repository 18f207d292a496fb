"""What a loop counts adds up, and sums of sums are sums."""

import pytest

from models.loop.figures import Figures
from tests.models.looping import RUNS, loop_of, request_of

PARTS = ("draft_s", "transfer_s", "score_s", "verify_s", "other_s", "prefill_s")


@pytest.mark.parametrize(("drafter", "rule"), RUNS)
def test_a_run_s_figures_add_up(drafter, rule):
    loop, requests = loop_of(drafter, rule=rule), [request_of(i) for i in range(40)]
    results = loop.run(requests)
    found = loop.figures()
    assert found.tokens == sum(len(r.tokens) for r in results)
    assert found.tokens == found.accepted + found.round_rows
    assert found.rounds == found.target_passes
    assert found.round_rows == sum(r.target_passes for r in results)
    assert found.drafted == sum(r.draft_tokens for r in results)
    assert found.prompt_tokens == sum(len(r.prompt) - 1 for r in requests)
    assert sum(found.accepted_by_position) == found.accepted
    if drafter == "tree":
        assert sum(found.drafted_by_position) < found.drafted
    else:
        assert sum(found.drafted_by_position) == found.drafted
    pairs = zip(found.accepted_by_position, found.drafted_by_position, strict=True)
    assert all(accepted <= drafted for accepted, drafted in pairs)
    falling = list(found.accepted_by_position)
    assert falling == sorted(falling, reverse=True)
    assert (found.draft_passes > 0) == (drafter in ("chain", "tree"))
    assert (found.drafted > 0) == (drafter != "none")
    assert found.accepted_length == found.tokens / found.round_rows
    assert all(getattr(found, part) >= 0 for part in PARTS)
    assert found.score_s > 0


def test_reset_begins_anew():
    loop = loop_of("chain")
    loop.run([request_of(1)])
    loop.reset_figures()
    assert loop.figures() == Figures()
    loop.run([request_of(2)])
    again = loop_of("chain")
    again.run([request_of(2)])
    assert loop.figures().tokens == again.figures().tokens


def test_figures_of_several_loops_are_summed():
    first = Figures(
        rounds=2, round_rows=4, tokens=10, drafted_by_position=(4, 2), accepted_by_position=(3, 1),
        draft_s=0.5,
    )  # fmt: skip
    second = Figures(
        rounds=1, round_rows=1, tokens=2, drafted_by_position=(1,), accepted_by_position=(1,)
    )
    total = first + second
    assert (total.rounds, total.tokens, total.draft_s) == (3, 12, 0.5)
    assert total.drafted_by_position == (5, 2)
    assert total.acceptance_by_position == (0.8, 0.5)
    assert total.accepted_length == 2.4
    assert first + Figures() == first


def test_nothing_run_is_nothing_over_nothing():
    empty = Figures()
    assert empty.accepted_length == 0
    assert empty.acceptance_by_position == ()
    assert set(empty.round_ms().values()) == {0.0}


def test_a_round_s_milliseconds_are_the_sum_of_its_parts():
    parts = Figures(rounds=10, draft_s=1, transfer_s=2, score_s=3, verify_s=4, other_s=5)
    found = parts.round_ms()
    assert found["draft"] == 100
    assert found["round"] == 1500
    assert found["round"] == sum(v for k, v in found.items() if k != "round")
