"""Python's side of the compiled CPU kernels (csrc/), with torch as the fallback.

The kernels are used if they were compiled at installation and the CPU has AVX2. They use no newer
instructions, so their results have the same bits on CPUs with AVX2, AVX-512 or AMX. They compute in
float32, whatever the dtype of their arguments. A row's result does not depend on other rows.
Letters: T tokens, I input width, O output width, D width (of a head, in attention), S slots, Hq and
Hkv query and key heads.
"""

from dataclasses import dataclass
from functools import cache
from importlib import import_module
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import torch
from torch.nn import functional as F

from models.batch import Batch, Bools, Floats, Ints
from models.compute.heads import Heads
from models.readout import States

if TYPE_CHECKING:
    from models.memory.cache import KVCache

KINDS = {torch.float32: 0, torch.bfloat16: 1, torch.float16: 2}
BLOCK = 16  # outputs in one block of a packed matrix
MOST_QUERIES = 192  # query heads of one key head that the attention kernel supports


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


class PackedMatrix:
    """A matrix [O, I] in the memory order of the compiled kernels.

    It is stored in half precision if this keeps its values exactly. A pass then reads half the
    memory, with the same results.
    """

    def __init__(self, matrix: torch.Tensor, bias: torch.Tensor | None) -> None:
        self._outputs, self._inputs = matrix.shape
        self._packed = _pack(_narrowest(matrix))
        self.stored_dtype = self._packed.dtype
        self._stored = KINDS[self.stored_dtype]
        self._bias = None if bias is None else _filled(bias.float())
        assert self._packed.data_ptr() % 32 == 0

    def row(self) -> tuple[int, int, int, int]:
        """`Matrix` of models/compute/x86/csrc/kernels.h; valid as long as this object exists."""
        bias = 0 if self._bias is None else self._bias.data_ptr()
        return self._stored, self._outputs, self._packed.data_ptr(), bias

    def multiply(self, x: torch.Tensor, onto: torch.Tensor | None = None) -> torch.Tensor:
        """x [T, I] times the matrix plus the bias: [T, O]; added to `onto` if given."""
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
    """A batch over a cache, with its masks and rotations.

    `visible` are contiguous masks. With `shared` they cover the keys after the committed ones, as
    in `Batch`; otherwise they cover all keys. `table` [positions, D / 2] complex64: the rotations.
    """

    batch: Batch
    cache: "KVCache"
    heads: Heads
    table: torch.Tensor | None
    visible: tuple[Bools | None, ...]
    shared: bool

    def arguments(self) -> tuple[Any, ...]:
        """The first arguments of all kernels that work on batches."""
        batch, cache, heads, kv = self.batch, self.cache, self.heads, self.cache.kv
        return (
            np.ascontiguousarray(batch.rows),
            np.ascontiguousarray(batch.counts),
            np.ascontiguousarray(batch.depths),
            cache.lengths,
            cache.rooms,
            cache.tables,
            batch.scratch,
            self.visible,
            self.shared,
            KINDS[kv.dtype],
            heads.queries,
            heads.keys,
            heads.width,
            kv.stride(2),
            kv.stride(1),
            torch.get_num_threads(),
        )

    def of_model(self, width: int, eps: float) -> tuple[Any, ...]:
        """The next arguments of kernels that run all layers, for a model of this width."""
        kv, floor = self.cache.kv, self.heads.eps * self.heads.width
        return floor, eps * width, self.rotations(), kv.data_ptr(), kv.stride(0)

    def rotations(self) -> int:
        """The address of the table, or 0."""
        return 0 if self.table is None else self.table.data_ptr()


