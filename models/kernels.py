"""The arithmetic of a pass on CPU by our compiled kernels, and by torch where there are none.

Compiled (models/csrc) where this installation could compile them and the CPU has AVX2 but not
AVX-512, for which they are not made. They work in float32 whatever the dtype of their arguments,
and give a row the same bits whatever other rows there are. Letters: T tokens, I input width, O
output width, D width (of a head, in attention), S slots, Hq and Hkv query and key heads.
"""

from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch.nn import functional as F

from models.batch import Ints
from models.heads import Heads

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
BLOCK = 16  # outputs side by side in a packed matrix
MOST_QUERIES = 192  # query heads of one key head that attention has room for


def _load() -> Any:
    """The compiled module; None where it is not made for this CPU or there was no compiler."""
    if torch.backends.cpu.get_cpu_capability() != "AVX2":
        return None
    try:
        return import_module("models._kernels")
    except ImportError:
        return None


_kernels = _load()


def compiled() -> bool:
    """Whether the compiled kernels are used on this machine."""
    return _kernels is not None


def rms_norm(x: torch.Tensor, weight: torch.Tensor, eps: float) -> torch.Tensor:
    """x [..., D] over its norm, times `weight` [D] or [H, D], which has the factor √D; in float32.

    A token has the same bits whatever else is in the batch.
    """
    floor = eps * x.shape[-1]
    if x.is_cpu and weight.dim() == 1 and compiled() and x.is_contiguous():
        normed = torch.empty_like(x)
        rows, width = x.numel() // x.shape[-1], x.shape[-1]
        addresses = x.data_ptr(), weight.data_ptr(), normed.data_ptr()
        _kernels.rms_norm(KINDS[x.dtype], rows, width, *addresses, floor)
        return normed
    # A vector norm and exact operations: twice as fast on CPU as torch's own norm, and steady.
    norm = torch.linalg.vector_norm(x, dim=-1, keepdim=True, dtype=torch.float32)
    root = norm.hypot_(_root(floor, x.device))
    result: torch.Tensor = (x / root).mul_(weight).to(x.dtype)
    return result


@cache
def _root(floor: float, device: torch.device) -> torch.Tensor:
    """What keeps a norm from zero."""
    return torch.tensor(floor**0.5, device=device)


def swiglu(x: torch.Tensor) -> torch.Tensor:
    """silu(gate) times up [T, D] of both side by side: x [T, 2 D]."""
    if x.is_cpu and compiled():
        gated = x.new_empty(x.shape[0], x.shape[1] // 2)
        addresses = x.data_ptr(), gated.data_ptr()
        rows, width = gated.shape
        _kernels.swiglu(KINDS[x.dtype], rows, width, *addresses, torch.get_num_threads())
        return gated
    gate, up = x.chunk(2, dim=-1)
    return F.silu(gate).mul_(up)


class PackedMatrix:
    """A matrix [O, I] in the order the compiled kernels read it.

    Stored in half precision where that holds its values exactly: a pass that reads half the memory
    computes the same.
    """

    def __init__(self, matrix: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._outputs, self._inputs = matrix.shape
        self._packed = _pack(_narrowest(matrix))
        self.stored_dtype = self._packed.dtype
        self._stored = KINDS[self.stored_dtype]
        self._bias = None if bias is None else _filled(bias.float())
        assert self._packed.data_ptr() % 32 == 0

    def multiply(self, x: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """x [T, I] times the matrix plus the bias: [T, O], added to `onto` if that is given."""
        x = x.contiguous()
        result = x.new_empty(x.shape[0], self._outputs) if onto is None else onto
        _kernels.linear(
            self._stored,
            KINDS[x.dtype],
            x.shape[0],
            self._inputs,
            self._outputs,
            x.data_ptr(),
            self._packed.data_ptr(),
            0 if self._bias is None else self._bias.data_ptr(),
            result.data_ptr(),
            onto is not None,
            torch.get_num_threads(),
        )
        return result


def attend(
    heads: Heads,
    readers: Ints,
    positions: Ints,
    table: torch.Tensor | None,
    qkv: torch.Tensor,
    norm: torch.Tensor | None,
    kv: torch.Tensor,
) -> torch.Tensor:
    """Attention of T nodes over one layer of a cache, which gets their keys and values.

    Args:
        readers: [B, 6], as in models/csrc/kernels.h.
        positions: [T] rows of `table` [positions, D / 2] complex64, by which queries and keys turn.
        qkv: [T, (Hq + 2 Hkv) D], query heads in the order [Hq / Hkv, Hkv].
        norm: [Hq + Hkv, D] float32 with the factor √D, for queries and keys.
        kv: [2, rows, Hkv, S, D].

    Returns:
        [T, Hq D].
    """
    assert qkv.dtype == kv.dtype
    assert qkv.is_contiguous()
    assert heads.queries // heads.keys <= MOST_QUERIES
    result = qkv.new_empty(len(positions), heads.queries * heads.width)
    _kernels.attend(
        KINDS[qkv.dtype],
        len(readers),
        heads.queries,
        heads.keys,
        heads.width,
        kv.stride(1),
        kv.stride(2),
        kv.stride(0),
        torch.get_num_threads(),
        readers.ctypes.data,
        qkv.data_ptr(),
        0 if norm is None else norm.data_ptr(),
        0 if table is None else table.data_ptr(),
        positions.ctypes.data,
        kv.data_ptr(),
        result.data_ptr(),
        heads.eps * heads.width,
    )
    return result


def _narrowest(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix in half precision if that has the same values."""
    if matrix.dtype == torch.float32:
        for dtype in (torch.bfloat16, torch.float16):
            narrow = matrix.to(dtype)
            if torch.equal(narrow.float(), matrix):
                return narrow
    return matrix


def _filled(tensor: torch.Tensor) -> torch.Tensor:
    """Rows of zeros added up to a whole number of blocks."""
    missing = -tensor.shape[0] % BLOCK
    return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])])


def _pack(matrix: torch.Tensor) -> torch.Tensor:
    """[O, I] -> [blocks, I, 16]; in bfloat16 the 16 outputs in the order 0, 8, 1, 9..."""
    blocks = _filled(matrix).unflatten(0, (-1, BLOCK)).transpose(1, 2)
    if matrix.dtype == torch.bfloat16:
        blocks = blocks.unflatten(2, (2, BLOCK // 2)).transpose(2, 3)
    packed: torch.Tensor = blocks.contiguous()
    return packed
