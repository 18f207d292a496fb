"""Peak memory and time to first token of long prompts, for a small model with Llama 3.1's context.

Run from the repository's root: python -m benchmarks.long_prompt [--tokens N ...] [--memory M ...]

The model has random weights and the shape of Llama-3.1-8B (four query heads per key head, llama3
scaling of the rotary embedding, a context of 131,072 tokens), but fewer and smaller layers. Each
line is measured in a process of its own.
"""

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import product
from multiprocessing import get_context
from pathlib import Path

import torch

from models.engine import EngineConfig, build_loop
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
        kernels=kernels,
        pool_bytes=loop.cache_bytes,
        peak_bytes=_resident("VmHWM") - loaded,
        first_token_s=time.perf_counter() - began,
    )


def _resident(name: str) -> int:
    """Bytes of this process's memory, now (VmRSS) or at most so far (VmHWM)."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    values = dict(line.split(":", 1) for line in lines)
    return int(values[name].split()[0]) * 1024


def main(arguments: Sequence[str] | None = None) -> int:
    """Print a table, line by line."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    add = parser.add_argument
    add("--tokens", type=int, nargs="+", default=[25_000, 50_000, 100_000])
    add("--memory", nargs="+", default=["default", "16MiB"])
    add("--passes", nargs="+", choices=("kernels", "torch"), default=["kernels"])
    add("--threads", type=int, default=torch.get_num_threads())
    options = parser.parse_args(arguments)
    print(f"| {' | '.join(HEADS)} |\n|{'---|' * len(HEADS)}")
    for kind, memory, tokens in product(options.passes, options.memory, options.tokens):
        with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
            asked = None if memory == "default" else memory
            line = pool.submit(measure, tokens, asked, kind == "kernels", options.threads).result()
        print(f"| {' | '.join(line.cells())} |", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
