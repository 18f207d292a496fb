"""Train the two demo models, a small target and a tiny draft, on the Python standard library.

Both are Llama models over one byte-level tokenizer. The target starts with two layers, which
cost a third per token, and grows to six by copying them. The draft learns from the same text
first, then from the target's own distributions, which is what raises its acceptance rate.
Every stage saves its state every few minutes; a second run goes on where the first one ended.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import random
import sys
import sysconfig
import time
import zlib
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F
from tqdm import tqdm
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END = "<|endoftext|>"
VOCABULARY, CONTEXT, TOKENS_PER_STEP = 2048, 1024, 4096
SKIPPED = {"site-packages", "test", "tests", "idlelib", "lib2to3", "_bundled", "__pycache__"}
Loss = Callable[[LlamaForCausalLM, int], torch.Tensor]


@dataclass(frozen=True)
class Stage:
    """One leg of training; the learning rate rises over `warm` steps and falls at the end."""

    name: str
    steps: int
    warm: int
    decay: float  # share of the steps over which the rate falls to zero
    muon: float  # learning rate of the matrices inside the layers
    adam: float  # learning rate of embeddings and norms

    def rate(self, step: int, steps: int) -> float:
        """The trapezoid's height at this step, between 0 and 1."""
        rise = (step + 1) / max(1, min(self.warm, steps // 4))
        fall = (steps - step) / max(1.0, self.decay * steps)
        return min(1.0, rise, fall if self.decay else 1.0)


SHALLOW = Stage("target-shallow", steps=400, warm=20, decay=0.0, muon=0.02, adam=3e-3)
DEEP = Stage("target-deep", steps=240, warm=10, decay=0.6, muon=0.02, adam=3e-3)
PLAIN = Stage("draft-plain", steps=500, warm=20, decay=0.0, muon=0.02, adam=4e-3)
TAUGHT = Stage("draft-taught", steps=150, warm=10, decay=0.0, muon=0.02, adam=4e-3)
SAMPLED = Stage("draft-sampled", steps=400, warm=10, decay=0.8, muon=0.02, adam=4e-3)
TAUGHT_WINDOWS, SAMPLED_WINDOWS, HELD_OUT_WINDOWS = 384, 256, 64


@dataclass(frozen=True)
class Run:
    """What all stages share: where state goes, the device, the seed and the scale of the work."""

    work: Path
    device: torch.device
    seed: int
    scale: float

    def size(self, full: int) -> int:
        """A number of steps or windows at this run's scale, at least two."""
        return max(2, round(full * self.scale))

    def random(self, *labels: object) -> torch.Generator:
        """A generator of its own for every purpose and step, so that resuming changes nothing."""
        return torch.Generator().manual_seed(zlib.crc32(repr((self.seed, *labels)).encode()))

    def autocast(self) -> AbstractContextManager[None]:
        """bfloat16 arithmetic on a GPU; plain float32 elsewhere."""
        return torch.autocast("cuda", torch.bfloat16, enabled=self.device.type == "cuda")


class Muon(torch.optim.Optimizer):
    """Momentum with orthogonalised updates, in float32.

    torch.optim.Muon works in bfloat16, which a CPU without bfloat16 units runs 40 times slower.
    """

    def __init__(self, parameters: Iterable[torch.Tensor], lr: float) -> None:
        super().__init__(parameters, {"lr": lr})

    @torch.no_grad()
    def step(self, closure: None = None) -> None:  # type: ignore[override]
        """Move each matrix along its orthogonalised Nesterov momentum."""
        for group in self.param_groups:
            for weight in group["params"]:  # [rows, columns]
                momentum = self.state[weight].setdefault("momentum", torch.zeros_like(weight))
                momentum.lerp_(weight.grad, 0.05)
                update = orthogonal(weight.grad.lerp(momentum, 0.95))
                tall = max(1.0, weight.shape[0] / weight.shape[1]) ** 0.5
                weight.add_(update, alpha=-group["lr"] * tall)


def orthogonal(matrix: torch.Tensor, rounds: int = 4) -> torch.Tensor:
    """The nearest matrix with singular values around one, by Newton-Schulz iteration."""
    wide = matrix if matrix.shape[0] <= matrix.shape[1] else matrix.T  # [short, long]
    wide = wide / (wide.norm() + 1e-7)
    for _ in range(rounds):
        square = wide @ wide.T  # [short, short]
        mixed = torch.addmm(square, square, square, beta=-4.7750, alpha=2.0315)
        wide = torch.addmm(wide, mixed, wide, beta=3.4445)
    return wide if matrix.shape[0] <= matrix.shape[1] else wide.T


def read_corpus(seed: int) -> tuple[list[str], list[str]]:
    """The standard library's sources in a shuffled order: training files and held-out files."""
    root = Path(sysconfig.get_paths()["stdlib"])
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*.py"))
    names = [name for name in names if not SKIPPED & set(name.split("/"))]
    random.Random(seed).shuffle(names)
    held = {name for name in names if hashlib.sha256(name.encode()).digest()[0] < 5}  # 2 %
    texts = {name: (root / name).read_text("utf-8", errors="replace") for name in names}
    return [texts[n] for n in names if n not in held], [texts[n] for n in names if n in held]


def make_tokenizer(texts: list[str]) -> PreTrainedTokenizerFast:
    """A byte-level BPE that gives back any text exactly and adds no special tokens by itself."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    trainer = trainers.BpeTrainer(
        vocab_size=VOCABULARY, special_tokens=[END], initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token=END, pad_token=END, model_max_length=CONTEXT
    )


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> torch.Tensor:
    """One stream of token ids, each file closed by the end token."""
    backend = tokenizer.backend_tokenizer
    ids = [i for e in backend.encode_batch(texts) for i in (*e.ids, tokenizer.eos_token_id)]
    return torch.tensor(ids)  # [tokens]


def make_model(run: Run, hidden: int, layers: int, heads: int, kv: int) -> LlamaForCausalLM:
    """A fresh Llama with tied embeddings; the feed-forward is three times as wide as the rest."""
    torch.manual_seed(run.seed)
    config = LlamaConfig(
        hidden_size=hidden, intermediate_size=3 * hidden, num_hidden_layers=layers,
        num_attention_heads=heads, num_key_value_heads=kv, vocab_size=VOCABULARY,
        max_position_embeddings=CONTEXT, tie_word_embeddings=True,
        bos_token_id=None, eos_token_id=0, pad_token_id=0,
    )  # fmt: skip
    return LlamaForCausalLM(config).to(run.device)


def grow(run: Run, shallow: LlamaForCausalLM, times: int) -> LlamaForCausalLM:
    """A deeper copy in which every layer appears `times` times in a row.

    Each copy adds 1/times of the old layer's output, so the sum starts close to the old model.
    """
    old = shallow.config
    heads, kv = old.num_attention_heads, old.num_key_value_heads
    deep = make_model(run, old.hidden_size, old.num_hidden_layers * times, heads, kv)
    deep.model.embed_tokens.load_state_dict(shallow.model.embed_tokens.state_dict())
    deep.model.norm.load_state_dict(shallow.model.norm.state_dict())
    for index, layer in enumerate(deep.model.layers):
        layer.load_state_dict(shallow.model.layers[index // times].state_dict())
        layer.self_attn.o_proj.weight.data /= times
        layer.mlp.down_proj.weight.data /= times
    return deep


def windows(run: Run, stream: torch.Tensor, count: int, length: int, *labels: object) -> torch.Tensor:
    """Random windows of the token stream."""
    starts = torch.randint(len(stream) - length, (count, 1), generator=run.random(*labels))
    return stream[starts + torch.arange(length)].to(run.device)  # [count, length]


def text_loss(run: Run, stream: torch.Tensor, stage: Stage) -> Loss:
    """Cross-entropy on the corpus; every fourth step has windows as long as the context."""

    def loss(model: LlamaForCausalLM, step: int) -> torch.Tensor:
        length = CONTEXT if step % 4 == 3 else CONTEXT // 2
        ids = windows(run, stream, TOKENS_PER_STEP // length, length, stage.name, step)
        logits = model(input_ids=ids, use_cache=False).logits[:, :-1].float()
        return F.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())

    return loss


def teacher_loss(run: Run, ids: torch.Tensor, taught: torch.Tensor, stage: Stage) -> Loss:
    """KL(target || draft) over whole distributions, which the target gave once in `taught`."""
    size = min(len(ids), TOKENS_PER_STEP // ids.shape[1])

    def loss(model: LlamaForCausalLM, step: int) -> torch.Tensor:
        per_epoch = len(ids) // size
        order = torch.randperm(len(ids), generator=run.random(stage.name, step // per_epoch))
        picked = order[step % per_epoch * size :][:size]
        logits = model(input_ids=ids[picked].to(run.device), use_cache=False).logits
        student = logits.float().log_softmax(-1).flatten(0, 1)  # [positions, vocabulary]
        teacher = taught[picked].to(run.device).float().log_softmax(-1).flatten(0, 1)
        return F.kl_div(student, teacher, reduction="batchmean", log_target=True)

    return loss


@torch.no_grad()
def all_logits(run: Run, model: LlamaForCausalLM, ids: torch.Tensor, name: str) -> torch.Tensor:
    """The model's logits at every position, kept in bfloat16 in main memory."""
    parts = []
    for part in tqdm(ids.split(8), desc=name, unit="batch"):  # [8, length]
        with run.autocast():
            parts.append(model(input_ids=part.to(run.device), use_cache=False).logits)
        parts[-1] = parts[-1].to("cpu", torch.bfloat16)
    return torch.cat(parts)  # [windows, length, vocabulary]


@torch.no_grad()
def sample(run: Run, model: LlamaForCausalLM, prefix: torch.Tensor, length: int) -> torch.Tensor:
    """Continue all prefixes at once at temperature 1, up to `length` tokens."""
    random_ = run.random("sample", len(prefix))
    ids, cache, fresh = prefix, DynamicCache(), prefix  # [windows, so far]
    for _ in tqdm(range(length - prefix.shape[1]), desc="sample", unit="token"):
        with run.autocast():
            logits = model(input_ids=fresh, past_key_values=cache, logits_to_keep=1).logits[:, -1]
        chances = logits.float().softmax(-1).cpu()  # [windows, vocabulary]
        fresh = torch.multinomial(chances, 1, generator=random_).to(run.device)
        ids = torch.cat([ids, fresh], dim=1)
    return ids
