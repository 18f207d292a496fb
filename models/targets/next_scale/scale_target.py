"""The next-scale target for the token loop.

It shares attention, cache, layout and linear layers with the decoder. Letters: B requests, T packed
nodes, n places of a map, D width, H heads, V vocabulary, K classes.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Several
from pathlib import Path

import numpy as np
import torch

from models.batch import VECTOR, Batch, Scores
from models.compute.attention import Attention, open_attention
from models.compute.heads import Heads
from models.compute.x86 import kernels
from models.errors import InvalidRequest, UnsupportedCheckpoint
from models.memory.cache import KVCache, bytes_per_entry
from models.memory.layout import positions_of
from models.readout import states_for, top_of
from models.requests.canvas import Canvas
from models.requests.request import Request
from models.schedules.feed import Feed
from models.schedules.schedule import Plan, Scales, Schedule
from models.store import TENSORS, check_shapes, read_config, read_tensors
from models.targets.decoder.config import DecoderConfig
from models.targets.next_scale.model import NextScaleConfig, NextScaleModel
from models.targets.next_scale.scale_inputs import ScaleInputs
from models.targets.next_scale.scale_weights import Block, assemble
from models.targets.target import Cache
from models.tokenizers.load import load_tokenizer
from models.tokenizers.scales import ScaleTokenizer

UNIT_EPS = 1e-12  # added to squared lengths of queries and keys


class NextScaleTarget:
    """A target that decides one map in each pass; see `GroupTarget`. Not thread-safe."""

    adapted = False
    scratch = 0
    eos_token_ids: tuple[int, ...] = ()
    architecture = "PacelineNextScale"

    def __init__(
        self,
        config: NextScaleConfig,
        tensors: Mapping[str, torch.Tensor],
        tokenizer: ScaleTokenizer,
        *,
        dtype: torch.dtype,
        device: torch.device,
    ) -> None:
        """`tensors` are the state of a `NextScaleModel`."""
        _check_tokenizer(config, tokenizer)
        self.config, self.dtype, self.device = config, dtype, device
        self.tokenizer = tokenizer.to(device)
        self._inputs = ScaleInputs(self.tokenizer)
        self.vocab_size, self.context_length = config.vocab_size, 1 + config.num_tokens
        self.input_size = config.vocab_size + config.num_classes + 1
        self.num_layers = config.num_layers
        self.num_parameters = sum(tensor.numel() for tensor in tensors.values())
        self._scales = Scales(config.scales)
        self.schedule: Schedule = self._scales
        self._heads = Heads(
            queries=config.num_heads,
            keys=config.num_heads,
            width=config.width // config.num_heads,
            eps=UNIT_EPS,
        )
        self.steady = device.type == "cpu" and kernels.compiled()
        self._weights = assemble(config, tensors, dtype=dtype, device=device)

    @property
    def codes(self) -> torch.Tensor | None:
        return self.tokenizer.codebook().detach().float()

    @property
    def bytes_per_entry(self) -> int:
        return bytes_per_entry(_sizes(self.config), self.dtype)

    def new_cache(self, rows: int, capacity: int, entries: int | None = None) -> KVCache:
        """An empty cache."""
        sizes = _sizes(self.config)
        return KVCache(sizes, rows, capacity, dtype=self.dtype, device=self.device, entries=entries)

    def check(self, request: Request) -> None:
        """Raise InvalidRequest unless the prompt is one class, or the null class."""
        first, last = self.vocab_size, self.input_size - 1
        if len(request.prompt) != 1 or not first <= request.prompt[0] <= last:
            raise InvalidRequest(
                f"request {request.id!r}: prompt {list(request.prompt[:8])}; this target reads "
                f"one class, id {first} to {last} (the last stands for none)"
            )

    def feed(self, canvases: Several[Canvas], plans: Several[Plan]) -> list[Feed]:
        """The nodes: the class for the first map, the sum of the earlier maps for all others."""
        scales = np.array([self._scales.scale_of(canvas) for canvas in canvases])
        known: dict[int, torch.Tensor] = {}
        for scale in np.unique(scales[scales > 0]).tolist():
            members = np.flatnonzero(scales == scale).tolist()
            tokens = np.stack([canvases[b].values[: self._scales.ends[scale - 1]] for b in members])
            told = self._inputs(torch.from_numpy(tokens).to(self.device), scale)
            known.update(zip(members, told, strict=True))
        return [
            _feed(canvas.request.prompt[0], len(plan.positions), known.get(b))
            for b, (canvas, plan) in enumerate(zip(canvases, plans, strict=True))
        ]

    @torch.inference_mode()
    def score(self, cache: Cache, batch: Batch) -> Scores:
        """Run the batch's nodes, leave their entries as scratch in the cache, return their logits.

        Also returns what `batch.readout` asks for.
        """
        assert isinstance(cache, KVCache)
        attention = open_attention(batch, cache, self._heads, None)
        weights, owners = self._weights, np.repeat(np.arange(len(batch.rows)), batch.counts)
        told = self._told(batch)  # [B, D]
        base = told if weights.modulation is None else weights.modulation(told)
        x = self._read(batch) + weights.places[positions_of(batch, cache.lengths[batch.rows])]
        states = states_for(batch.readout, self.num_layers, len(x), x)
        for index, block in enumerate(weights.blocks):
            if states is not None:
                states.take(index, x)
            six = _six(block, base)[owners].unbind(1)  # [T, D] each
            x = self._attention(x, index, attention, (six[0], six[2], six[4]))
            x = self._feed_forward(x, block, (six[1], six[3], six[5]))
        scale, shift = weights.last(told)[owners].chunk(2, dim=-1)
        x = self._normed(x, scale, shift)
        if states is not None:
            states.take(self.num_layers, x)
        logits = weights.head(x if batch.wanted is None else x[batch.wanted]).float()
        kept = None if states is None else states.values
        return Scores(logits, kept, top_of(logits, batch.readout))

    def _told(self, batch: Batch) -> torch.Tensor:
        """[B, D] the class vectors that modulate every layer."""
        assert batch.conditions is not None
        return kernels.activate(self._weights.classes[batch.conditions - self.vocab_size], "silu")

    def _read(self, batch: Batch) -> torch.Tensor:
        """[T, D] the first layer's inputs: classes and projected vectors."""
        x = self._weights.classes[np.maximum(batch.tokens - self.vocab_size, 0)]
        at = np.flatnonzero(batch.tokens == VECTOR)
        if len(at):
            assert batch.inputs is not None
            x[at] = self._weights.project(batch.inputs[at].to(self.device, self.dtype))
        return x

    def _normed(self, x: torch.Tensor, scale: torch.Tensor, shift: torch.Tensor) -> torch.Tensor:
        """x [T, D] normalised to mean 0 and variance 1, times 1 + scale, plus shift."""
        plain = kernels.layer_norm(x, self.config.norm_eps)
        return plain.mul(scale + 1).add(shift).to(x.dtype)

    def _attention(
        self,
        x: torch.Tensor,
        index: int,
        attention: Attention,
        told: tuple[torch.Tensor, ...],
    ) -> torch.Tensor:
        block = self._weights.blocks[index]
        weigh, scale, shift = told
        qkv = block.qkv(self._normed(x, scale, shift))
        return x + block.out(attention(index, qkv, block.qk_norm)) * weigh

    def _feed_forward(
        self, x: torch.Tensor, block: Block, told: tuple[torch.Tensor, ...]
    ) -> torch.Tensor:
        weigh, scale, shift = told
        grown = block.up(self._normed(x, scale, shift))
        return x + block.down(kernels.activate(grown, "gelu")) * weigh


