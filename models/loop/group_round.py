"""One round of a target that decides positions in groups: plan, score, choose, commit."""

from collections.abc import Sequence as Several
from dataclasses import dataclass

from models.batch import Ints
from models.loop.groups import Groups, choose, plan_groups, settle
from models.loop.stopwatch import Stopwatch
from models.requests.sequence import Sequence
from models.sampling.noise import NoiseStore
from models.sampling.processing import Processor
from models.schedules.feed import GroupTarget
from models.targets.finite import broken_rows
from models.targets.target import Cache


@dataclass(frozen=True, slots=True, kw_only=True)
class GroupRound:
    """What was decided; `broken` are the requests whose scores were NaN or infinite."""

    groups: Groups
    tokens: Several[Ints]
    broken: tuple[Sequence, ...]


def group_round(
    target: GroupTarget,
    running: list[Sequence],
    cache: Cache,
    processor: Processor,
    noise: NoiseStore,
    marks: Stopwatch,
) -> GroupRound:
    """Decide the next group of positions of every request, and commit what the target keeps."""
    groups = plan_groups(target, running)
    marks.note("other")
    logits = target.score(cache, groups.batch).logits  # [W, V]
    marks.note("score")
    broken = broken_rows(logits)
    tokens = choose(groups, logits, processor, noise)
    marks.note("verify")
    settle(groups, tokens, logits, cache)
    bad = [] if broken is None else sorted(set(groups.owners[broken].tolist()))
    return GroupRound(groups=groups, tokens=tokens, broken=tuple(running[b] for b in bad))
