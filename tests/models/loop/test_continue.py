"""A request cut anywhere and continued on another loop goes on as if it had never moved."""

from dataclasses import replace
from functools import cache

import pytest

from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import NOTHING, Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.parallel.jacobi import JacobiDrafter
from models.drafting.parallel.window import Start
from models.errors import InvalidRequest
from models.loop.replay import first_difference
from models.requests.request import Request, Sampling
from models.targets.decoder.decoder import Decoder
from tests.models.decoders import CONFIG
from tests.models.looping import DRAFT_MODEL, TARGET, loop_of, run_alone
from tests.models.test_ends import CASES, Alphabet
from tests.models.test_ends import LETTERS as ALPHABET
from tests.models.test_law import fit
from tests.models.test_mixed_batches import ROWS, requests
from tests.models.tiny import exact_law

START = Start(rule="uniform")
DRAFTERS = {
    "none": (lambda: None, NOTHING),
    "lookup": (LookupDrafter, Shape(depth=5)),
    "chain": (lambda: ModelDrafter(DRAFT_MODEL, rows=ROWS, capacity=160), Shape(depth=3)),
    "tree": (lambda: ModelDrafter(DRAFT_MODEL, rows=ROWS, capacity=160), Shape(depth=3, width=3)),
    "jacobi": (lambda: JacobiDrafter("shared", START), Shape(depth=4)),
}
SAMPLED = [(name, rule) for name in ("none", "lookup", "chain") for rule in ("rejection", "block")]


def cut(request, result, count, *, name=""):
    """The rest of a request after `count` of its tokens."""
    return replace(
        request,
        id=name or f"{request.id}@{count}",
        generated=result.tokens[:count],
        generated_logprobs=(result.logprobs or ())[:count],
    )


def told(result):
    """All that must not depend on where the tokens were generated."""
    names = ("tokens", "finish_reason", "stop_text", "logprobs", "error", "exactness")
    return tuple(getattr(result, name) for name in names)


@cache
def whole():
    """Requests with every sampling option, and what plain decoding makes of them."""
    asked = requests()
    return tuple(zip(asked, run_alone(asked, target=TARGET), strict=True))


@pytest.mark.parametrize("drafter", DRAFTERS)
@pytest.mark.parametrize("part", range(4))
def test_every_request_continues_at_every_position(drafter, part):
    """With another drafter, beside other requests, read in chunks of another size."""
    rest = {
        f"{request.id}@{count}": (cut(request, result, count), result)
        for request, result in whole()[part::4]
        for count in range(len(result.tokens))
    }
    loop = loop_of(DRAFTERS[drafter], target=TARGET, rows=ROWS, chunk=3)
    found = loop.run(each for each, _ in rest.values())
    assert len(found) == len(rest)
    for each in found:
        assert told(each) == told(rest[each.id][1]), each.id


def test_the_requests_end_in_every_way():
    ended = {(r.finish_reason, r.stop_text) for _, r in whole()}
    assert ended == {("stop", None), ("stop", "bb"), ("length", None)}
    assert any(q.sampling.has_penalties and len(r.tokens) > 5 for q, r in whole())


@pytest.mark.parametrize("case", CASES)
def test_stop_strings_across_the_cut(case):
    """Completed after a cut inside them; passed over before the cut because of the minimum."""
    settings, count, reason, text = CASES[case]
    sampling = Sampling(temperature=0, **{"ignore_eos": True, **settings})
    request = Request(id="a", prompt=(0, 1, 2, 3, 4, 0), sampling=sampling)
    rest = [replace(request, id=str(i), generated=ALPHABET[:i]) for i in range(count)]
    loop = loop_of(DRAFTERS["lookup"], target=Alphabet(eos=(4,)), rows=3)
    for found in loop.run(rest):
        assert (found.tokens, found.finish_reason, found.stop_text) == (
            ALPHABET[:count],
            reason,
            text,
        )


def test_tokens_moved_into_the_prompt_are_not_a_continuation():
    """A control: what penalties, min_tokens and stop strings see would change."""
    differ = 0
    for request, result in whole():
        count = len(result.tokens) // 2
        if count:
            sampling = replace(
                request.sampling,
                max_tokens=request.sampling.max_tokens - count,
                min_tokens=max(0, request.sampling.min_tokens - count),
            )
            prompt = (*request.prompt, *result.tokens[:count])
            moved = replace(request, prompt=prompt, sampling=sampling)
            (found,) = run_alone([moved], target=TARGET)
            differ += found.tokens != result.tokens[count:]
    assert differ >= 3


# What counts only since the request was continued


def test_passes_and_accepted_length_count_from_the_cut():
    request = Request(id="a", prompt=(1, 2), sampling=Sampling(max_tokens=20, ignore_eos=True))
    (result,) = loop_of().run([request])
    loop = loop_of()
    (found,) = loop.run([cut(request, result, 12)])
    assert found.tokens == result.tokens
    assert (found.target_passes, found.accepted_length) == (8, 1.0)
    assert (loop.figures().tokens, loop.figures().prompt_tokens) == (8, 13)


# The sampled rules: their numbers are keyed by position and length, so rounds repeat


def ends_of_rounds(loop, request):
    """A request's result, and the numbers of tokens after each of its rounds."""
    loop.submit(request)
    results, ends = [], []
    while loop.num_unfinished:
        results += loop.step()
        ends += [s.num_generated for s in loop._rows.running]
    return results[0], ends


