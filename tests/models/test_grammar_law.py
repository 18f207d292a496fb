"""Grammars: masked at every node, the law is the target's among what the grammar allows, exactly.

The allowed tokens are written out here from the list of accepted texts, without llguidance.
"""

from dataclasses import replace
from functools import cache

import pytest
import torch

from models.drafting.draft import Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.sizing.sizing import FixedSize
from models.loop.token_loop import TokenLoop
from models.requests.constraint import of_choice
from models.requests.grammar import GrammarState
from models.requests.request import Request, Sampling
from tests.models.lettered import grammars
from tests.models.test_law import DRAFT_MODEL, DRAFTERS, PROMPT, TARGET, VOCAB, fit, reference

EOS = VOCAB - 1
TEXTS = ("ab", "abc", "abca", "acb", "b", "bca", "bcb", "cabc", "cabb", "caaa")
SETTINGS = {
    "plain": {},
    "all": {"temperature": 1.2, "top_k": 3, "top_p": 0.95, "frequency_penalty": 0.4},
    "min": {"min_tokens": 3, "logit_bias": {1: 0.7}},
}
RUNS = {"none": (lambda: None, Shape(depth=0)), **DRAFTERS}


def letters(tokens) -> str:
    return "".join("abc"[token] for token in tokens if token != EOS)


def allowed(generated) -> list[int]:
    """The tokens after which an accepted text can still come about."""
    text = letters(generated)
    found = [t for t in range(EOS) if any(each.startswith(text + "abc"[t]) for each in TEXTS)]
    return found + [EOS] * (text in TEXTS)


def law(sampling) -> dict[tuple[int, ...], float]:
    """The chance of every completion, step by step."""
    found: dict[tuple[int, ...], float] = {}
    process = reference(sampling)

    def walk(generated: tuple[int, ...], chance: float) -> None:
        ended = bool(generated) and (generated[-1] == EOS or allowed(generated) == [EOS])
        if ended or len(generated) == sampling.max_tokens:
            found[generated] = found.get(generated, 0.0) + chance
            return
        history = (0, *PROMPT, *generated)
        logits = TARGET.table[history[-2], history[-1]].double()
        mask = torch.full((VOCAB,), -torch.inf)
        mask[allowed(generated)] = 0.0
        probs = process(logits + mask, generated)
        for token in range(VOCAB):
            if probs[token] > 0:
                walk((*generated, token), chance * float(probs[token]))

    walk((), 1.0)
    return found


def sampling_of(setting: str) -> Sampling:
    return Sampling(max_tokens=4, grammar=of_choice(TEXTS), **SETTINGS[setting])


def loop_of(drafter: str, rule: str, *, hints: bool = False) -> TokenLoop:
    make, shape = RUNS[drafter]
    loop = TokenLoop(
        TARGET,
        make(),
        FixedSize(shape),
        rows=32,
        max_length=len(PROMPT) + 9,
        scratch=40,
        verify=rule,
        grammars=lambda: grammars(VOCAB),
    )
    if not hints:
        loop._hints._room = 0  # forced tokens would hide what the drafter does
    return loop


def decode(drafter, setting, rule="match", seeds=64, **options):
    loop = loop_of(drafter, rule, **options)
    sampling = sampling_of(setting)
    results = loop.run(
        Request(id=str(s), prompt=PROMPT, sampling=sampling, seed=s) for s in range(seeds)
    )
    return {r.id: (r.tokens, r.finish_reason) for r in results}, loop.figures()


@pytest.mark.parametrize("setting", ["plain", "all"])
def test_plain_decoding_has_the_law_of_what_is_allowed(setting) -> None:
    out, _ = decode("none", setting, seeds=1000)
    exact = law(sampling_of(setting))
    assert abs(sum(exact.values()) - 1) < 1e-9
    assert fit([tokens for tokens, _ in out.values()], exact) > 1e-3


@cache
def plain(setting):
    return decode("none", setting)[0]


@pytest.mark.parametrize("setting", SETTINGS)
@pytest.mark.parametrize("drafter", DRAFTERS)
def test_every_drafter_gives_the_tokens_of_plain_decoding(drafter, setting) -> None:
    out, figures = decode(drafter, setting)
    assert out == plain(setting)
    assert figures.drafted > 0
    hinted, _ = decode(drafter, setting, hints=True)
    assert hinted == out


