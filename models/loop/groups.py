"""Decoding in groups of positions: planning a pass, choosing its tokens, storing them.

Letters: B requests, W planned positions of all requests, V vocabulary.
"""

from collections.abc import Sequence as Several
from dataclasses import dataclass
from typing import cast

import numpy as np
import torch

from models.batch import Batch, Ints
from models.errors import InvalidOption, InvalidRequest
from models.loop.logprobs import logprobs_of
from models.requests.canvas import UNDECIDED, Canvas
from models.requests.request import Request
from models.requests.sequence import Sequence
from models.sampling.noise import NoiseStore, Numbers
from models.sampling.processing import Processor
from models.schedules.feed import Feed, GroupTarget, pack
from models.schedules.schedule import Plan, Schedule
from models.targets.target import Cache


@dataclass(frozen=True, slots=True, kw_only=True)
class Groups:
    """One pass: the positions that it decides for each request, and the nodes it scores."""

    canvases: list[Canvas]
    plans: list[Plan]
    feeds: list[Feed]
    batch: Batch

    @property
    def owners(self) -> Ints:
        """[W] the request of every planned position."""
        return np.repeat(np.arange(len(self.plans)), [len(p.positions) for p in self.plans])

    @property
    def num_new(self) -> int:
        """Planned positions, except those whose tokens were generated elsewhere."""
        pairs = zip(self.canvases, self.plans, strict=True)
        return sum(len(p.positions) for c, p in pairs if not c.was_given(p.positions))


def need_plain(drafter: str, verify: str) -> None:
    """Raise InvalidOption for a drafter or a rule, which targets that decide groups cannot use."""
    told = "this target decides its tokens in groups; there is nothing to"
    if drafter != "none":
        raise InvalidOption("drafter", drafter, f"none: {told} draft")
    if verify != "match":
        raise InvalidOption("verify", verify, f"match: {told} verify")


def new_canvas(request: Request, target: GroupTarget) -> Canvas:
    """A request's canvas. Raises InvalidRequest for options that such targets cannot honour."""
    target.check(request)
    size = target.schedule.num_positions or request.sampling.max_tokens
    if request.sampling.max_tokens != size:
        raise InvalidRequest(
            f"request {request.id!r}: max_tokens={request.sampling.max_tokens}; "
            f"this target writes {size} tokens, no fewer and no more"
        )
    for name in ("stop", "stop_token_ids", "min_tokens", "grammar"):
        if getattr(request.sampling, name):
            raise InvalidRequest(
                f"request {request.id!r}: {name} has no meaning for a target that decides "
                f"tokens in groups; leave it out"
            )
    canvas = Canvas(request, size)
    if request.generated:
        canvas.resume()
        _check_groups(canvas, target.schedule)
    return canvas


def _check_groups(canvas: Canvas, schedule: Schedule) -> None:
    """Raise InvalidRequest unless the given tokens are those of the schedule's first groups."""
    ahead, given = Canvas(canvas.request, len(canvas.given)), canvas.given
    count = int((given != UNDECIDED).sum())
    while ahead.num_generated < count:
        positions, before = schedule.next(ahead).positions, ahead.num_generated
        if not canvas.was_given(positions):
            raise InvalidRequest(
                f"request {canvas.id!r}: generated has {count} tokens, at positions "
                f"{np.flatnonzero(given != UNDECIDED)[:8].tolist()}; after {before} tokens this "
                f"target decides positions {positions[:8].tolist()} together, so a request "
                f"continues after {before} or {before + len(positions)} tokens"
            )
        ahead.place(positions, given[positions])


def plan_groups(target: GroupTarget, sequences: Several[Sequence]) -> Groups:
    """Ask the schedule for positions and the target for nodes. Request i has cache row i."""
    canvases = cast(list[Canvas], list(sequences))
    plans = [target.schedule.next(canvas) for canvas in canvases]
    feeds = target.feed(canvases, plans)
    return Groups(canvases=canvases, plans=plans, feeds=feeds, batch=pack(feeds))


def choose(
    groups: Groups, logits: torch.Tensor, processor: Processor, store: NoiseStore
) -> list[Ints]:
    """The tokens of each plan's positions, from logits [W, V].

    The noise of a position depends on its place in the output, not on the pass that decides it.
    Penalties count the tokens that were decided before the pass. Tokens that were generated
    elsewhere stay as they are.
    """
    owners = groups.owners
    decided = np.array([canvas.num_generated for canvas in groups.canvases], dtype=np.int64)
    processed = processor(logits, owners, decided[owners])  # [W, V]
    numbers = Numbers(
        seeds=np.array([c.request.seed for c in groups.canvases], dtype=np.int64),
        starts=np.array([c.num_prompt for c in groups.canvases], dtype=np.int64),
        owners=owners,
        levels=np.concatenate([plan.positions for plan in groups.plans]),
    )
    tokens = processor.tokens(processed, numbers, store)
    known = [c.given[p.positions] for c, p in zip(groups.canvases, groups.plans, strict=True)]
    given = np.concatenate(known)
    tokens = np.where(given == UNDECIDED, tokens, given)
    processor.observe(owners, tokens)
    return np.split(tokens, np.cumsum([len(plan.positions) for plan in groups.plans])[:-1])


def settle(groups: Groups, tokens: list[Ints], logits: torch.Tensor, cache: Cache) -> None:
    """Store the tokens, their logprobs if requested, and the cache entries to keep."""
    start = 0
    for row, (canvas, plan, feed) in enumerate(
        zip(groups.canvases, groups.plans, groups.feeds, strict=True)
    ):
        count, size = canvas.request.sampling.logprobs, len(plan.positions)
        own = logits[start : start + size]
        said = [] if count is None else logprobs_of(own, tokens[row].tolist(), count)
        canvas.rounds += 1
        canvas.place(plan.positions, tokens[row], said)
        cache.commit(row, feed.kept)
        start += size
