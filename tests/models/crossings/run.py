"""Runs a case: requests come, continue, are cancelled and come again, and drafters change."""

from collections import Counter

import numpy as np

from models.drafting.sizing.sizing import FixedSize
from models.loop.token_loop import TokenLoop
from models.requests.request import Request, Result
from models.schedules.schedule import Scales
from tests.models.crossings.case import Case
from tests.models.crossings.dice import pick
from tests.models.crossings.drafters import DRAFTERS, Maker, random_shape
from tests.models.crossings.making import Making
from tests.models.crossings.spelling import grammars, spell
from tests.models.loop.test_continue import cut

MOST = 4  # cancelled requests, and changes of the drafter, in a case


def run_case(case: Case, drafters: dict[str, Maker] = DRAFTERS) -> dict[str, Result]:
    """The loop's results by id; `case.seen` counts what happened."""
    rng = np.random.default_rng([case.number, 23])
    known = {r.id: case.plain[r.id].tokens for r in case.requests}
    making = Making(rng, case.target, known, case.rows, case.max_length, case.shape)
    loop = TokenLoop(
        case.target,
        drafters[case.drafter](making),
        FixedSize(case.shape),
        rows=case.rows,
        max_length=case.max_length,
        scratch=case.scratch,
        entries=case.entries,
        prefill_chunk=case.chunk,
        decode=spell,
        grammars=lambda: grammars(case.target.vocab_size),
    )
    watch_moves(loop, case.seen)
    coming = [begun(rng, case, request) for request in case.requests]
    results: dict[str, Result] = {}
    streamed: dict[str, list[int]] = {}
    steps = 0
    while coming or loop.num_unfinished:
        for _ in range(int(rng.integers(0, 3)) + (not loop.num_unfinished)):
            if coming:
                loop.submit(coming.pop(0))
        if rng.random() < 0.06 and case.seen["cancelled"] < MOST:
            coming += cancelled(rng, case, loop, streamed)
        if rng.random() < 0.06 and case.scratch > 1 and case.seen["changed"] < MOST:
            change(rng, case, loop, making, drafters)
        for result in loop.step():
            assert result.id not in results, result.id
            results[result.id] = result
        for update in loop.take_updates():
            streamed.setdefault(update.id, []).extend(update.tokens)
        steps += 1
        assert steps < 20_000, "the loop does not end"
    figures = loop.figures()
    case.seen.update(
        accepted=figures.accepted,
        drafted=figures.drafted,
        preempted=figures.preemptions,
        shared=figures.prefix_hit_tokens,
    )
    check_streams(case, results, streamed)
    assert not loop._cache.lengths.any()
    return results


def begun(rng: np.random.Generator, case: Case, request: Request) -> Request:
    """The request, or what is left of it after some of its tokens were generated elsewhere."""
    result = case.plain[request.id]
    if result.error is not None or rng.random() > 0.3:
        return request
    case.seen["continued"] += 1
    return rest(case, request, int(rng.integers(0, len(result.tokens))))


def rest(case: Case, request: Request, count: int) -> Request:
    """What is left after `count` tokens, or after the last whole group of them."""
    if isinstance(case.target.schedule, Scales):
        count = max([end for end in case.target.schedule.ends if end <= count], default=0)
    return cut(request, case.plain[request.id], count, name=request.id)


def cancelled(
    rng: np.random.Generator, case: Case, loop: TokenLoop, streamed: dict[str, list[int]]
) -> list[Request]:
    """Cancel a request; it comes again, with as many of its tokens as may be known."""
    there = [*loop._rows.waiting, *loop._rows.reading, *loop._rows.running]
    if not there:
        return []
    sequence = pick(rng, there)
    done = sequence.num_generated
    assert loop.cancel(sequence.id)
    loop.take_updates()
    case.seen["cancelled"] += 1
    request = next(r for r in case.requests if r.id == sequence.id)
    kept = int(rng.integers(0, done + 1)) if done else 0
    streamed.pop(request.id, None)
    plain = case.plain[request.id]
    if plain.error is not None:
        return [request]
    case.seen["came again"] += 1
    return [rest(case, request, min(kept, len(plain.tokens) - 1))]


def change(
    rng: np.random.Generator,
    case: Case,
    loop: TokenLoop,
    making: Making,
    drafters: dict[str, Maker],
) -> None:
    """Another drafter, of a shape that the loop has room for."""
    name = str(rng.choice([name for name in drafters if name != "none"]))
    shape = random_shape(rng, name)
    while shape.budget >= case.scratch:
        shape = random_shape(rng, name)
    making.shape = shape
    drafter = drafters[name](making)
    assert drafter is not None
    loop.change_drafter(drafter, FixedSize(shape))
    case.seen["changed"] += 1


def watch_moves(loop: TokenLoop, seen: Counter[str]) -> None:
    """Count rows that move while they hold something."""
    move = loop._cache.move

    def noted(source: int, destination: int) -> None:
        seen["moved"] += bool(source != destination and loop._cache.lengths[source])
        move(source, destination)

    loop._cache.move = noted  # type: ignore[method-assign]


def check_streams(case: Case, results: dict[str, Result], streamed: dict[str, list[int]]) -> None:
    for request in case.requests:
        result = results[request.id]
        if request.stream and result.error is None:
            told = tuple(streamed.get(request.id, ()))
            assert told == result.tokens[len(result.tokens) - len(told) :], request.id
            assert told, request.id