def _six(block: Block, base: torch.Tensor) -> torch.Tensor:
    """[B, 6, D]: output factors, input scales and input shifts of attention and feed-forward."""
    if block.modulation is not None:
        return block.modulation(base).view(len(base), 6, -1)
    assert block.offsets is not None
    return base.view(len(base), 6, -1) + block.offsets


def _feed(condition: int, count: int, vectors: torch.Tensor | None) -> Feed:
    """The nodes of a whole map [n]. Each place sees all of them. The first map is the class."""
    return Feed(
        tokens=np.full(count, condition if vectors is None else VECTOR, dtype=np.int64),
        depths=np.arange(count),
        visible=np.ones((count, count), dtype=np.bool_),
        wanted=np.arange(count),
        kept=np.arange(count),
        vectors=vectors,
        condition=condition,
    )


def _sizes(config: NextScaleConfig) -> DecoderConfig:
    """The sizes for the KV cache."""
    return DecoderConfig(
        architecture=NextScaleTarget.architecture,
        vocab_size=config.vocab_size,
        width=config.width,
        inner_width=config.inner_width,
        num_layers=config.num_layers,
        num_heads=config.num_heads,
        num_kv_heads=config.num_heads,
        head_dim=config.width // config.num_heads,
        context_length=1 + config.num_tokens,
    )


def load_next_scale(folder: Path, *, dtype: torch.dtype, device: torch.device) -> NextScaleTarget:
    """The target in `folder`, with the tokenizer in its subfolder.

    Raises:
        UnsupportedCheckpoint: a file, field or tensor is missing or wrong; the message names it.
    """
    config = read_config(folder, NextScaleConfig)
    tensors = read_tensors(folder / TENSORS)
    with torch.device("meta"):
        check_shapes(tensors, NextScaleModel(config), str(folder))
    tokenizer = load_tokenizer(folder)
    if not isinstance(tokenizer, ScaleTokenizer):
        raise UnsupportedCheckpoint(f"{folder}: its tokenizer is not one of scales")
    return NextScaleTarget(config, tensors, tokenizer, dtype=dtype, device=device)


def _check_tokenizer(config: NextScaleConfig, tokenizer: ScaleTokenizer) -> None:
    for name in ("vocab_size", "code_width", "scales"):
        own, its = getattr(config, name), getattr(tokenizer.config, name)
        if own != its:
            raise UnsupportedCheckpoint(f"the target's {name} is {own!r}, its tokenizer's {its!r}")
