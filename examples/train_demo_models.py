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
from safetensors.torch import load_file, save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch.nn import functional as F
from tqdm import tqdm
from transformers import DynamicCache, LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

END = "<|endoftext|>"
VOCABULARY, CONTEXT, TOKENS_PER_STEP = 2048, 1024, 4096
SKIPPED = {"site-packages", "test", "tests", "idlelib", "lib2to3", "_bundled", "__pycache__"}
SAVE_SECONDS = 180
CLOCKS = {"seconds": time.monotonic, "cpu": time.process_time}
Loss = Callable[[LlamaForCausalLM, int], torch.Tensor]
Judge = Callable[[LlamaForCausalLM], dict[str, float]]
Optimisers = list[torch.optim.Optimizer]


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
DEEP = Stage("target-deep", steps=225, warm=10, decay=0.6, muon=0.02, adam=3e-3)
PLAIN = Stage("draft-plain", steps=450, warm=20, decay=0.0, muon=0.02, adam=4e-3)
TAUGHT = Stage("draft-taught", steps=500, warm=10, decay=0.8, muon=0.02, adam=4e-3)
CORPUS_WINDOWS, OWN_WINDOWS, HELD_OUT_WINDOWS, PREFIX = 384, 192, 64, 32


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
        return torch.autocast(self.device.type, torch.bfloat16, enabled=self.device.type == "cuda")


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


