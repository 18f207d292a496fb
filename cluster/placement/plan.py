"""How to use N devices: plain decoding, a drafter beside each target, or pools of both.

Arithmetic over measured costs; pipelines/plan measures them. A pooled target works on one half of
its batch while a draft actor works on the other, so a cycle of both halves takes the longest of

    2 v           the target is never idle
    v + d + m     a half waits for its draft
    2 d T / D     the draft actors are never idle

with v the target's part of a round over half a batch, d the drafter's, m a message there and back,
T targets and D draft actors.
"""

from collections.abc import Iterator
from dataclasses import dataclass

MESSAGE_MS = 2.0  # a call of an actor on another node and its answer
WORTH = 1.03  # drafting, or a pool, must be faster by this much to be recommended


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Of one device, at a batch size and at half of it; milliseconds of a round.

    `plain_tokens_s` and `drafted_tokens_s` count the reading of prompts, rounds do not.
    """

    batch_size: int
    plain_tokens_s: float
    drafted_tokens_s: float
    accepted_length: float
    round_ms: float
    half_accepted_length: float
    half_verify_ms: float  # all of a round but the draft
    half_draft_ms: float

    def __post_init__(self) -> None:
        for name in self.__dataclass_fields__:
            if not getattr(self, name) >= 0:
                raise ValueError(f"{name}={getattr(self, name)}: 0 or more is needed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """`drafts` 0: each target has its own drafter, or none."""

    name: str  # plain | beside | pools
    targets: int
    drafts: int
    tokens_s: float

    @property
    def devices(self) -> int:
        """That it uses."""
        return self.targets + self.drafts

    def device_hours(self, tokens: float) -> float:
        """Hours of one device for so many tokens."""
        return self.devices * tokens / self.tokens_s / 3600


def plans(costs: Costs, devices: int) -> list[Plan]:
    """Every way to use so many devices, the fastest first; of the pools the fastest split."""
    found = [
        Plan(name="plain", targets=devices, drafts=0, tokens_s=devices * costs.plain_tokens_s),
        Plan(name="beside", targets=devices, drafts=0, tokens_s=devices * costs.drafted_tokens_s),
    ]
    splits = list(_pools(costs, devices))
    if splits:
        found.append(max(splits, key=lambda plan: plan.tokens_s))
    return sorted(found, key=lambda plan: -plan.tokens_s)


def recommended(found: list[Plan]) -> Plan:
    """The simplest plan that no other one beats by more than a little."""
    chosen = next(plan for plan in found if plan.name == "plain")
    for name in ("beside", "pools"):
        other = next((plan for plan in found if plan.name == name), None)
        if other is not None and other.tokens_s > WORTH * chosen.tokens_s:
            chosen = other
    return chosen


def pooled_tokens_s(costs: Costs, targets: int, drafts: int) -> float:
    """Of so many targets that share so many draft actors."""
    verify, draft = costs.half_verify_ms, costs.half_draft_ms
    cycle_ms = max(2 * verify, verify + draft + MESSAGE_MS, 2 * draft * targets / drafts)
    tokens = costs.batch_size * costs.half_accepted_length  # of both halves
    return targets * reading(costs) * 1e3 * tokens / cycle_ms


def reading(costs: Costs) -> float:
    """The share of the time that rounds take: the rest reads prompts."""
    rounds_only = 1e3 * costs.batch_size * costs.accepted_length / max(costs.round_ms, 1e-9)
    return min(1.0, costs.drafted_tokens_s / rounds_only) if rounds_only else 1.0


def _pools(costs: Costs, devices: int) -> Iterator[Plan]:
    for drafts in range(1, devices):
        targets = devices - drafts
        speed = pooled_tokens_s(costs, targets, drafts)
        yield Plan(name="pools", targets=targets, drafts=drafts, tokens_s=speed)
