"""Linear layers: our compiled kernel on CPU, else the fastest form that torch offers.

The compiled layer gives a token the same bits in every batch and on every CPU that can run it. The
other layers do not guarantee this. Letters: T tokens, I input width, O output width.
"""

import ctypes
from abc import ABC, abstractmethod

import torch
from torch.nn import functional as F

from models.compute.x86.kernels import compiled
from models.compute.x86.packed_matrix import PackedMatrix

PACK_HINT = 64  # rows that oneDNN packs for; fast from 1 to 256 rows. With 1, results differ
BLOCK_ELEMENTS = 2**21  # half-precision matrices are converted in blocks that fit the cache


def has_packed_kernels() -> bool:
    """Whether this build of torch offers oneDNN's packed linear layers."""
    names = ("_reorder_linear_weight", "_linear_pointwise", "data_ptr", "_nbytes")
    available = torch.backends.mkldnn.is_available()
    return bool(available) and all(hasattr(torch.ops.mkldnn, name) for name in names)


def has_native(dtype: torch.dtype) -> bool:
    """Whether the CPU has arithmetic for this dtype."""
    if dtype == torch.bfloat16:
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    if dtype == torch.float16:
        return bool(torch.cpu._is_amx_fp16_supported())
    return dtype == torch.float32


class Scratch:
    """Buffers to convert half-precision blocks to float32, shared by all layers of a model.

    There is one buffer for each shape, so a model must not run in two threads at once.
    """

    def __init__(self) -> None:
        self._rooms: dict[tuple[int, ...], tuple[torch.Tensor, torch.Tensor]] = {}

    def room(self, packed: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """A packed matrix of the same shape to compute with, and its memory as [elements]."""
        shape = tuple(packed.shape)
        if shape not in self._rooms:
            self._rooms[shape] = (packed, _memory(packed))
        return self._rooms[shape]


class Linear(ABC):
    """A layer [T, I] -> [T, O]."""

    @abstractmethod
    def __call__(self, x: torch.Tensor) -> torch.Tensor: ...

    def add(self, x: torch.Tensor, onto: torch.Tensor) -> None:
        """Add the layer's result for `x` [T, I] to `onto` [T, O], which is contiguous."""
        onto.add_(self(x))


def make_linear(
    weight: torch.Tensor, bias: torch.Tensor | None, scratch: Scratch, *, kernels: bool = True
) -> Linear:
    """The layer x -> x weightᵀ + bias, weight [O, I], bias [O].

    `kernels`: use our compiled kernel if available; otherwise use torch's fastest form.
    """
    if weight.device.type != "cpu":
        return Plain(weight, bias)
    if kernels and compiled():
        return Compiled(weight, bias)
    if not has_packed_kernels():
        return Plain(weight, bias)
    return Packed(weight, bias) if has_native(weight.dtype) else Widened(weight, bias, scratch)


class Compiled(Linear):
    """Our compiled kernel: reads half-precision weights directly and computes in float32."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self.matrix = PackedMatrix(weight, bias)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return self.matrix.multiply(x)

    def add(self, x: torch.Tensor, onto: torch.Tensor) -> None:
        """Add the result to `onto`, with one rounding less than `onto.add_(self(x))`."""
        self.matrix.multiply(x, onto)


class Plain(Linear):
    """torch's own linear layer."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._weight, self._bias = weight, bias

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        return F.linear(x, self._weight, self._bias)


class Packed(Linear):
    """oneDNN's layer over a matrix in oneDNN's order; the original matrix can be freed."""

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._packed, self._bias = _pack(weight), bias
        self._run = torch.ops.mkldnn._linear_pointwise.default

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = self._run(x, self._packed, self._bias, "none", [], "")
        return result


class Widened(Linear):
    """A half-precision layer on a CPU that computes in float32 only.

    The matrix is stored in half precision in packed order. Blocks of it are converted to float32
    and multiplied. The result is rounded once.
    """

    def __init__(self, weight: torch.Tensor, bias: torch.Tensor | None, scratch: Scratch) -> None:
        self._bias = None if bias is None else bias.float()
        self._run = torch.ops.mkldnn._linear_pointwise.default
        rows = max(1, BLOCK_ELEMENTS // weight.shape[1])
        self._blocks = [self._block(part, scratch) for part in torch.split(weight, rows)]

    @staticmethod
    def _block(
        part: torch.Tensor, scratch: Scratch
    ) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        packed = _pack(part.float())
        narrow = _memory(packed).to(part.dtype)
        return narrow, *scratch.room(packed)

    def __call__(self, x: torch.Tensor) -> torch.Tensor:
        wide = x.float()
        parts = []
        for narrow, room, memory in self._blocks:
            memory.copy_(narrow)
            parts.append(self._run(wide, room, None, "none", [], ""))
        result = parts[0] if len(parts) == 1 else torch.cat(parts, dim=1)
        if self._bias is not None:
            result = result.add_(self._bias)
        return result.to(x.dtype)


def _pack(weight: torch.Tensor) -> torch.Tensor:
    packed: torch.Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, PACK_HINT)
    return packed


def _memory(packed: torch.Tensor) -> torch.Tensor:
    """A view of a packed float32 matrix's elements, in memory order."""
    address = torch.ops.mkldnn.data_ptr(packed)
    buffer = (ctypes.c_ubyte * torch.ops.mkldnn._nbytes(packed)).from_address(address)
    return torch.frombuffer(buffer, dtype=torch.float32)