@pytest.mark.parametrize(("drafter", "rule"), SAMPLED)
def test_a_cut_between_rounds_changes_no_token_of_the_sampled_rules(drafter, rule):
    inside = 0
    for request, _ in whole()[::3]:
        result, ends = ends_of_rounds(loop_of(DRAFTERS[drafter], rule=rule), request)
        rest = [cut(request, result, count) for count in ends]
        for found in loop_of(DRAFTERS[drafter], rule=rule, rows=3).run(rest):
            assert told(found) == told(result)
        others = sorted(set(range(len(result.tokens))) - {0, *ends})
        for found in loop_of(DRAFTERS[drafter], rule=rule).run(
            cut(request, result, count) for count in others
        ):
            count = int(found.id.split("@")[1])
            assert found.tokens[:count] == result.tokens[:count]
            assert found.error is None
        inside += len(others)
    assert inside > 0 or drafter == "none"


LAWFUL = {
    "draft model": (lambda: ModelDrafter(DRAFT_MODEL, rows=ROWS, capacity=20), "rejection"),
    "draft model, block": (lambda: ModelDrafter(DRAFT_MODEL, rows=ROWS, capacity=20), "block"),
    "sjd": (lambda: JacobiDrafter("fresh", START), "rejection"),
    "mc-sjd": (lambda: JacobiDrafter("maximal", START), "rejection"),
}


@pytest.mark.usefixtures("little_noise_ahead")
@pytest.mark.parametrize("drafter", LAWFUL)
def test_a_cut_anywhere_keeps_the_law_of_the_sampled_rules(drafter):
    """Also inside a round, and where a window of guesses is lost with the old loop."""
    make, rule = LAWFUL[drafter]
    asked = [
        Request(id=str(i), prompt=(1, 2), sampling=Sampling(max_tokens=3), seed=i)
        for i in range(600)
    ]

    def run(these):
        loop = loop_of((make, Shape(depth=3)), target=TARGET, rows=ROWS, max_length=9, rule=rule)
        return {r.id: r for r in loop.run(these)}

    found = run(asked)
    first = {**found}
    for request in asked:
        count = 1 + request.seed % 2
        if len(first[request.id].tokens) <= count:
            del first[request.id]  # it has ended before
    rest = [cut(asked[int(i)], r, 1 + int(i) % 2, name=i) for i, r in first.items()]
    assert len(rest) > 300
    found |= run(rest)
    law = exact_law(TARGET, (1, 2), 3, lambda logits, generated: logits.softmax(0))
    assert fit([r.tokens for r in found.values()], law) > 1e-3


# A real decoder: tokens and log-probabilities to the bit, whether read or generated


def test_a_decoder_reads_what_another_has_generated(arithmetic):
    model = Decoder.from_config(CONFIG, seed=2)
    samplings = [
        Sampling(max_tokens=24, temperature=0.8, logprobs=2),
        Sampling(max_tokens=24, repetition_penalty=1.3, frequency_penalty=0.2, logprobs=0),
    ]
    for seed, sampling in enumerate(samplings):
        request = Request(id="a", prompt=(3, 1, 4, 1, 5), sampling=sampling, seed=seed)
        (result,) = loop_of(target=model).run([request])
        rest = [cut(request, result, count) for count in range(0, 24, 3)]
        drafter = lambda: ModelDrafter(model, rows=5, capacity=200), Shape(depth=3)
        for found in loop_of(drafter, target=model, rows=5, chunk=7).run(rest):
            assert found.tokens == result.tokens
            if model.steady:
                assert told(found) == told(result)


def test_replay_compares_the_results_of_continued_requests():
    """`first_difference` gets whole outputs, whatever of them the request was given."""
    request = Request(id="a", prompt=(1, 2), sampling=Sampling(max_tokens=9, ignore_eos=True))
    (result,) = loop_of().run([request])
    changed = (*result.tokens[:6], (result.tokens[6] + 1) % 5, *result.tokens[7:])
    found = first_difference(TARGET, cut(request, result, 4), result.tokens, changed)
    assert found == first_difference(TARGET, request, result.tokens, changed)
    assert found.index == 6


# What is refused

BAD = {
    "too many": ({"generated": (1,) * 6}, "generated has 6 tokens and max_tokens is 6"),
    "beyond the vocabulary": ({"generated": (1, 5)}, r"generated token 5 is not in 0\.\.4"),
    "negative": ({"generated": (-1,)}, r"generated token -1 is not in 0\.\.4"),
    "ended": ({"generated": (1, 4, 2)}, "3 generated tokens, number 2 ends it with token 4"),
    "stopped": (
        {"generated": (0, 2, 3, 1), "sampling": Sampling(max_tokens=9, stop=("cd",))},
        "4 generated tokens, number 3 ends it with stop string 'cd'",
    ),
    "no logprobs": (
        {"generated": (1, 2), "sampling": Sampling(max_tokens=9, logprobs=1)},
        r"generated_logprobs has entries for 0 tokens.*logprobs=1.*\[1, 2\]",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_what_cannot_continue_is_refused_by_name(case):
    changes, message = BAD[case]
    request = Request(id="bad", prompt=(1,), **{"sampling": Sampling(max_tokens=6), **changes})
    loop = loop_of()
    with pytest.raises(InvalidRequest, match=f"request 'bad'.*{message}"):
        loop.submit(request)
    assert loop.num_unfinished == 0
    loop.submit(Request(id="bad", prompt=(1,), sampling=Sampling(max_tokens=6)))  # it is free


def test_logprobs_nobody_asks_for_are_refused():
    sampling = Sampling(logprobs=0, max_tokens=5, ignore_eos=True)
    asked = Request(id="a", prompt=(1,), sampling=sampling)
    (result,) = loop_of().run([asked])
    request = replace(cut(asked, result, 2), sampling=Sampling(max_tokens=5))
    with pytest.raises(InvalidRequest, match=r"2 tokens.*logprobs=None"):
        loop_of().submit(request)
