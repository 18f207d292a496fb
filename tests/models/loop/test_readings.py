"""A drafter reads the target: every committed position once, as one teacher-forced pass has it."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from actors.drafts.draft import DraftActor
from models.batch import chain
from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import NOTHING, Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.sizing.sizing import FixedSize
from models.errors import InvalidOption
from models.readout import Readout, log_probabilities
from models.requests.request import Request, Sampling
from models.targets.decoder.config import GridInput
from models.targets.decoder.decoder import Decoder
from models.targets.guided import GuidedTarget
from models.targets.load import load_target
from tests.models.checkpoints import VOCABULARY, save
from tests.models.decoders import CONFIG
from tests.models.guessing import Prophet
from tests.models.looping import loop_of

DEEP = replace(CONFIG, num_layers=6)
WANTS = Readout(layers=(2, 3, -1), top_k=4)


class Reader:
    """Any drafter, with a record of what the target told: states, tokens and log-probabilities."""

    whole = True

    def __init__(self, inner, wants=WANTS):
        self._inner, self.wants = inner, wants
        self.states, self.top = {}, {}
        self.forgotten = set()

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def read(self, readings):
        for reading in readings:
            name = reading.sequence.id
            known = self.states.setdefault(name, [])
            assert reading.first == sum(len(states) for states in known)
            assert reading.first + len(reading.states) < len(reading.sequence.tokens)
            known.append(reading.states)
            self.top.setdefault(name, []).append(reading.top)

    def forget(self, request_id):
        self.forgotten.add(request_id)
        self._inner.forget(request_id)


def requests_of(count, vocab_size):
    rng = np.random.default_rng(5)
    return [
        Request(
            id=f"r{i}",
            prompt=tuple(rng.integers(3, vocab_size, 1 + (7 * i) % 19).tolist()),
            sampling=Sampling(max_tokens=1 + (5 * i) % 13, temperature=float(i % 3 > 0)),
            seed=i,
        )
        for i in range(count)
    ]


def guesses(drafter, completions, vocab_size):
    """What drafts, and how much."""
    if drafter == "lookup":
        return LookupDrafter(), Shape(depth=3)
    if drafter == "model":
        model = Decoder.from_config(replace(CONFIG, vocab_size=vocab_size), seed=1)
        return ModelDrafter(model, rows=3, capacity=120), Shape(depth=2, width=2)
    right, absent = {"none": (0.0, 1.0), "chain": (0.7, 0.1), "tree": (0.7, 0.1)}[drafter]
    width = 3 if drafter == "tree" else 1
    prophet = Prophet(completions, vocab_size, right=right, absent=absent)
    return prophet, NOTHING if drafter == "none" else Shape(depth=4, width=width)


def read(target, requests, drafter, wants=WANTS):
    """Run the requests, which join and leave at any step; the reader and the whole texts."""
    plain = loop_of(target=target, rows=3, decode=None).run(requests)
    completions = {result.id: result.tokens for result in plain}
    inner, shape = guesses(drafter, completions, target.vocab_size)
    reader = Reader(inner, wants)
    loop = loop_of((lambda: reader, shape), target=target, rows=3, chunk=5, decode=None)
    rng, waiting, results = np.random.default_rng(3), list(requests), []
    while waiting or loop.num_unfinished:
        for _ in range(int(rng.integers(0, 3))):
            if waiting:
                loop.submit(waiting.pop(0))
        results += loop.step()
    assert {result.id: result.tokens for result in results} == completions
    return reader, {r.id: np.array([*r.prompt, *completions[r.id]]) for r in requests}


def told(reader, name):
    """All that was read of a request: states [P, n, D], tokens and log-probabilities [P, k]."""
    top = reader.top[name]
    return (
        torch.cat(reader.states[name]),
        torch.cat([each.tokens for each in top]),
        torch.cat([each.logprobs for each in top]),
    )


@pytest.mark.parametrize("drafter", ["none", "lookup", "chain", "tree", "model"])
def test_all_committed_positions_equal_one_pass_over_the_final_tokens(arithmetic, drafter):
    target = Decoder.from_config(DEEP)
    reader, texts = read(target, requests_of(12, target.vocab_size), drafter)
    for name, text in texts.items():
        batch = replace(chain(0, text[:-1]), readout=WANTS)
        expected = target.score(target.new_cache(1, 64), batch)
        states, tokens, logprobs = told(reader, name)
        assert states.shape == (len(text) - 1, 3, DEEP.width)
        if target.steady:
            assert torch.equal(states, expected.states)
            assert torch.equal(tokens, expected.top.tokens)
            assert torch.equal(logprobs, expected.top.logprobs)
        torch.testing.assert_close(states, expected.states)
        torch.testing.assert_close(logprobs, expected.top.logprobs)
    assert reader.forgotten == set(texts)


@pytest.mark.parametrize("family", ["llama3", "gpt2"])
def test_they_equal_what_transformers_computes(arithmetic, family, tmp_path):
    model = save(tmp_path, family)
    target = load_target(tmp_path, dtype=torch.float32, device="cpu")
    wants = Readout(layers=(0, 1, -1), top_k=4)  # the smaller one has two layers
    reader, texts = read(target, requests_of(6, VOCABULARY), "tree", wants)
    for name, text in texts.items():
        with torch.inference_mode():
            output = model(torch.from_numpy(text[None, :-1]), output_hidden_states=True)
        layers = [output.hidden_states[layer][0] for layer in wants.layers]
        states, tokens, logprobs = told(reader, name)
        torch.testing.assert_close(states, torch.stack(layers, dim=1), rtol=0, atol=1e-4)
        found = log_probabilities(output.logits[0]).gather(1, tokens)
        torch.testing.assert_close(logprobs, found, rtol=0, atol=1e-4)


def test_a_drafter_that_reads_nothing_asks_for_nothing():
    asked = []

    class Watched(Decoder):
        def score(self, cache, batch):
            asked.append(batch.readout)
            return super().score(cache, batch)

    loop = loop_of("none", target=Watched.from_config(CONFIG), decode=None)
    loop.run(requests_of(3, CONFIG.vocab_size))
    assert set(asked) == {None}


def test_a_cancelled_request_is_forgotten_and_may_come_again():
    target = Decoder.from_config(DEEP)
    reader = Reader(Prophet({}, target.vocab_size, absent=1.0))
    loop = loop_of((lambda: reader, NOTHING), target=target, chunk=4, decode=None)
    request = Request(id="a", prompt=(5,) * 20, sampling=Sampling(max_tokens=4), seed=1)
    loop.submit(request)
    loop.step()
    assert sum(map(len, reader.states["a"])) >= 4
    loop.cancel("a")
    reader.states.clear()
    loop.run([request])
    assert sum(map(len, reader.states["a"])) == 20 + 4 - 1


@pytest.mark.parametrize("cut", [1, 4, 7])
def test_a_request_that_continues_is_read_from_its_prompt_on(cut):
    target = Decoder.from_config(DEEP)
    request = Request(id="a", prompt=(5, 6, 7), sampling=Sampling(max_tokens=8), seed=1)
    (whole,) = loop_of(target=target, decode=None).run([request])
    reader = Reader(Prophet({"a": whole.tokens}, target.vocab_size, right=0.8))
    loop = loop_of((lambda: reader, Shape(depth=3)), target=target, chunk=2, decode=None)
    loop.run([replace(request, generated=whole.tokens[:cut])])
    text = np.array([*request.prompt, *whole.tokens])
    batch = replace(chain(0, text[:-1]), readout=WANTS)
    expected = target.score(target.new_cache(1, 64), batch).states
    torch.testing.assert_close(told(reader, "a")[0], expected)


def test_a_layer_that_is_not_there_is_refused_when_the_loop_is_built():
    target = Decoder.from_config(CONFIG)
    reader = Reader(LookupDrafter(), Readout(layers=(1, 3)))
    with pytest.raises(InvalidOption, match=r"layers=\(1, 3\) is not accepted: 0 to 2"):
        loop_of((lambda: reader, NOTHING), target=target)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({}, r"layers=\(\) is not accepted: one layer or more"),
        ({"top_k": -1}, "top_k=-1 is not accepted"),
    ],
)
def test_a_readout_that_asks_for_nothing_is_refused(values, message):
    with pytest.raises(InvalidOption, match=message):
        Readout(**values)


def test_more_likeliest_tokens_than_there_are_tokens_are_refused():
    target = Decoder.from_config(CONFIG)
    batch = replace(chain(0, np.array([1, 2])), readout=Readout(top_k=51))
    with pytest.raises(InvalidOption, match=r"top_k=51.*at most the vocabulary of 50"):
        target.score(target.new_cache(1, 8), batch)


def test_draft_actors_refuse_a_drafter_that_reads_the_target():
    with pytest.raises(InvalidOption, match=r"drafter='lookup'.*draft_actors=0"):
        DraftActor().serve(Reader(LookupDrafter()), rows=2)


def test_states_under_guidance_are_those_of_the_half_with_the_condition(arithmetic):
    inner = Decoder.from_config(replace(CONFIG, grid=GridInput(num_classes=3)))
    guided = GuidedTarget(inner, scale=2.0, null_token=53)
    readout = Readout(layers=(0, 1, 2), top_k=4)
    batch = replace(chain(0, np.array([51, 3, 7])), readout=readout)
    found = guided.score(guided.new_cache(1, 8), batch)
    with_ = inner.score(inner.new_cache(1, 8), batch)
    without = inner.score(inner.new_cache(1, 8), chain(0, np.array([53, 3, 7])))
    torch.testing.assert_close(found.states, with_.states)
    combined = without.logits + 2.0 * (with_.logits - without.logits)
    assert torch.equal(found.top.tokens, combined.topk(4).indices)
    assert not torch.equal(found.top.tokens, with_.top.tokens)


class Restarting(Reader):
    """Keeps what it had read of a request when that was forgotten last."""

    def __init__(self, inner, wants=WANTS):
        super().__init__(inner, wants)
        self.last = {}

    def forget(self, request_id):
        self.last[request_id] = self.states.pop(request_id, [])
        super().forget(request_id)


def test_equal_prompts_and_requests_that_gave_way_are_read_from_the_start():
    """Also a prefix that is in the cache: a drafter that reads needs every position."""
    target = Decoder.from_config(DEEP)
    prompt, sampling = (
        tuple(3 + i % 41 for i in range(80)),
        Sampling(max_tokens=150, ignore_eos=True),
    )
    requests = [Request(id=f"r{i}", prompt=prompt, sampling=sampling, seed=i) for i in range(5)]
    reader = Restarting(Prophet({}, target.vocab_size, absent=1.0))
    options = {"target": target, "rows": 4, "max_length": 240, "chunk": 30, "decode": None}
    loop = loop_of((lambda: reader, NOTHING), entries=512, **options)
    results = {result.id: result.tokens for result in loop.run(requests)}
    assert loop.figures().preemptions > 0
    for request in requests:
        text = np.array([*prompt, *results[request.id]])
        batch = replace(chain(0, text[:-1]), readout=WANTS)
        expected = target.score(target.new_cache(1, 240), batch).states
        torch.testing.assert_close(torch.cat(reader.last[request.id]), expected)


def test_a_drafter_that_comes_later_reads_everything_too():
    target = Decoder.from_config(DEEP)
    requests = [
        Request(
            id=f"r{i}",
            prompt=tuple(3 + (i + j) % 41 for j in range(40)),
            sampling=Sampling(max_tokens=30, ignore_eos=True),
            seed=i,
        )
        for i in range(3)
    ]
    loop = loop_of("none", target=target, rows=2, max_length=100, decode=None)
    for request in requests:
        loop.submit(request)
    results = [result for _ in range(12) for result in loop.step()]
    reader = Restarting(Prophet({}, target.vocab_size, absent=1.0))
    loop.change_drafter(reader, FixedSize(NOTHING))
    results += loop.run([])
    for request, result in zip(requests, sorted(results, key=lambda r: r.id), strict=True):
        text = np.array([*request.prompt, *result.tokens])
        batch = replace(chain(0, text[:-1]), readout=WANTS)
        expected = target.score(target.new_cache(1, 100), batch).states
        torch.testing.assert_close(torch.cat(reader.last[request.id]), expected)