def attend(nodes: Nodes, index: int, qkv: torch.Tensor, norm: torch.Tensor | None) -> torch.Tensor:
    """Attention of T nodes over layer `index` of a cache; writes their keys and values to it.

    Args:
        nodes: the batch.
        index: index of the layer.
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
    nodes: Nodes,
    model: Ints,
    width: int,
    eps: float,
    x: torch.Tensor | None,
    logits: torch.Tensor,
    states: States | None = None,
) -> None:
    """A whole forward pass of T nodes.

    Args:
        nodes: the batch.
        model: the weights, as in models/compute/x86/csrc/kernels.h.
        width: width of the model.
        eps: eps of its norms.
        x: [T, width], the first layer's input; overwritten with the last layer's output. None: the
            input is the embedding of the batch's tokens.
        logits: [W, V] float32, filled for the wanted nodes; empty: no logits are computed.
        states: the hidden states to fill; None: none are kept.

    Raises:
        IndexError: a token is outside the embedding table.
    """
    kv, batch = nodes.cache.kv, nodes.batch
    assert x is None or (x.dtype == kv.dtype and x.is_contiguous())
    assert states is None or states.values.dtype == kv.dtype
    _kernels.score(
        *nodes.arguments(),
        *nodes.of_model(width, eps),
        0 if x is None else x.data_ptr(),
        logits.data_ptr() if logits.numel() else 0,
        0 if states is None else states.values.data_ptr(),
        model,
        np.ascontiguousarray(batch.tokens) if x is None else None,
        batch.wanted,
        None if states is None else np.array(states.layers, dtype=np.int64),
    )


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


class Trees(NamedTuple):
    """All nodes of trees, and the most likely nodes of each tree, in the same order."""

    tokens: Ints  # [rows, N]
    parents: Ints  # [rows, N], -1 for the root
    kept_tokens: Ints  # [rows, M]
    kept_parents: Ints  # [rows, M]
    kept_levels: Ints  # [rows, M] depths, ascending


@dataclass(frozen=True, slots=True, kw_only=True)
class Chooser:
    """Drafts with a model, in one call, after the last node of each row of a batch of chains."""

    nodes: Nodes
    model: Ints  # as in models/compute/x86/csrc/kernels.h
    width: int
    eps: float
    draw: Draw
    knobs: Knobs

    def arguments(self) -> tuple[Any, ...]:
        """The first arguments of the kernels that draft."""
        of_model = self.nodes.of_model(self.width, self.eps)
        tokens = np.ascontiguousarray(self.nodes.batch.tokens)
        return *self.nodes.arguments(), *of_model, self.model, tokens, *self.draw, *self.knobs

    def chain(self, depth: int) -> Ints:
        """[depth, rows] tokens that the model chooses, one level after the other."""
        chosen = np.empty((depth, len(self.nodes.batch.rows)), dtype=np.int64)
        self.nodes.cache.hold(self.nodes.batch, depth - 1)
        _kernels.chain(*self.arguments(), chosen)
        return chosen

    def trees(self, width: int, depth: int, budget: int) -> Trees:
        """Trees with `width` nodes a level, and their `budget` best; see draft_models/tree.py."""
        rows, size = len(self.nodes.batch.rows), width * depth
        counts = (size, size, *[min(budget, size)] * 3)
        made = Trees(*(np.empty((rows, count), dtype=np.int64) for count in counts))
        self.nodes.cache.hold(self.nodes.batch, size - width)
        _kernels.trees(*self.arguments(), width, *made)
        return made


def _narrowest(matrix: torch.Tensor) -> torch.Tensor:
    """The matrix in half precision if this keeps its values, else unchanged."""
    if matrix.dtype == torch.float32:
        for dtype in (torch.bfloat16, torch.float16):
            narrow = matrix.to(dtype)
            if torch.equal(narrow.float(), matrix):
                return narrow
    return matrix


def _filled(tensor: torch.Tensor) -> torch.Tensor:
    """The tensor, padded with rows of zeros to a whole number of blocks."""
    missing = -tensor.shape[0] % BLOCK
    return torch.cat([tensor, tensor.new_zeros(missing, *tensor.shape[1:])])


def _pack(matrix: torch.Tensor) -> torch.Tensor:
    """[O, I] -> [blocks, I, 16]; in bfloat16 the 16 outputs in the order 0, 8, 1, 9..."""
    blocks = _filled(matrix).unflatten(0, (-1, BLOCK)).transpose(1, 2)
    if matrix.dtype == torch.bfloat16:
        blocks = blocks.unflatten(2, (2, BLOCK // 2)).transpose(2, 3)
    packed: torch.Tensor = blocks.contiguous()
    return packed
