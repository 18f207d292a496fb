"""Greedy output is transformers' own, token for token, drafted or not."""

from pathlib import Path

import numpy as np
import pytest
import torch
import transformers as tf

from models.engine import EngineConfig, build_loop
from models.requests.request import Request, Sampling
from tests.models.checkpoints import FAMILIES, VOCABULARY, save

DEMO = Path(__file__).parents[2] / "examples" / "models" / "text-target"
LENGTH = 40


def theirs(model: tf.PreTrainedModel, prompt: list[int]) -> list[int]:
    """What `generate` writes, greedily."""
    given = torch.tensor([prompt])
    out = model.generate(
        given, attention_mask=torch.ones_like(given), do_sample=False, max_new_tokens=LENGTH
    )
    return out[0, len(prompt) :].tolist()


def ours(folder: Path, prompts: list[list[int]], drafter: str) -> list[list[int]]:
    """What our loop writes; all prompts in one batch."""
    config = EngineConfig(
        target=str(folder), drafter=drafter, device="cpu", batch_size=len(prompts), max_length=128
    )
    greedy = Sampling(max_tokens=LENGTH, temperature=0.0)
    loop = build_loop(config)
    results = loop.run(
        Request(id=str(i), prompt=tuple(prompt), sampling=greedy)
        for i, prompt in enumerate(prompts)
    )
    by_id = {int(result.id): list(result.tokens) for result in results}
    return [by_id[i] for i in range(len(prompts))]


def some_prompts(vocabulary: int) -> list[list[int]]:
    """Random ones of several lengths; and one that repeats itself, for the lookup."""
    random = np.random.default_rng(0)
    made = [random.integers(3, vocabulary, size).tolist() for size in (2, 9, 31, 64)]
    return [*made, made[1] * 3]


@pytest.mark.parametrize("drafter", ["none", "lookup"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_writes_what_transformers_writes(family, drafter, tmp_path):
    model = save(tmp_path, family)
    prompts = some_prompts(VOCABULARY)
    assert ours(tmp_path, prompts, drafter) == [theirs(model, prompt) for prompt in prompts]


@pytest.mark.parametrize("drafter", ["none", "lookup", str(DEMO.parent / "text-draft")])
def test_the_demo_target_writes_what_transformers_writes(drafter):
    model = tf.AutoModelForCausalLM.from_pretrained(DEMO, dtype=torch.float32).eval()
    prompts = some_prompts(model.config.vocab_size)
    assert ours(DEMO, prompts, drafter) == [theirs(model, prompt) for prompt in prompts]
