"""A prompt that is still in memory is not read again, and its tokens stay the same."""

import numpy as np
import pytest

from models.drafting.draft import Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.memory.blocks import BLOCK
from models.requests.request import Request, Sampling
from models.targets.decoder.config import DecoderConfig
from models.targets.decoder.decoder import Decoder
from tests.models.looping import loop_of, run_alone, tokens_of

VOCAB = 40
RNG = np.random.default_rng(5)
PROMPT = tuple(RNG.integers(0, VOCAB, 2 * BLOCK + 20).tolist())
OPTIONS = {"max_length": 5 * BLOCK, "scratch": 20, "chunk": 50}


@pytest.fixture(scope="module", params=[None, 30], ids=["all", "window"])
def model(request, arithmetic_of_module):
    config = DecoderConfig(
        architecture="LlamaForCausalLM",
        vocab_size=VOCAB,
        width=32,
        inner_width=48,
        num_layers=2,
        num_heads=4,
        num_kv_heads=2,
        head_dim=8,
        context_length=6 * BLOCK,
        window=request.param,
    )
    return Decoder.from_config(config, seed=4)


def loop_over(model, drafter="none", **options):
    made = {
        "none": "none",
        "tree": (
            lambda: ModelDrafter(model, rows=8, capacity=6 * BLOCK),
            Shape(depth=3, width=3),
        ),
    }
    return loop_of(made[drafter], target=model, rows=8, **OPTIONS | options)


def samples(number, prompt=PROMPT, length=12, name=""):
    return [
        Request(
            id=f"{name}{i}", prompt=prompt, sampling=Sampling(max_tokens=length + i), seed=100 + i
        )
        for i in range(number)
    ]


def plain(model, requests):
    return tokens_of(run_alone(requests, target=model, **OPTIONS))


@pytest.mark.parametrize("drafter", ["none", "tree"])
def test_samples_of_one_prompt_read_it_once(model, drafter):
    loop = loop_over(model, drafter)
    for request in (requests := samples(8)):
        loop.submit(request)
    results, most = [], 0
    while loop.num_unfinished:
        results += loop.step()
        tables = [
            t[: r // BLOCK] for t, r in zip(loop._cache.tables, loop._cache.rooms, strict=True)
        ]
        most = max(most, len(np.unique(np.concatenate(tables))))
    assert tokens_of(results) == plain(model, requests)
    figures = loop.figures()
    assert figures.prompt_tokens == len(PROMPT) - 1
    assert figures.prefix_hit_tokens == 7 * (len(PROMPT) - 1)
    assert most <= 2 + 8 * 2  # the prompt's full blocks once, and each one's own


def test_a_prompt_in_memory_is_not_read_again(model):
    """Cold, warm, and after others took the place: the same tokens."""
    loop = loop_over(model, entries=8 * BLOCK)
    (request,), expected = samples(1), plain(model, samples(1))
    hits = []
    for turn in range(2):
        assert tokens_of(loop.run([request])) == expected
        hits.append(loop.figures().prefix_hit_tokens)
        if turn == 0:
            cold = loop.figures().prompt_tokens
    assert hits == [0, 2 * BLOCK]
    assert loop.figures().prompt_tokens == cold + len(PROMPT) - 1 - 2 * BLOCK
    for other in range(4):
        loop.run(samples(1, tuple(RNG.integers(0, VOCAB, 3 * BLOCK).tolist()), name=f"o{other}"))
    before = loop.figures().prefix_hit_tokens
    assert tokens_of(loop.run([request])) == expected
    assert loop.figures().prefix_hit_tokens == before


def test_a_chat_continues_where_it_was(model):
    """The completion's blocks are found again when it is part of the next prompt."""
    loop = loop_over(model)
    first = loop.run(samples(1, length=80))[0]
    further = (*PROMPT, *first.tokens, 1, 2, 3)
    assert len(further) > 3 * BLOCK
    (request,) = samples(1, further, name="next")
    assert tokens_of(loop.run([request])) == plain(model, [request])
    assert loop.figures().prefix_hit_tokens == 3 * BLOCK


@pytest.mark.parametrize("drafter", ["none", "tree"])
def test_shared_prompts_of_all_kinds_at_any_step(model, drafter):
    """Common beginnings of all lengths, arrivals in any order, too little room, cancels."""
    rng = np.random.default_rng(7)
    requests = []
    for i in range(30):
        cut = int(rng.integers(0, len(PROMPT)))
        prompt = (*PROMPT[:cut], *rng.integers(0, VOCAB, int(rng.integers(1, 40))).tolist())
        sampling = Sampling(max_tokens=int(rng.integers(1, 40)), temperature=i % 2)
        requests.append(Request(id=str(i), prompt=prompt, sampling=sampling, seed=i))
    loop = loop_over(model, drafter, entries=14 * BLOCK)
    waiting, results, cancelled = list(requests), [], set()
    while waiting or loop.num_unfinished:
        for _ in range(int(rng.integers(0, 4))):
            if waiting:
                loop.submit(waiting.pop(0))
        if rng.random() < 0.1 and loop._rows.reading:
            cancelled.add(loop._rows.reading[0].id)
            loop.cancel(loop._rows.reading[0].id)
        results += loop.step()
    left = [r for r in requests if r.id not in cancelled]
    assert tokens_of(results) == plain(model, left)
    assert loop.figures().prefix_hit_tokens > 0
    assert loop._cache.num_free == 14 * BLOCK
