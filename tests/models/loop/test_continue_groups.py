"""Targets that decide groups of positions: a request continues between two groups."""

from dataclasses import replace

import numpy as np
import pytest

from models.errors import InvalidRequest
from models.exactness import ROUNDED
from models.loop.groups import new_canvas
from models.loop.token_loop import TokenLoop
from models.requests.canvas import UNDECIDED
from models.requests.request import Request, Sampling
from tests.models.bags import SIZE
from tests.models.loop.test_continue import cut, told
from tests.models.looping import loop_of as table_loop_of
from tests.models.schedules.test_schedule import BY_VALUE, TARGETS, loop_of, plain, request_of
from tests.models.targets.next_scale.test_next_scale import LENGTH, model_of, target_of
from tests.models.targets.next_scale.test_next_scale_loop import loop_of as scale_loop_of
from tests.models.targets.next_scale.test_next_scale_loop import requests as scale_requests


def states(loop: TokenLoop, request):
    """A request's result, and (tokens, their logprobs, their positions) after each group."""
    loop.submit(request)
    results, found = [], []
    while loop.num_unfinished:
        results += loop.step()
        for canvas in loop._rows.running:
            said = [canvas._said[p] for p in sorted(canvas._said)]
            places = np.flatnonzero(canvas.values != UNDECIDED).tolist()
            found.append((tuple(canvas.generated), tuple(said), tuple(places)))
    return results[0], found


def check_cuts(loop_of, requests, *, in_order):
    """`in_order`: groups follow one another in the output, so that positions need not be told."""
    for request in requests:
        result, groups = states(loop_of(), request)
        assert groups
        rest = [
            replace(
                request,
                id=str(i),
                generated=tokens,
                generated_logprobs=said,
                generated_positions=() if in_order else places,
            )
            for i, (tokens, said, places) in enumerate(groups)
        ]
        loop = loop_of()
        for found in loop.run(rest):
            assert told(replace(found, logprobs=None)) == told(replace(result, logprobs=None))
            check_logprobs(found, result)
        new = sum(len(result.tokens) - len(r.generated) for r in rest)
        assert loop.figures().tokens == new


def check_logprobs(found, expected):
    """The same bits, or the same numbers where sums may be rounded differently in another batch."""
    if expected.exactness != ROUNDED or expected.logprobs is None:
        assert found.logprobs == expected.logprobs
        return
    for ours, theirs in zip(found.logprobs, expected.logprobs, strict=True):
        assert ours.token == theirs.token
        assert [token for token, _ in ours.top] == [token for token, _ in theirs.top]
        values = [[each.logprob, *(value for _, value in each.top)] for each in (ours, theirs)]
        assert values[0] == pytest.approx(values[1], abs=1e-5)


@pytest.mark.parametrize("name", [*TARGETS, "by value"])
def test_orders_of_all_kinds_continue_after_every_group(name):
    """With penalties, which count what was decided, and log-probabilities."""
    target = {**TARGETS, "by value": BY_VALUE}[name]
    asked = [request_of(i, logprobs=None if i % 2 else 2) for i in range(14)]
    check_cuts(lambda: loop_of(target, 3), asked, in_order=name == "diagonals")


def test_maps_continue_after_every_map():
    asked = scale_requests(5)
    asked[1] = replace(asked[1], sampling=replace(asked[1].sampling, logprobs=1))
    target = target_of(model_of())
    check_cuts(lambda: scale_loop_of(target, rows=3), asked, in_order=True)


def test_given_tokens_stay_as_they_are():
    """They are not decided again: another token at their place stands, and others follow."""
    target = target_of(model_of())
    request = scale_requests(1)[0]
    (result,) = scale_loop_of(target).run([request])
    other = (result.tokens[0] + 1) % target.vocab_size
    (found,) = scale_loop_of(target).run([replace(request, generated=(other,))])
    assert found.tokens[0] == other
    assert found.tokens != (other, *result.tokens[1:])


def test_a_cut_inside_a_group_is_refused():
    target = target_of(model_of())
    request = scale_requests(1)[0]
    (result,) = scale_loop_of(target).run([request])
    with pytest.raises(InvalidRequest, match=r"3 tokens, at .* continues after 1 or 5 tokens"):
        scale_loop_of(target).submit(cut(request, result, 3))
    with pytest.raises(InvalidRequest, match=f"generated has {LENGTH} tokens and max_tokens"):
        scale_loop_of(target).submit(cut(request, result, LENGTH))


def test_positions_that_are_not_the_first_groups_are_refused():
    target = TARGETS["random"]
    (result,) = loop_of(target).run([plain(0)])
    first = next(p for p in range(SIZE) if p not in first_group(target))
    wrong = replace(plain(0), generated=result.tokens[:1], generated_positions=(first,))
    with pytest.raises(InvalidRequest, match=r"1 tokens, at positions .* after 0 tokens"):
        loop_of(target).submit(wrong)


def first_group(target) -> list[int]:
    """The positions of the first group of request 0."""
    return target.schedule.next(new_canvas(plain(0), target)).positions.tolist()


@pytest.mark.parametrize("places", [(1, 0), (0,), (0, SIZE), (-1, 0), (1, 1)])
def test_positions_that_make_no_sense_are_refused(places):
    request = replace(plain(0), generated=(1, 2), generated_positions=places)
    with pytest.raises(InvalidRequest, match=r"generated_positions has .* ascending, in 0\.\.3"):
        loop_of(BY_VALUE).submit(request)


def test_positions_are_for_targets_that_decide_groups():
    request = Request(id="a", prompt=(1,), generated=(1,), generated_positions=(0,))
    request = replace(request, sampling=Sampling(max_tokens=9))
    with pytest.raises(InvalidRequest, match="one position after the other"):
        table_loop_of().submit(request)
