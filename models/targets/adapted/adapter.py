"""Any causal language model that transformers loads, as a target. Slower than our decoder.

The adapter requires that a model can continue a text from its own cache after the last entries
were cut off. It checks this at loading; a model that fails the check is run over the whole text
each time. A tree is scored path by path.
Letters: T packed nodes, W wanted nodes, V vocabulary, n layers asked for, D width.
"""

from collections.abc import Iterable
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from models.batch import Batch, Scores
from models.errors import UnsupportedCheckpoint
from models.readout import top_of
from models.schedules.schedule import RASTER, Schedule
from models.targets.adapted.cache import AdaptedCache, Row
from models.targets.target import Cache

Rows = tuple[torch.Tensor, torch.Tensor | None]  # logits, and hidden states if asked for

NO_LIMIT = 2**15  # context length of a model whose configuration has none
PROBE = (1, 2, 3, 4, 5, 6)  # tokens that check the model at loading


class AdaptedTarget:
    """A transformers model behind the `Target` protocol."""

    adapted, steady = True, False
    schedule: Schedule = RASTER
    codes: torch.Tensor | None = None

    def __init__(self, model: Any, *, eos_token_ids: tuple[int, ...]) -> None:
        self.model, self.device, self.dtype = model, model.device, model.dtype
        self.eos_token_ids, self.architecture = eos_token_ids, type(model).__name__
        self.num_parameters = int(model.num_parameters())
        self.context_length = _context_length(model.config)
        whole = self._forward(PROBE, None, states=True)
        self.vocab_size = self.input_size = whole.logits.shape[-1]
        self.num_layers = len(whole.hidden_states or [None]) - 1
        self.bytes_per_entry = self._probe(whole.logits[0].float())

    def new_cache(self, rows: int, capacity: int, entries: int | None = None) -> AdaptedCache:
        """An empty cache; `num_bytes` is its size when full."""
        return AdaptedCache(rows, capacity, self.bytes_per_entry, entries)

    def score(self, cache: Cache, batch: Batch) -> Scores:
        """Run the batch's nodes row by row and path by path, return the wanted nodes' logits.

        Also returns what `batch.readout` asks for.
        """
        layers = () if batch.readout is None else batch.readout.layers
        if batch.readout is not None:
            batch.readout.check(self.num_layers)
        assert isinstance(cache, AdaptedCache)
        if batch.inputs is not None:
            raise UnsupportedCheckpoint(f"{self.architecture} reads token ids, no vectors")
        results: list[Rows] = []
        start = 0
        for index, (row, count) in enumerate(zip(batch.rows, batch.counts, strict=True)):
            text = cache.texts[int(row)]
            assert len(text.scratch) >= batch.scratch, (len(text.scratch), batch.scratch)
            tokens = batch.tokens[start : start + count].tolist()
            text.scratch[batch.scratch :] = tokens
            assert len(text.committed) + len(text.scratch) <= cache.capacity
            results += self._nodes(text, _paths(batch, index), batch.scratch, layers)
            start += int(count)
        return self._gather(results, batch)

    def _nodes(
        self, text: Row, paths: list[list[int]], scratch: int, layers: tuple[int, ...]
    ) -> list[Rows]:
        """Logits [V] and states [n, D] of each of a row's new nodes, given the path to each."""
        found: dict[int, Rows] = {}
        for path in reversed(paths):  # leaves first: a pass to a leaf also scores its ancestors
            if path[-1] in found:
                continue
            fresh = next(i for i, node in enumerate(path) if node >= scratch and node not in found)
            wanted = text.committed + [text.scratch[node] for node in path]
            logits, states = self._extend(text, wanted, len(text.committed) + fresh, layers)
            for back, node in enumerate(reversed(path[fresh:]), start=1):
                found[node] = (logits[-back], None if states is None else states[-back])
        return [found[path[-1]] for path in paths]

    def _extend(self, text: Row, wanted: list[int], limit: int, layers: tuple[int, ...]) -> Rows:
        """Run the model on `wanted`, from the end of the cached common prefix, at most `limit`."""
        if self.bytes_per_entry == 0:
            return self._run(wanted, None, layers)
        shared = text.rewind(wanted, limit)
        result = self._run(wanted[shared:], text.past, layers)
        text.held = wanted
        return result

    @torch.inference_mode()
    def _run(
        self, tokens: Iterable[int], past: DynamicCache | None, layers: tuple[int, ...] = ()
    ) -> Rows:
        """Logits [m, V] float32 of m tokens after `past`, which grows; states [m, n, D]."""
        output = self._forward(tokens, past, states=bool(layers))
        states = [output.hidden_states[layer][0] for layer in layers]
        return output.logits[0].float(), torch.stack(states, dim=1) if layers else None

    @torch.inference_mode()
    def _forward(self, tokens: Iterable[int], past: DynamicCache | None, *, states: bool) -> Any:
        """The model's own output."""
        return self.model(
            input_ids=torch.tensor([list(tokens)], device=self.device),
            past_key_values=past,
            use_cache=past is not None,
            output_hidden_states=states,
            return_dict=True,
        )

    def _probe(self, whole: torch.Tensor) -> int:
        """Bytes per token of the model's cache; 0 if the cache cannot be cut and continued."""
        if getattr(self.model, "_is_stateful", False):
            return 0
        past = DynamicCache()
        try:
            self._run(PROBE, past)
            past.crop(-3)
            again = self._run(PROBE[3:], past)[0]
        except (AttributeError, IndexError, KeyError, RuntimeError, TypeError, ValueError):
            return 0
        if (again - whole[3:]).abs().max() > 0.05 * whole.abs().max():
            return 0
        tensors: list[Any] = [part for layer in past for part in layer[:2]]
        return sum(int(tensor.nbytes) for tensor in tensors) // len(PROBE)

    def _gather(self, results: list[Rows], batch: Batch) -> Scores:
        wanted = range(len(results)) if batch.wanted is None else batch.wanted.tolist()
        rows = [results[node][0] for node in wanted]
        logits = torch.stack(rows) if rows else torch.empty(0, self.vocab_size, device=self.device)
        states = [state for _, state in results if state is not None]
        told = torch.stack(states) if states else None
        return Scores(logits, told, top_of(logits, batch.readout))


def _paths(batch: Batch, index: int) -> list[list[int]]:
    """The scratch nodes from the root to each new node of a row of the batch, itself included."""
    visible, count = batch.visible[index], int(batch.counts[index])
    if visible is None:
        return [list(range(node + 1)) for node in range(count)]
    return [np.flatnonzero(seen).tolist() for seen in visible]


def _context_length(config: Any) -> int:
    config = config.get_text_config()
    for name in ("max_position_embeddings", "n_positions", "seq_length", "max_seq_len"):
        length = getattr(config, name, None)
        if isinstance(length, int) and length > 0:
            return length
    return NO_LIMIT
