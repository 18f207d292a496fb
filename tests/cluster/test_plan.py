"""Plans follow from costs: who is idle decides how many of each there are."""

from dataclasses import replace

import pytest

from cluster.placement.plan import Costs, Plan, plans, pooled_tokens_s, recommended

# 8 requests, 3 tokens a round; a round of 30 ms, of which 12 ms draft.
COSTS = Costs(
    batch_size=8,
    plain_tokens_s=500.0,
    drafted_tokens_s=800.0,
    accepted_length=3.0,
    round_ms=30.0,
    half_accepted_length=3.0,
    half_verify_ms=12.0,
    half_draft_ms=6.0,
)


def chosen(costs: Costs, devices: int) -> Plan:
    return recommended(plans(costs, devices))


def test_one_device_has_no_pool():
    assert {plan.name for plan in plans(COSTS, 1)} == {"plain", "beside"}
    assert chosen(COSTS, 1) == Plan(name="beside", targets=1, drafts=0, tokens_s=800.0)


def test_a_draft_actor_serves_as_many_targets_as_it_has_time_for():
    # A cycle of 24 ms has 24 tokens; a draft actor has time for two targets of 2 × 6 ms each.
    assert pooled_tokens_s(COSTS, 2, 1) == pytest.approx(2000)
    assert pooled_tokens_s(COSTS, 4, 1) == pytest.approx(2000)
    assert pooled_tokens_s(COSTS, 4, 2) == pytest.approx(4000)


def test_a_late_draft_holds_its_half_up():
    slow = replace(COSTS, half_draft_ms=22.0)
    assert pooled_tokens_s(slow, 1, 8) == pytest.approx(1e3 * 24 / (12 + 22 + 2))


def test_pools_are_recommended_where_they_win():
    cheap = replace(COSTS, half_draft_ms=1.0, half_verify_ms=8.0)
    best = chosen(cheap, 8)
    assert (best.name, best.targets, best.drafts) == ("pools", 7, 1)
    assert chosen(COSTS, 2).name == "beside"  # half of the devices would only draft


def test_a_drafter_that_does_not_pay_is_left_out():
    assert (
        chosen(replace(COSTS, drafted_tokens_s=510.0, half_accepted_length=1.0), 2).name == "plain"
    )


def test_hours_are_those_of_all_devices():
    plan = Plan(name="pools", targets=3, drafts=1, tokens_s=1000.0)
    assert plan.device_hours(3600 * 1000) == pytest.approx(4)


def test_costs_are_numbers():
    with pytest.raises(ValueError, match="half_draft_ms=nan: 0 or more"):
        replace(COSTS, half_draft_ms=float("nan"))
