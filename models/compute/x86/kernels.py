"""Python's side of the compiled CPU kernels (csrc/), with torch as the fallback.

The kernels are used if they were compiled at installation and the CPU has AVX2. They use no newer
instructions, so their results have the same bits on CPUs with AVX2, AVX-512 or AMX. They compute in
float32, whatever the dtype of their arguments. A row's result does not depend on other rows.
Letters: T tokens, I input width, O output width, D width (of a head, in attention), S slots, Hq and
Hkv query and key heads.
"""

from functools import cache
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from models.batch import Bools, Floats, Ints

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}


def _load() -> Any:
    """The compiled module; None if the CPU lacks AVX2 or the module was not compiled."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
        return None
    try:
        return import_module("models.compute.x86._kernels")
    except ImportError:
        return None


_kernels = _load()


def compiled() -> bool:
    """Whether the compiled kernels are used on this machine."""
    return _kernels is not None


def library() -> Any:
    """The compiled module. Call it only if `compiled()`."""
    return _kernels


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """RMS norm in float32: x [..., D] divided by its norm, times `weight` [D] or [H, D].

    `weight` contains the factor √D. A token's result does not depend on the rest of the batch.
    """
    floor = eps * x.shape[-1]
    if torch.compiler.is_compiling():  # into one kernel with what is around it
        wide = x.float()
        scale = torch.rsqrt(wide.square().sum(-1, keepdim=True) + floor)
        return (wide * scale * weight).to(x.dtype)
    if x.is_cpu and weight.dim() == 1 and compiled() and x.is_contiguous():
        normed = torch.empty_like(x)
        rows, width = x.numel() // x.shape[-1], x.shape[-1]
        addresses = x.data_ptr(), weight.data_ptr(), normed.data_ptr()
        _kernels.rms_norm(KINDS[x.dtype], rows, width, *addresses, floor)
        return normed
    # A vector norm and elementwise operations: twice as fast on CPU as torch's own RMS norm.
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    root = norm.hypot_(_root(floor, x.device))
    result: torch.Tensor = (x / root).mul_(weight).to(x.dtype)
    return result


def layer_norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    """x [T, D] normalised to mean 0 and variance 1, in float32; steady if compiled."""
    if not (x.is_cpu and compiled()):
        return F.layer_norm(x.float(), x.shape[-1:], eps=eps)
    x = x.contiguous()
    normed = torch.empty(x.shape)
    addresses = x.data_ptr(), normed.data_ptr()
    _kernels.layer_norm(KINDS[x.dtype], *x.shape, *addresses, eps)
    return normed


def activate(x: torch.Tensor, function: str) -> torch.Tensor:
    """ "silu" or "gelu" (tanh approximation) of x, of any shape; steady if compiled."""
    if not (x.is_cpu and compiled()):
        return F.silu(x) if function == "silu" else F.gelu(x, approximate="tanh")
    x = x.contiguous()
    result = torch.empty_like(x)
    addresses = x.data_ptr(), result.data_ptr()
    _kernels.activate(KINDS[x.dtype], function == "gelu", x.numel(), *addresses)
    return result


@cache
def _root(floor: float, device: torch.device) -> torch.Tensor:
    """The term that keeps a norm above zero."""
    return torch.tensor(floor**0.5, device=device)


class Draw(NamedTuple):
    """Which random numbers to draw: R rows for B requests; see csrc/kernels.h."""

    seeds: Ints  # [B]
    starts: Ints  # [B]
    owners: Ints  # [R]
    levels: Ints  # [R]
    fresh: bool  # whether the numbers change from round to round
    purpose: int
    vocab_size: int
    words: int  # address of the hashes of all tokens


class Knobs(NamedTuple):
    """The sampling options of B requests, each [B]; None if no request uses the option."""

    noisy: Bools
    inverse: Floats | None = None  # 1 / temperature
    top_k: Ints | None = None
    top_p: Floats | None = None
    log_min_p: Floats | None = None


def gumbel(draw: Draw) -> torch.Tensor:
    """[R, V] float32 Gumbel noise."""
    noise = torch.empty(len(draw.owners), draw.vocab_size)
    _kernels.gumbel(*draw, noise.data_ptr(), torch.get_num_threads())
    return noise


def choose(draw: Draw, knobs: Knobs, values: torch.Tensor) -> Ints:
    """[R] argmax of `values` [R, V] among the tokens that the request's filters keep.

    Gumbel noise is added if the request is noisy. Of equal values the first wins, as in torch.
    """
    assert values.dtype == torch.float32
    assert values.shape == (len(draw.owners), draw.vocab_size)
    values, tokens = values.contiguous(), np.empty(len(draw.owners), dtype=np.int64)
    _kernels.choose(*draw, *knobs, values.data_ptr(), torch.get_num_threads(), tokens)
    return tokens


def flow(
    codes: torch.Tensor,
    half: torch.Tensor,
    logs: torch.Tensor,
    times: list[float],
    x: torch.Tensor,
    *,
    tokens: bool,
) -> torch.Tensor:
    """The flow of models/sampling/flow.py from x [R, C] over `times`: [R, C], or [R] its tokens.

    `codes` [C, V], `half` [V] and `logs` [R, V], float64, are filled up to whole blocks of 16.
    """
    end = x.to("cpu", torch.float64, copy=True, memory_format=torch.contiguous_format)
    found, grid = torch.empty(len(x) if tokens else 0, dtype=torch.int64), np.array(times)
    sizes = len(x), len(half), len(codes)
    laws = codes.data_ptr(), half.data_ptr(), logs.data_ptr()
    told = found.data_ptr() if tokens else 0
    threads = torch.get_num_threads()
    _kernels.flow(*sizes, *laws, grid.ctypes.data, len(grid), end.data_ptr(), told, threads)
    return found if tokens else end