def test_a_completion_is_accepted_or_cut() -> None:
    for tokens, reason in plain("plain").values():
        if reason == "stop":
            assert letters(tokens) in TEXTS
        else:
            assert (reason, len(tokens)) == ("length", 4)
    assert "stop" in {reason for _, reason in plain("plain").values()}


@pytest.mark.parametrize("rule", ["rejection", "block"])
@pytest.mark.parametrize("drafter", ["chain", "guess"])
def test_sampled_rules_have_the_law(rule, drafter) -> None:
    out, figures = decode(drafter, "plain", rule, seeds=1000)
    assert fit([tokens for tokens, _ in out.values()], law(sampling_of("plain"))) > 1e-3
    assert figures.accepted > 0


def test_a_mask_that_lags_behind_the_draft_fails(monkeypatch) -> None:
    """The biased control: masks of the root at every node."""
    real = GrammarState.mask
    monkeypatch.setattr(GrammarState, "mask", lambda self, ahead=(): real(self))
    out, _ = decode("guess", "plain", "rejection", seeds=1000)
    try:
        chance = fit([tokens for tokens, _ in out.values()], law(sampling_of("plain")))
    except AssertionError:
        return
    assert chance < 1e-6


def test_a_masked_draft_model_guesses_better() -> None:
    masked = decode("chain", "plain")[1]
    loop = loop_of("chain", "match")
    loop.drafter = Unmasked(ModelDrafter(DRAFT_MODEL, rows=32, capacity=60))
    sampling = sampling_of("plain")
    loop.run(Request(id=str(s), prompt=PROMPT, sampling=sampling, seed=s) for s in range(64))
    assert masked.accepted > loop.figures().accepted


class Unmasked:
    """A draft model that is not told of grammars."""

    def __init__(self, inner) -> None:
        self._inner = inner

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def propose(self, sequences, shape, context):
        held = context.processor._grammars
        context.processor._grammars = {}
        try:
            return self._inner.propose(sequences, shape, context)
        finally:
            context.processor._grammars = held


def test_forced_tokens_are_drafts_that_stand() -> None:
    sampling = Sampling(max_tokens=9, grammar=of_choice(["abcabcab", "bcabcabc"]))
    request = Request(id="x", prompt=PROMPT, sampling=sampling, seed=3, stream=True)
    loop = loop_of("none", "match", hints=True)
    (result,) = loop.run([request])
    slow = loop_of("none", "match")
    assert slow.run([request])[0].tokens == result.tokens
    assert len(result.tokens) == 8
    assert result.target_passes == 2
    sources = [source for update in loop.take_updates() for source in update.sources]
    assert sources == ["target"] + ["grammar"] * 6 + ["target"]


def test_rounds_of_forced_tokens_alone_say_nothing_of_a_shape(monkeypatch) -> None:
    sampling = Sampling(max_tokens=9, grammar=of_choice(["abcabcab", "bcabcabc"]))
    loop, measured = loop_of("chain", "match", hints=True), []
    monkeypatch.setattr(loop.sizing, "observe_round", measured.append)
    loop.run([Request(id="x", prompt=PROMPT, sampling=sampling, seed=3)])
    assert 0 < len(measured) < loop.figures().rounds


def test_a_request_continues_inside_its_grammar() -> None:
    for seed in range(16):
        sampling = sampling_of("plain")
        request = Request(id="x", prompt=PROMPT, sampling=sampling, seed=seed)
        (whole,) = loop_of("none", "match").run([request])
        for cut in range(1, len(whole.tokens)):
            rest = replace(request, generated=whole.tokens[:cut])
            assert loop_of("tree", "match").run([rest])[0].tokens == whole.tokens


def test_a_grammar_outside_the_vocabulary_ends_with_the_request_s_error() -> None:
    sampling = Sampling(max_tokens=4, grammar=of_choice(["ax", "ay"]))
    (result,) = loop_of("tree", "match").run([Request(id="x", prompt=PROMPT, sampling=sampling)])
    assert (result.finish_reason, result.invalid) == ("error", True)
    assert "grammar" in str(result.error)
