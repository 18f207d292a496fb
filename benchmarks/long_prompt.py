"""A section on long prompts: peak memory and time to first token."""

import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import torch

from benchmarks.section import Section
from benchmarks.work import Work
from models.engine import EngineConfig, build_loop
from models.memory.budget import memory_for
from models.memory.cache import bytes_per_entry
from models.requests.request import Request, Sampling
from models.targets.decoder.config import DecoderConfig, RotaryConfig
from models.targets.decoder.decoder import Decoder

MODEL = DecoderConfig(
    architecture="LlamaForCausalLM",
    vocab_size=1024,
    width=64,
    inner_width=128,
    num_layers=1,
    num_heads=4,
    num_kv_heads=1,
    head_dim=16,
    context_length=131_072,
    rotary=RotaryConfig(theta=500_000.0, kind="llama3", factor=8.0, high_freq_factor=4.0),
)
MIB = 2**20
HEADS = ("prompt tokens", "--memory", "pass", "pool, MiB", "peak, MiB", "first token, s")


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """One run. `peak_bytes` is memory beyond that of the process with the loaded model."""

    tokens: int
    memory: str | None
    kernels: bool
    pool_bytes: int
    peak_bytes: int
    first_token_s: float

    def cells(self) -> tuple[str, ...]:
        """In the order of HEADS."""
        return (
            f"{self.tokens:,}",
            self.memory or "default",
            "kernels" if self.kernels else "torch",
            f"{self.pool_bytes / MIB:.0f}",
            f"{self.peak_bytes / MIB:.0f}",
            f"{self.first_token_s:.1f}",
        )


def measure(tokens: int, memory: str | None, kernels: bool, threads: int) -> Line:
    """Read one prompt in this process, with default options but for `memory`."""
    target = Decoder.from_config(MODEL, kernels=kernels)
    loaded = _resident("VmRSS")
    config = EngineConfig(target="random weights", memory=memory, threads=threads)
    loop = build_loop(config, target=target)
    prompt = tuple(i * i % MODEL.vocab_size for i in range(tokens))
    began = time.perf_counter()
    loop.run([Request(id="long", prompt=prompt, sampling=Sampling(max_tokens=1), seed=0)])
    return Line(
        tokens=tokens,
        memory=memory,
        kernels=target.steady,
        pool_bytes=loop.cache_bytes,
        peak_bytes=_resident("VmHWM") - loaded,
        first_token_s=time.perf_counter() - began,
    )


def _resident(name: str) -> int:
    """Bytes of this process's memory, now (VmRSS) or at most so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return int(values[name].split()[0]) * 1024


def long_prompts(work: Work) -> Section:
    """Prompts of several lengths, with the default of --memory and with just enough for one."""
    section = Section(name="long", title="Long prompts")
    section.notes.append(
        "A model with random weights and Llama 3.1's context of 131,072 tokens, four query heads "
        "for a key head and one small layer; default options. `peak` is memory beyond that of the "
        "process with the loaded model. Each line has a process of its own."
    )
    longest = max(work.long_prompts)
    cases = [(tokens, None, True) for tokens in work.long_prompts]
    cases += [(longest, enough_for(longest), True), (min(work.long_prompts), None, False)]
    lines = [alone(*case, work.threads) for case in cases]
    section.put("one prompt, batch size 8", HEADS, [line.cells() for line in lines])
    return section


def enough_for(tokens: int) -> str:
    """The least --memory for a prompt of so many tokens."""
    return memory_for(tokens + 2, bytes_per_entry(MODEL, torch.float32))


def alone(tokens: int, memory: str | None, kernels: bool, threads: int) -> Line:
    """Measure in a new process."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(measure, tokens, memory, kernels, threads).result()