def windows(
    run: Run, stream: torch.Tensor, count: int, length: int, *labels: object
) -> torch.Tensor:
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
    per_epoch = len(ids) // size

    def loss(model: LlamaForCausalLM, step: int) -> torch.Tensor:
        order = torch.randperm(len(ids), generator=run.random(stage.name, step // per_epoch))
        picked = order[step % per_epoch * size :][:size]
        logits = model(input_ids=ids[picked].to(run.device), use_cache=False).logits
        student = logits.float().log_softmax(-1).flatten(0, 1)  # [positions, vocabulary]
        teacher = taught[picked].to(run.device).float().log_softmax(-1).flatten(0, 1)
        return F.kl_div(student, teacher, reduction="batchmean", log_target=True)

    return loss


@torch.no_grad()
def all_logits(
    run: Run, model: LlamaForCausalLM, ids: torch.Tensor, dtype: torch.dtype, name: str
) -> torch.Tensor:
    """The model's logits at every position, kept in main memory."""
    parts = []
    for part in tqdm(ids.split(8), desc=name, unit="batch"):  # [8, length]
        with run.autocast():
            logits = model(input_ids=part.to(run.device), use_cache=False).logits
        parts.append(logits.to("cpu", dtype))
    return torch.cat(parts)  # [windows, length, vocabulary]


@torch.no_grad()
def sample(run: Run, model: LlamaForCausalLM, prefix: torch.Tensor, length: int) -> torch.Tensor:
    """Continue all prefixes at once at temperature 1, up to `length` tokens."""
    generator = run.random("sample", prefix.tolist())
    ids, cache, fresh = prefix, DynamicCache(), prefix  # [windows, so far]
    for _ in tqdm(range(length - prefix.shape[1]), desc="target writes", unit="token"):
        with run.autocast():
            logits = model(input_ids=fresh, past_key_values=cache, logits_to_keep=1).logits[:, -1]
        chances = logits.float().softmax(-1).cpu()  # [windows, vocabulary]
        fresh = torch.multinomial(chances, 1, generator=generator).to(run.device)
        ids = torch.cat([ids, fresh], dim=1)
    return ids  # [windows, length]


def make_optimisers(model: LlamaForCausalLM, stage: Stage) -> Optimisers:
    """Muon for the matrices inside the layers, AdamW for embeddings and norms."""
    matrices = [p for p in model.model.layers.parameters() if p.ndim == 2]
    others = [p for p in model.parameters() if all(p is not m for m in matrices)]
    adam = torch.optim.AdamW(others, lr=stage.adam, betas=(0.9, 0.95), weight_decay=0.0)
    return [Muon(matrices, lr=stage.muon), adam]


def update(
    run: Run, model: LlamaForCausalLM, optimisers: Optimisers, rates: list[float], loss: Loss,
    step: int,
) -> float:  # fmt: skip
    """One step of both optimisers; returns the loss before it."""
    for optimiser, rate in zip(optimisers, rates, strict=True):
        optimiser.param_groups[0]["lr"] = rate
        optimiser.zero_grad()
    with run.autocast():
        value = loss(model, step)
    value.backward()
    torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    for optimiser in optimisers:
        optimiser.step()
    return value.item()


def save_state(
    path: Path, header: dict[str, str], model: LlamaForCausalLM, optimisers: Optimisers
) -> None:
    """Weights and optimiser moments as safetensors, the counters in its JSON header."""
    tensors = {f"model.{name}": value.detach() for name, value in model.named_parameters()}
    for number, optimiser in enumerate(optimisers):
        for index, state in optimiser.state_dict()["state"].items():
            tensors |= {f"{number}.{index}.{key}": value for key, value in state.items()}
    save_file(tensors, path.with_suffix(".new"), header)
    path.with_suffix(".new").replace(path)


def load_state(
    path: Path, tag: dict[str, str], model: LlamaForCausalLM, optimisers: Optimisers
) -> dict[str, str]:
    """Take up a saved state of the same run and give its header, or a header of zeros."""
    header, tensors = {}, {}
    if path.exists():
        with safe_open(path, "pt") as file:
            header = file.metadata()
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if any(header.get(key) != value for key, value in tag.items()):
        return {**tag, "step": "0", "seconds": "0", "cpu": "0"}
    weights = {name[6:]: t for name, t in tensors.items() if name.startswith("model.")}
    model.load_state_dict(weights, strict=False)  # the tied head has no entry of its own
    states = [optimiser.state_dict() for optimiser in optimisers]
    for name in tensors.keys() - {f"model.{name}" for name in weights}:
        number, index, key = name.split(".")
        states[int(number)]["state"].setdefault(int(index), {})[key] = tensors[name]
    for optimiser, state in zip(optimisers, states, strict=True):
        optimiser.load_state_dict(state)
    return header


def train(run: Run, stage: Stage, model: LlamaForCausalLM, loss: Loss) -> dict[str, float]:
    """Run one stage to its end, going on from its saved state where there is one."""
    steps, path = run.size(stage.steps), run.work / f"{stage.name}.safetensors"
    optimisers, tag = make_optimisers(model, stage), {"steps": str(steps), "seed": str(run.seed)}
    header = load_state(path, tag, model, optimisers)
    done, saved = int(header["step"]), time.monotonic()
    wall, cpu = (float(header[k]) - now() for k, now in CLOCKS.items())
    bar = tqdm(range(done, steps), stage.name, total=steps, initial=done, unit="step")
    for step in bar:
        rates = [peak * stage.rate(step, steps) for peak in (stage.muon, stage.adam)]
        value = update(run, model, optimisers, rates, loss, step)
        speed = TOKENS_PER_STEP * (bar.format_dict["rate"] or 0.0)
        bar.set_postfix_str(f"loss {value:.3f}, {speed:.0f} tokens/s")
        if step + 1 == steps or time.monotonic() - saved > SAVE_SECONDS:
            saved = time.monotonic()
            spent = {"seconds": f"{wall + saved:.1f}", "cpu": f"{cpu + time.process_time():.1f}"}
            header = {**tag, **spent, "step": str(step + 1)}
            save_state(path, header, model, optimisers)
    counts = {"steps": steps, "tokens": steps * TOKENS_PER_STEP}
    return {**counts, "seconds": float(header["seconds"]), "cpu_seconds": float(header["cpu"])}


def train_target(run: Run, stream: torch.Tensor) -> tuple[LlamaForCausalLM, dict[str, object]]:
    """The six-layer target, grown from two trained layers."""
    shallow = make_model(run, hidden=512, layers=2, heads=8, kv=4)
    first = train(run, SHALLOW, shallow, text_loss(run, stream, SHALLOW))
    deep = grow(run, shallow, times=3)
    second = train(run, DEEP, deep, text_loss(run, stream, DEEP))
    return deep, {SHALLOW.name: first, DEEP.name: second}


def own_text(run: Run, target: LlamaForCausalLM, stream: torch.Tensor, name: str) -> torch.Tensor:
    """Windows that the target wrote after short prefixes of the stream; kept for a resumed run."""
    path = run.work / f"{name}.safetensors"
    count = run.size(OWN_WINDOWS if name == "own-text" else HELD_OUT_WINDOWS)
    if path.exists() and len(kept := load_file(path)["ids"]) == count:
        return kept.to(run.device)
    prefix = windows(run, stream, count, PREFIX, name)
    ids = torch.cat([sample(run, target, part, CONTEXT // 2) for part in prefix.split(96)])
    save_file({"ids": ids.cpu()}, path)
    return ids  # [count, 512]


def train_draft(
    run: Run, target: LlamaForCausalLM, stream: torch.Tensor, judge: Judge
) -> tuple[LlamaForCausalLM, dict[str, object]]:
    """The draft: plain text first, then the target's distributions on corpus and own text."""
    draft = make_model(run, hidden=192, layers=1, heads=3, kv=3)
    plain = train(run, PLAIN, draft, text_loss(run, stream, PLAIN))
    before = judge(draft)
    corpus = windows(run, stream, run.size(CORPUS_WINDOWS), CONTEXT // 2, "taught")
    ids = torch.cat([corpus, own_text(run, target, stream, "own-text")])
    taught = all_logits(run, target, ids, torch.bfloat16, "target teaches")
    second = train(run, TAUGHT, draft, teacher_loss(run, ids, taught, TAUGHT))
    return draft, {PLAIN.name: plain, TAUGHT.name: second, "before_distillation": before}


def compare(
    run: Run, target: LlamaForCausalLM, draft: LlamaForCausalLM, ids: torch.Tensor, skip: int = 0
) -> dict[str, float]:
    """Both losses in nats per token, the share of equal argmax and the acceptance rate."""
    true = ids[:, skip + 1 :, None].cpu()  # [windows, positions, 1]
    chances = (all_logits(run, model, ids, torch.float32, "judge") for model in (target, draft))
    p, q = (logits[:, skip:-1].log_softmax(-1) for logits in chances)  # [.., .., vocabulary]
    return {
        "target_loss": -p.gather(-1, true).mean().item(),
        "draft_loss": -q.gather(-1, true).mean().item(),
        "agreement": (p.argmax(-1) == q.argmax(-1)).float().mean().item(),
        "alpha": torch.minimum(p, q).exp().sum(-1).mean().item(),
    }


def write(
    model: LlamaForCausalLM, tokenizer: PreTrainedTokenizerFast, folder: Path
) -> dict[str, int]:
    """Store the model in bfloat16 with its tokenizer; what it computes next is as stored."""
    model.to(torch.bfloat16).save_pretrained(folder)
    model.to(torch.float32)
    tokenizer.save_pretrained(folder)
    weights = folder / "model.safetensors"
    weights.chmod(0o644)
    return {"parameters": model.num_parameters(), "weight_bytes": weights.stat().st_size}


def make_models(run: Run, output: Path) -> dict[str, object]:
    """Train and write both models; returns the report."""
    texts, held_texts = read_corpus(run.seed)
    tokenizer = make_tokenizer(texts)
    stream, held = encode(tokenizer, texts), encode(tokenizer, held_texts)
    tqdm.write(f"{len(stream)} tokens to train on, {len(held)} held out, {run.device}")
    target, stages = train_target(run, stream)
    sizes = {"text-target": write(target, tokenizer, output / "text-target")}
    judged = windows(run, held, run.size(HELD_OUT_WINDOWS), CONTEXT // 2, "held out")
    draft, more = train_draft(run, target, stream, lambda d: compare(run, target, d, judged))
    sizes["text-draft"] = write(draft, tokenizer, output / "text-draft")
    fresh = own_text(run, target, held, "own-text-held-out")
    return {
        "sizes": sizes, "held_out": compare(run, target, draft, judged),
        "own_text": compare(run, target, draft, fresh, skip=PREFIX - 1),
        "stages": stages | more, "corpus_tokens": len(stream), "held_out_tokens": len(held),
    }  # fmt: skip


def main(arguments: list[str] | None = None) -> None:
    """Read the options, make the models and write the report beside them."""
    here = Path(__file__).resolve().parent
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--output", type=Path, default=here / "models")
    parser.add_argument("--work", type=Path, default=here.parent / "out" / "demo-models")
    parser.add_argument("--device", choices=("auto", "cpu", "cuda"), default="auto")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps-scale", type=float, default=1.0, help="0.01 is a smoke test")
    options = parser.parse_args(arguments)
    auto = "cuda" if torch.cuda.is_available() else "cpu"
    device = torch.device(auto if options.device == "auto" else options.device)
    run = Run(options.work, device, options.seed, options.steps_scale)
    run.work.mkdir(parents=True, exist_ok=True)
    report = make_models(run, options.output)
    versions = {"python": sys.version.split()[0], "torch": torch.__version__}
    report |= {"seed": run.seed, "steps_scale": run.scale, "device": device.type, **versions}
    (options.output / "report.json").write_text(json.dumps(report, indent=2) + "\n")


if __name__ == "__main__":
    main()
