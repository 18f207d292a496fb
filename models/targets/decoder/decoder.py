"""The decoder for the Llama family: from packed nodes to logits; fills the KV cache.

Letters: T packed nodes, W wanted nodes, V vocabulary, Hq query heads, Hkv key heads, D head width.
"""

import math

import torch
from torch.nn import functional as F

from models.batch import VECTOR, Batch, Scores
from models.compute.attention import Attention
from models.compute.attention_torch import torch_attention
from models.compute.heads import Heads
from models.compute.x86.drafts import Chooser
from models.compute.x86.kernels import Draw, Knobs
from models.compute.x86.stack import stack_of
from models.errors import UnsupportedCheckpoint
from models.memory.cache import KVCache, bytes_per_entry
from models.readout import States, states_for, top_of
from models.schedules.schedule import RASTER, Schedule
from models.targets.decoder.config import DecoderConfig
from models.targets.decoder.rotary import Rotary
from models.targets.decoder.static_pass import StaticPass
from models.targets.decoder.torch_pass import TorchPass
from models.targets.decoder.weights import Weights, assemble, random_tensor, shapes
from models.targets.target import Cache


class Decoder:
    """A target that runs in this process; for `score` see `Target` and `Batch`.

    Not thread-safe. Other position geometries use another `rotary`. Inputs that are not tokens are
    vectors, read by `embed_vectors`.
    """

    adapted = False
    schedule: Schedule = RASTER

    def __init__(
        self,
        config: DecoderConfig,
        weights: Weights,
        *,
        dtype: torch.dtype,
        device: torch.device,
        kernels: bool = True,
    ) -> None:
        self.config, self.dtype, self.device = config, dtype, device
        self.vocab_size, self.context_length = config.vocab_size, config.context_length
        self.input_size, self.num_layers = config.input_size, config.num_layers
        self.eos_token_ids, self.architecture = config.eos_token_ids, config.architecture
        self.num_parameters = sum(math.prod(shape) for shape in shapes(config).values())
        self.rotary = Rotary(config.rotary, config.head_dim, device)
        self._weights = weights
        self._heads = heads_of(config)
        self._stack = stack_of(weights, self._heads, config.norm_eps, device) if kernels else None
        self.steady = self._stack is not None
        self._pass = TorchPass(weights, self._heads, config.norm_eps)
        self._static: StaticPass | None = None

    @classmethod
    def from_config(
        cls,
        config: DecoderConfig,
        seed: int = 0,
        *,
        dtype: torch.dtype = torch.float32,
        device: torch.device | None = None,
        kernels: bool = True,
    ) -> "Decoder":
        """A decoder with random weights; for `kernels` see `make_linear`."""
        device, wanted = device or torch.device("cpu"), shapes(config)
        weights = assemble(
            config,
            lambda name: random_tensor(name, wanted[name], seed),
            dtype=dtype,
            device=device,
            kernels=kernels,
        )
        return cls(config, weights, dtype=dtype, device=device, kernels=kernels)

    def compile(self, backend: str = "inductor") -> StaticPass:
        """Run rounds as compiled graphs from now on, one for each of a few sizes.

        Prompts are read as before. Does nothing for a decoder that runs with our kernels. Results
        are those of an uncompiled pass up to rounding. `backend`: of torch.compile.
        """
        self._static = StaticPass(self._pass, self.device, backend)
        return self._static

    @property
    def codes(self) -> torch.Tensor | None:
        return self._weights.codes

    @property
    def bytes_per_entry(self) -> int:
        return bytes_per_entry(self.config, self.dtype)

    def new_cache(self, rows: int, capacity: int, entries: int | None = None) -> KVCache:
        """An empty cache; see `cache_bytes` for its size."""
        self.rotary.reserve(capacity)
        return KVCache(
            self.config, rows, capacity, dtype=self.dtype, device=self.device, entries=entries
        )

    def embed(self, tokens: torch.Tensor) -> torch.Tensor:
        """The first layer's input [T, width] for `tokens` [T]."""
        return F.embedding(tokens, self._weights.embedding)

    def embed_vectors(self, vectors: torch.Tensor) -> torch.Tensor:
        """The first layer's input [T, width] for vectors [T, C] with the codebook's width."""
        if self._weights.project is None:
            raise UnsupportedCheckpoint(
                f"{self.architecture} reads token ids only: its checkpoint has no codebook"
            )
        return self._weights.project(vectors.to(self.device).float()).to(self.dtype)

    def _read(self, batch: Batch) -> torch.Tensor:
        """The first layer's input [T, width] for a batch of tokens and vectors."""
        tokens = torch.from_numpy(batch.tokens).to(self.device)
        if batch.inputs is None:
            return self.embed(tokens)
        x = self.embed(tokens.clamp(min=0))
        at = tokens == VECTOR
        x[at] = self.embed_vectors(batch.inputs[at.to(batch.inputs.device)])
        return x

    @torch.inference_mode()
    def score(self, cache: Cache, batch: Batch) -> Scores:
        """Run the batch's nodes, leave their entries as scratch in the cache, return their logits.

        Also returns what `batch.readout` asks for.
        """
        return self._score(cache, batch, None if batch.inputs is None else self._read(batch))

    @torch.inference_mode()
    def score_inputs(self, cache: Cache, batch: Batch, x: torch.Tensor) -> Scores:
        """`score` with the first layer's input x [T, width] instead of tokens; overwrites x."""
        return self._score(cache, batch, x)

    def _score(self, cache: Cache, batch: Batch, x: torch.Tensor | None) -> Scores:
        """`x`: None: the batch has tokens only."""
        assert isinstance(cache, KVCache)
        like = self._weights.embedding
        states = states_for(batch.readout, self.num_layers, len(batch.tokens), like)
        if self._stack is not None:
            num_wanted = len(batch.tokens) if batch.wanted is None else len(batch.wanted)
            logits = torch.empty(num_wanted, self.vocab_size)
            self._stack.score(batch, cache, self.rotary, x, logits, states)
            told = None if states is None else states.values
        else:
            logits, told = self._score_with_torch(batch, cache, x, states)
        return Scores(logits, told, top_of(logits, batch.readout))

    @property
    def chooses(self) -> bool:
        """Whether `chooser` is available."""
        return self._stack is not None and self._heads.window is None

    def chooser(self, cache: Cache, batch: Batch, draw: Draw, knobs: Knobs) -> Chooser:
        """Drafts with this model after a batch of chains, in one call; see `ChoosingTarget`."""
        assert isinstance(cache, KVCache)
        assert self._stack is not None
        return self._stack.chooser(batch, cache, self.rotary, draw, knobs)

    def _attention(self, batch: Batch, cache: KVCache) -> Attention:
        """The attention of a pass that does not run with our kernels."""
        return torch_attention(batch, cache, self._heads, self.rotary)

    def _score_with_torch(
        self, batch: Batch, cache: KVCache, x: torch.Tensor | None, states: States | None
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits [W, V] and hidden states [T, n, width] with torch's operations."""
        static = self._static
        inputs = None if static is None or x is not None else static.inputs_for(batch, cache)
        if static is not None and inputs is not None:
            layers = () if states is None else states.layers
            return static.score(inputs, batch, cache, self.rotary.table, layers)
        if x is None:
            x = self._read(batch)
        self._pass.run(x, self._attention(batch, cache), states)
        told = None if states is None else states.values
        if batch.wanted is not None:
            x = x[torch.from_numpy(batch.wanted).to(self.device)]
        if x.shape[0] == 0:
            return torch.empty(0, self.vocab_size, device=self.device), told
        return self._pass.logits(x), told


def heads_of(config: DecoderConfig) -> Heads:
    """The shape of a decoder's attention."""
    window = config.window
    return Heads(
        queries=config.num_heads,
        keys=config.num_kv_heads,
        width=config.head_dim,
        window=None if window is None or window >= config.context_length else window,
        eps=config.norm_eps,
    )
