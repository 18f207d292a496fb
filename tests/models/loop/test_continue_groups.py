"""Targets that decide groups of positions: a request continues between two groups."""

from dataclasses import replace

import pytest

from models.errors import InvalidRequest
from models.loop.token_loop import TokenLoop
from tests.models.bags import SIZE
from tests.models.loop.test_continue import cut, told
from tests.models.schedules.test_schedule import BY_VALUE, TARGETS, loop_of, plain, request_of
from tests.models.targets.next_scale.test_next_scale import LENGTH, model_of, target_of
from tests.models.targets.next_scale.test_next_scale_loop import loop_of as scale_loop_of
from tests.models.targets.next_scale.test_next_scale_loop import requests as scale_requests


def states(loop: TokenLoop, request):
    """A request's result, and (tokens, logprobs by position) after each of its groups."""
    loop.submit(request)
    results, found = [], []
    while loop.num_unfinished:
        results += loop.step()
        for canvas in loop._rows.running:
            said = [canvas._said[p] for p in sorted(canvas._said)]
            found.append((tuple(canvas.generated), tuple(said)))
    return results[0], found


def check_cuts(loop_of, requests):
    for request in requests:
        result, groups = states(loop_of(), request)
        assert groups
        rest = [
            replace(request, id=str(i), generated=tokens, generated_logprobs=said)
            for i, (tokens, said) in enumerate(groups)
        ]
        loop = loop_of()
        for found in loop.run(rest):
            assert told(found) == told(result)
        new = sum(len(result.tokens) - len(r.generated) for r in rest)
        assert loop.figures().tokens == new


@pytest.mark.parametrize("name", TARGETS)
def test_orders_of_all_kinds_continue_after_every_group(name):
    """With penalties, which count what was decided, and log-probabilities."""
    asked = [request_of(i, logprobs=None if i % 2 else 2) for i in range(14)]
    check_cuts(lambda: loop_of(TARGETS[name], 3), asked)


def test_maps_continue_after_every_map():
    asked = scale_requests(5)
    asked[1] = replace(asked[1], sampling=replace(asked[1].sampling, logprobs=1))
    target = target_of(model_of())
    check_cuts(lambda: scale_loop_of(target, rows=3), asked)


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
    with pytest.raises(InvalidRequest, match=r"3 tokens, .* continues after 1 or 5 tokens"):
        scale_loop_of(target).submit(cut(request, result, 3))
    with pytest.raises(InvalidRequest, match=f"generated has {LENGTH} tokens and max_tokens"):
        scale_loop_of(target).submit(cut(request, result, LENGTH))


def test_an_order_that_depends_on_the_tokens_is_refused():
    (result,) = loop_of(BY_VALUE).run([plain(0)])
    with pytest.raises(InvalidRequest, match="'random' chooses positions by sampled values"):
        loop_of(BY_VALUE).submit(cut(plain(0), result, SIZE - 1))
