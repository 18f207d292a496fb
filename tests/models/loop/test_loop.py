"""Continuous batching: company, order, prompts and drafts change when tokens come, never which."""

from functools import cache

import numpy as np
import pytest

from models.errors import InvalidRequest
from models.requests.request import Request, Sampling
from tests.models.looping import DRAFTERS, alone, loop_of, request_of, tokens_of

MANY = 300


@cache
def one_by_one():
    return alone([request_of(i) for i in range(MANY)])


@pytest.mark.parametrize(
    ("drafter", "rows", "count"),
    [
        ("none", 1, 60),
        ("none", 16, MANY),
        ("lookup", 7, 100),
        ("chain", 4, 100),
        ("tree", 16, MANY),
    ],
)
def test_many_mixed_requests_get_the_tokens_they_get_alone(drafter, rows, count):
    requests = [request_of(i) for i in range(count)]
    results = loop_of(drafter, rows=rows, chunk=8).run(requests)
    assert len(results) == count
    assert tokens_of(results) == {r.id: one_by_one()[r.id] for r in requests}
    assert {r.exactness for r in results} == {"identical"}


def test_the_mix_has_every_way_to_end():
    reasons = {(reason, bool(text)) for _, reason, text in one_by_one().values()}
    assert reasons == {("stop", False), ("stop", True), ("length", False)}


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_requests_join_and_leave_at_any_step(drafter):
    rng, loop = np.random.default_rng(3), loop_of(drafter, rows=3, chunk=4)
    waiting, results = [request_of(i) for i in range(60)], []
    while waiting or loop.num_unfinished:
        for _ in range(int(rng.integers(0, 3))):
            if waiting:
                loop.submit(waiting.pop(0))
        results += loop.step()
    expected = {f"r{i}": one_by_one()[f"r{i}"] for i in range(60)}
    assert tokens_of(results) == expected


@pytest.mark.parametrize("chunk", [1, 3, 64])
@pytest.mark.parametrize("drafter", ["none", "tree"])
def test_prompts_of_any_length_in_chunks_of_any_size(drafter, chunk):
    lengths = [1, 2, 3, 4, 5, 17, 30, 1, 64, 2]
    requests = [request_of(i, length=n) for i, n in enumerate(lengths)]
    loop = loop_of(drafter, rows=4, chunk=chunk)
    assert tokens_of(loop.run(requests)) == alone(requests)
    figures = loop.figures()
    assert figures.prompt_tokens == sum(lengths) - len(lengths)  # the last one is the first root
    assert figures.prefill_passes >= figures.prompt_tokens / (chunk + 4)


def test_a_long_prompt_does_not_stall_those_who_decode():
    """One chunk a step, so the running request gains a token at every one of them."""
    loop = loop_of(rows=2, chunk=5)
    loop.submit(request_of(1, length=1, max_tokens=60, ignore_eos=True, stop=()))
    loop.step()
    loop.submit(request_of(2, length=64))
    before = loop.figures().tokens
    for steps in range(1, 10):
        loop.step()
        assert loop.figures().tokens - before == steps


def test_short_prompts_share_a_pass():
    loop = loop_of(rows=8, chunk=64)
    loop.run([request_of(i, length=5) for i in range(8)])
    assert loop.figures().prefill_passes == 1


def test_results_tell_passes_and_accepted_length():
    requests = [request_of(i) for i in range(20)]
    for result in loop_of("chain").run(requests):
        assert 1 <= result.target_passes <= len(result.tokens)
        assert result.accepted_length == len(result.tokens) / result.target_passes
    for result in loop_of("none").run(requests):
        assert result.target_passes == len(result.tokens)
        assert result.draft_tokens == 0


def test_two_requests_with_one_seed_and_prompt_are_twins():
    twins = [
        Request(id=name, prompt=(1, 2), sampling=Sampling(max_tokens=9), seed=5) for name in "ab"
    ]
    for drafter in DRAFTERS:
        first, second = loop_of(drafter).run(twins)
        assert first.tokens == second.tokens


