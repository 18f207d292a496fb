"""The arithmetic of a pass on CPU by our compiled kernels, and by torch where there are none.

Compiled (models/csrc) where this installation could compile them and the CPU has AVX2. They use no
newer instructions, so their results have the same bits on CPUs with AVX2, AVX-512 or AMX. They work
in float32 whatever the dtype of their arguments, and give a row the same bits whatever other rows
there are. Letters: T tokens, I input width, O
output width, D width (of a head, in attention), S slots, Hq and Hkv query and key heads.
"""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from models.batch import Batch, Bools, Floats, Ints
from models.heads import Heads

if TYPE_CHECKING:
    from models.cache import KVCache

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
BLOCK = 16  # outputs side by side in a packed matrix
MOST_QUERIES = 192  # of one key head that attention has room for


def _load() -> Any:
    """The compiled module; None where the CPU lacks AVX2 or the installation had no compiler."""
    if not torch.backends.cpu.get_cpu_capability().startswith("AVX"):
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


def layer_norm(x: torch.Tensor, eps: float) -> torch.Tensor:
    """x [T, D] with mean 0 and variance 1, in float32; steady where it is compiled."""
    if not (x.is_cpu and compiled()):
        return F.layer_norm(x.float(), x.shape[-1:], eps=eps)
    x = x.contiguous()
    normed = torch.empty(x.shape)
    addresses = x.data_ptr(), normed.data_ptr()
    _kernels.layer_norm(KINDS[x.dtype], *x.shape, *addresses, eps)
    return normed


def activate(x: torch.Tensor, function: str) -> torch.Tensor:
    """ "silu" or "gelu" (in tanh's form) of x, of any shape; steady where it is compiled."""
    if not (x.is_cpu and compiled()):
        return F.silu(x) if function == "silu" else F.gelu(x, approximate="tanh")
    x = x.contiguous()
    result = torch.empty_like(x)
    addresses = x.data_ptr(), result.data_ptr()
    _kernels.activate(KINDS[x.dtype], function == "gelu", x.numel(), *addresses)
    return result


