"""A decoder's pass with torch's operations over inputs of a few fixed sizes, as one graph.

Letters as in decoder.py.
"""

import torch
from torch.nn import functional as F

from models.batch import Batch, Ints
from models.compute.attention_torch import TorchAttention
from models.memory.cache import KVCache
from models.memory.layout import Layout
from models.memory.static_inputs import Size, StaticInputs, size_for
from models.readout import States
from models.targets.decoder.torch_pass import TorchPass

MOST_SIZES = 64  # batches of further sizes run without a graph


class StaticPass:
    """Copies a batch into the buffers of its size and runs one compiled function of them."""

    def __init__(self, inner: TorchPass, device: torch.device, backend: str) -> None:
        """`backend`: of torch.compile. Each size is compiled when it first occurs."""
        self._inner, self._device = inner, device
        self._known: dict[Size, StaticInputs] = {}
        self._run = torch.compile(  # type: ignore[call-overload]
            self._whole,
            fullgraph=True,
            dynamic=False,
            backend=backend,
            recompile_limit=2 * MOST_SIZES,
        )

    @property
    def sizes(self) -> tuple[Size, ...]:
        """The sizes that have occurred."""
        return tuple(self._known)

    def inputs_for(self, batch: Batch, cache: KVCache) -> StaticInputs | None:
        """The buffers for a batch; None for a large one, a piece of a prompt, and vectors."""
        is_prompt = batch.wanted is not None and not len(batch.wanted)
        size = None if is_prompt or batch.inputs is not None else size_for(batch, cache)
        if size is None:
            return None
        if size not in self._known and len(self._known) < MOST_SIZES:
            heads = self._inner.heads
            group = heads.queries // heads.keys
            self._known[size] = StaticInputs(size, group, heads.window, self._device)
        return self._known.get(size)

    def score(
        self,
        inputs: StaticInputs,
        batch: Batch,
        cache: KVCache,
        table: torch.Tensor,
        layers: tuple[int, ...],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Logits [W, V] and the hidden states [T, n, width] of `layers`, or None if there are none.

        `table`: of the decoder's `Rotary`.
        """
        places = inputs.fill(batch, cache)
        logits, states = self._run(inputs.tokens, inputs.layout, cache.kv, table, layers)
        told = None if states is None else self._at(states, places)
        if batch.wanted is not None:
            return logits[torch.from_numpy(places[batch.wanted]).to(self._device)], told
        return self._at(logits, places), told

    def _at(self, values: torch.Tensor, places: Ints) -> torch.Tensor:
        """The rows of the batch's nodes."""
        if len(places) == len(values):  # no padding
            return values
        return values[torch.from_numpy(places).to(self._device)]

    def _whole(
        self,
        tokens: torch.Tensor,
        layout: Layout,
        kv: torch.Tensor,
        table: torch.Tensor,
        layers: tuple[int, ...],
    ) -> tuple[torch.Tensor, torch.Tensor | None]:
        """What is compiled: from tokens [B * Q] to logits [B * Q, V] and hidden states."""
        inner = self._inner
        x = F.embedding(tokens, inner.weights.embedding)
        states = States(layers, len(inner.weights.layers), len(x), x) if layers else None
        inner.run(x, TorchAttention(layout, kv, inner.heads, table), states)
        return inner.logits(x), None if states is None else states.values