def test_a_request_continued_elsewhere_goes_on_as_it_would_have():
    """Generated tokens moved to the end of the prompt: the seed and the position decide."""
    request = Request(id="a", prompt=(1, 2), sampling=Sampling(max_tokens=20), seed=11)
    whole = loop_of(rows=1).run([request])[0].tokens
    for cut in range(1, len(whole)):
        rest = Request(
            id="a",
            prompt=(1, 2, *whole[:cut]),
            sampling=Sampling(max_tokens=20 - cut),
            seed=11,
        )
        assert loop_of("chain", rows=1).run([rest])[0].tokens == whole[cut:]


# The same loop over and over


@pytest.mark.parametrize("drafter", DRAFTERS)
def test_an_id_may_be_used_again(drafter):
    """With another sampling: nothing of the first request is left."""
    loop = loop_of(drafter, rows=1)
    for number in (0, 1, 4, 6, 2, 4):
        request = request_of(number)
        again = Request(id="same", prompt=request.prompt, sampling=request.sampling, seed=number)
        found = loop.run([again])[0]
        expected = alone([request])[request.id]
        assert (found.tokens, found.finish_reason, found.stop_text) == expected


def test_an_id_is_refused_while_it_is_in_use():
    loop = loop_of(rows=1)
    loop.submit(request_of(1))
    with pytest.raises(InvalidRequest, match=r"'r1'.*already"):
        loop.submit(request_of(1))
    loop.step()
    with pytest.raises(InvalidRequest, match="already"):
        loop.submit(request_of(1))
    loop.cancel("r1")
    loop.submit(request_of(1))


# What can never run


BAD = {
    "empty prompt": ({"prompt": ()}, "'bad'.*empty"),
    "text": ({"prompt": "def f"}, "'bad'.*is a text; give its token ids"),
    "too long": ({"prompt": (1,) * 95}, "95 tokens and max_tokens=6 make 101; at most 100"),
    "unknown token": ({"prompt": (1, 5)}, "token 5 is not in 0..4"),
    "negative token": ({"prompt": (-1,)}, "token -1"),
    "unknown bias": ({"sampling": {"logit_bias": {7: 1.0}}}, "logit_bias.*token 7"),
    "unknown stop": ({"sampling": {"stop_token_ids": (99,)}}, "stop_token_ids.*99"),
    "negative seed": ({"seed": -1}, "seed -1"),
    "huge seed": ({"seed": 2**63}, "seed 9223372036854775808"),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_request_is_refused_and_disturbs_nobody(case):
    changes, message = BAD[case]
    sampling = Sampling(max_tokens=6, **changes.get("sampling", {}))
    request = Request(
        id="bad",
        prompt=changes.get("prompt", (1,)),
        sampling=sampling,
        seed=changes.get("seed", 0),
    )
    loop = loop_of("chain", rows=2)
    loop.submit(request_of(1))
    with pytest.raises(InvalidRequest, match=message):
        loop.submit(request)
    assert tokens_of(loop.run([])) == alone([request_of(1)])


def test_stop_strings_need_a_tokenizer():
    loop = loop_of()
    loop._decode = None
    with pytest.raises(InvalidRequest, match="tokenizer"):
        loop.submit(request_of(1, stop=("a",)))


def test_what_just_fits_runs():
    request = request_of(1, prompt=(1,) * 94, max_tokens=6)
    assert len(loop_of("tree", rows=1).run([request])) == 1


def test_the_loop_describes_itself():
    loop = loop_of("chain")
    told = loop.describe()
    assert told["drafter"] == "model"
    assert told["verify"] == "match"
    assert told["noise"] == "gumbel"
    assert told["vocabulary"] == 5
    assert told["cache_bytes"] == loop.cache_bytes > 0