@cache
def _root(floor: float, device: torch.device) -> torch.Tensor:
    """What keeps a norm from zero."""
    return torch.tensor(floor**0.5, device=device)


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

    def row(self) -> tuple[int, int, int, int]:
        """The matrix as models/csrc/kernels.h has it; it lives as long as this object."""
        bias = 0 if self._bias is None else self._bias.data_ptr()
        return self._stored, self._outputs, self._packed.data_ptr(), bias

    def multiply(self, x: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """x [T, I] times the matrix plus the bias: [T, O], added to `onto` if that is given."""
        x = x.contiguous()
        result = x.new_empty(x.shape[0], self._outputs) if onto is None else onto
        _kernels.linear(
            self._stored,
            KINDS[x.dtype],
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


@dataclass(frozen=True, slots=True, kw_only=True)
class Nodes:
    """What is scored: a batch over a cache, and how its queries and keys turn.

    `visible` are contiguous; unless `shared`, they say of all keys what a node sees, else of those
    behind the committed ones, as `Batch` does. `table` is [positions, D / 2] complex64.
    """

    batch: Batch
    cache: "KVCache"
    heads: Heads
    table: torch.Tensor | None
    visible: tuple[Bools | None, ...]
    shared: bool

    def arguments(self) -> tuple[Any, ...]:
        """The first of the kernels that work on batches."""
        batch, cache, heads, kv = self.batch, self.cache, self.heads, self.cache.kv
        return (
            np.ascontiguousarray(batch.rows),
            np.ascontiguousarray(batch.counts),
            np.ascontiguousarray(batch.depths),
            cache.lengths,
            batch.scratch,
            self.visible,
            self.shared,
            cache.capacity,
            KINDS[kv.dtype],
            heads.queries,
            heads.keys,
            heads.width,
            kv.stride(2),
            kv.stride(3),
            kv.stride(1),
            torch.get_num_threads(),
        )

    def of_model(self, width: int, eps: float) -> tuple[Any, ...]:
        """The next ones of those that run all layers: of a model of this width and its norms."""
        kv, floor = self.cache.kv, self.heads.eps * self.heads.width
        return floor, eps * width, self.rotations(), kv.data_ptr(), kv.stride(0)

    def rotations(self) -> int:
        """The address of the table, or 0."""
        return 0 if self.table is None else self.table.data_ptr()


def attend(nodes: Nodes, index: int, qkv: torch.Tensor, norm: torch.Tensor | None) -> torch.Tensor:
    """Attention of T nodes over layer `index` of a cache, which gets their keys and values.

    Args:
        nodes: what is scored.
        index: of the layer.
        qkv: [T, (Hq + 2 Hkv) D], query heads in the order [Hq / Hkv, Hkv].
        norm: [Hq + Hkv, D] float32 with the factor √D, for queries and keys.

    Returns:
        [T, Hq D].
    """
    heads, kv = nodes.heads, nodes.cache.kv[index]
    assert qkv.dtype == kv.dtype
    assert qkv.is_contiguous()
    result = qkv.new_empty(len(qkv), heads.queries * heads.width)
    _kernels.attend(
        *nodes.arguments(),
        qkv.data_ptr(),
        0 if norm is None else norm.data_ptr(),
        nodes.rotations(),
        kv.data_ptr(),
        result.data_ptr(),
        heads.eps * heads.width,
    )
    return result


def score(
    nodes: Nodes, model: Ints, width: int, eps: float, x: torch.Tensor | None, logits: torch.Tensor
) -> None:
    """A whole pass of T nodes.

    Args:
        nodes: what is scored.
        model: as in models/csrc/kernels.h.
        width: of the model.
        eps: of its norms.
        x: [T, width], the first layer's input, which becomes the last one's output; None: the
            batch's tokens are read.
        logits: [W, V] float32, filled for the nodes that the batch wants; if it is empty there is
            nothing wanted.

    Raises:
        IndexError: a token that the model does not have.
    """
    kv, batch = nodes.cache.kv, nodes.batch
    assert x is None or (x.dtype == kv.dtype and x.is_contiguous())
    _kernels.score(
        *nodes.arguments(),
        *nodes.of_model(width, eps),
        0 if x is None else x.data_ptr(),
        logits.data_ptr() if logits.numel() else 0,
        model,
        np.ascontiguousarray(batch.tokens) if x is None else None,
        batch.wanted,
    )


def keep_entries(kv: torch.Tensor, row: int, start: int, nodes: Ints) -> None:
    """Entries start + i of a row become entries start + nodes[i].

    Args:
        kv: [L, 2, rows, H, S, D], contiguous.
        row: one of its rows.
        start: the first of these entries.
        nodes: ascending; nodes[i] >= i, and start + nodes[i] < S.
    """
    assert kv.is_contiguous()
    assert start + int(nodes[-1]) < kv.shape[4]
    size, first = kv.element_size(), row * kv.stride(2) + start * kv.stride(4)
    _kernels.keep_entries(
        kv.data_ptr() + first * size,
        kv.shape[0] * kv.shape[1],
        kv.stride(1) * size,
        kv.shape[3],
        kv.stride(3) * size,
        kv.shape[5] * size,
        np.ascontiguousarray(nodes),
    )


class Draw(NamedTuple):
    """Which random numbers, R rows of them for B requests; see models/csrc/kernels.h."""

    seeds: Ints  # [B]
    starts: Ints  # [B]
    owners: Ints  # [R]
    levels: Ints  # [R]
    fresh: bool  # every round
    purpose: int
    vocab_size: int
    words: int  # address of the tokens' hashes


class Knobs(NamedTuple):
    """How B requests sample, each [B], or None where no request does so."""

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
    """[R] the token of the greatest of `values` [R, V], with noise where its request is noisy.

    Among those that the request's filters keep; the first of equals, as torch's argmax.
    """
    assert values.dtype == torch.float32
    assert values.shape == (len(draw.owners), draw.vocab_size)
    values, tokens = values.contiguous(), np.empty(len(draw.owners), dtype=np.int64)
    _kernels.choose(*draw, *knobs, values.data_ptr(), torch.get_num_threads(), tokens)
    return tokens


class Trees(NamedTuple):
    """Trees as they grew, and the likeliest nodes of each, in the same order."""

    tokens: Ints  # [rows, N]
    parents: Ints  # [rows, N], -1 for the root
    kept_tokens: Ints  # [rows, M]
    kept_parents: Ints  # [rows, M]
    kept_levels: Ints  # [rows, M] depths, ascending


@dataclass(frozen=True, slots=True, kw_only=True)
class Chooser:
    """A draft model and how it chooses behind each row's end of a batch of chains."""

    nodes: Nodes
    model: Ints  # as in models/csrc/kernels.h
    width: int
    eps: float
    draw: Draw
    knobs: Knobs

    def arguments(self) -> tuple[Any, ...]:
        """The first of the kernels that draft."""
        of_model = self.nodes.of_model(self.width, self.eps)
        tokens = np.ascontiguousarray(self.nodes.batch.tokens)
        return *self.nodes.arguments(), *of_model, self.model, tokens, *self.draw, *self.knobs

    def chain(self, depth: int) -> Ints:
        """[depth, rows] tokens that the model itself chooses, one after another."""
        chosen = np.empty((depth, len(self.nodes.batch.rows)), dtype=np.int64)
        _kernels.chain(*self.arguments(), chosen)
        return chosen

    def trees(self, width: int, depth: int, budget: int) -> Trees:
        """Trees of `width` nodes a level and the likeliest `budget`: models/drafters/tree.py."""
        rows, size = len(self.nodes.batch.rows), width * depth
        counts = (size, size, *[min(budget, size)] * 3)
        made = Trees(*(np.empty((rows, count), dtype=np.int64) for count in counts))
        _kernels.trees(*self.arguments(), width, *made)
        return made


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
