"""The processed distribution: from a model's logits to the distribution of the next token.

Plain decoding, drafting and verification share this code. The order is: grammar, logit bias,
penalties, minimum length, temperature, top-k, top-p, min-p. Letters: B requests of the batch,
R rows in one call (each belongs to a request), V vocabulary.
"""

from collections.abc import Mapping
from collections.abc import Sequence as Several
from functools import cached_property

import numpy as np
import torch

from models.batch import Ints
from models.compute.x86.kernels import Knobs, choose, compiled
from models.requests.sequence import Sequence
from models.sampling.filters import MINUS_INF, keep_min_p, keep_top_k, keep_top_p, logarithms
from models.sampling.maps import Maps, tokens_of, users
from models.sampling.noise import NoiseStore, Numbers, Purpose
from models.sampling.penalties import Penalties

ROUNDING = 1e-5  # larger than the rounding error of float32 sums of probabilities


class Processor:
    """The sampling options of a batch as tensors, and the token counts of each request."""

    def __init__(
        self,
        sequences: Several[Sequence],
        vocab_size: int,
        device: torch.device,
        maps: Maps | None = None,
    ) -> None:
        """`maps` may be None if all requests use Gumbel noise."""
        settings = [s.request.sampling for s in sequences]
        self.vocab_size, self.device = vocab_size, device
        temperature = np.array([s.temperature for s in settings], dtype=np.float32)
        self.stochastic = temperature > 0  # [B]
        self.any_stochastic = bool(self.stochastic.any())
        self.all_stochastic = bool(self.stochastic.all())
        self._maps = maps
        self.mapped = users([s.request.noise for s in sequences], self.stochastic)
        self.noisy = self.stochastic.copy()  # [B] whether Gumbel noise chooses the tokens
        for members in self.mapped.values():
            self.noisy &= ~members
        self._stochastic = self._tensor(self.stochastic)
        self._scaled = bool((self.stochastic & (temperature != 1)).any())
        self._inverse = self._tensor(
            np.where(self.stochastic, 1 / np.maximum(temperature, 1e-6), 1)
        )
        self._top_k = self._filter([s.top_k for s in settings], off=0, dtype=np.int64)
        self._top_p = self._filter([s.top_p for s in settings], off=1, dtype=np.float32)
        self._min_p = self._filter([s.min_p for s in settings], off=0, dtype=np.float32)
        self._filters = any(f is not None for f in (self._top_k, self._top_p, self._min_p))
        self._bias = self._bias_tensor([s.logit_bias for s in settings])
        self._minimum = np.array([s.request.sampling.min_tokens for s in sequences])
        self._any_minimum = bool(self._minimum.any())
        self._grammars = {b: s for b, s in enumerate(sequences) if s.grammar is not None}
        self._enders = [sorted(s.stop_tokens) for s in sequences]
        self._penalties = (
            Penalties(sequences, vocab_size, device)
            if any(s.has_penalties for s in settings)
            else None
        )

    def _tensor(self, values: object) -> torch.Tensor:
        array = np.asarray(values)
        return torch.from_numpy(
            array.astype(np.float32) if array.dtype == np.float64 else array
        ).to(self.device)

    def _filter(self, values: list[float], *, off: float, dtype: type) -> torch.Tensor | None:
        """[B], or None if no request uses this filter. Greedy requests ignore filters."""
        array = np.where(self.stochastic, np.array(values, dtype=dtype), dtype(off))
        return self._tensor(array) if (array != off).any() else None

    def _bias_tensor(self, biases: list[Mapping[int, float]]) -> torch.Tensor | None:
        if not any(biases):
            return None
        out = torch.zeros(len(biases), self.vocab_size, device=self.device)
        for row, bias in enumerate(biases):
            for token, value in bias.items():
                out[row, token] = value
        return out

    @property
    def has_grammars(self) -> bool:
        """Whether distributions depend on all earlier tokens by a grammar."""
        return bool(self._grammars)

    @property
    def counts_tokens(self) -> bool:
        """Whether distributions depend on the counts of earlier tokens (penalties)."""
        return self._penalties is not None

    @property
    def elementwise(self) -> bool:
        """Whether processing all nodes at once costs no more than processing the reached ones."""
        dear = self._filters and not (self.device.type == "cpu" and compiled())
        if self._penalties is not None or self._grammars:
            return False
        return not (self._any_minimum or dear or self.mapped)

    @property
    def simple(self) -> bool:
        """Whether `knobs` hold all options: no others that change logits, and no other map."""
        changed = self._penalties or self._any_minimum or self._bias is not None or self._grammars
        return not (changed or self.mapped)

    def observe(self, owners: Ints, tokens: Ints) -> None:
        """Count tokens [R] as generated by the requests `owners` [R]."""
        if self._penalties is not None and len(owners):
            self._penalties.add(owners, tokens, 1)

    def retract(self, owners: Ints, tokens: Ints) -> None:
        """Undo `observe`."""
        if self._penalties is not None and len(owners):
            self._penalties.add(owners, tokens, -1)

    def __call__(
        self,
        logits: torch.Tensor,
        owners: Ints,
        generated: Ints,
        ahead: torch.Tensor | None = None,
        paths: Several[Several[int]] | None = None,
    ) -> torch.Tensor:
        """Process rows of logits, except for filters, which `choose` and `probabilities` apply.

        Args:
            logits: [R, V] float32; left unchanged.
            owners: [R] the request of each row, as an index into the batch.
            generated: [R] tokens that request has generated before this position.
            ahead: [R, V] counts of tokens before this position that were not passed to `observe`,
                such as draft tokens; None: there are none.
            paths: [R] the draft tokens before this position; None: there are none. Read for
                requests with a grammar, whose rows stay as they are if their paths are not told.
        Returns:
            [R, V] float32 unnormalised log-probabilities, -inf where excluded. Rows of greedy
            requests are not divided by a temperature: their token is the argmax.
        """
        if self._grammars:
            logits = self._masked(logits, owners, generated, paths)
        if self._bias is not None:
            logits = logits + self._bias[self._index(owners)]
        if self._penalties is not None:
            logits = self._penalties(logits, self._index(owners), ahead)
        if self._any_minimum and (generated < self._minimum[owners]).any():
            logits = self._forbid_enders(logits, owners, generated)
        if self._scaled:
            logits = logits * self._inverse[self._index(owners)][:, None]
        return logits

    def _masked(
        self,
        logits: torch.Tensor,
        owners: Ints,
        generated: Ints,
        paths: Several[Several[int]] | None,
    ) -> torch.Tensor:
        """[R, V] with -inf for the tokens that a request's grammar does not allow."""
        rows, masks = [], []
        for row, (owner, count) in enumerate(zip(owners.tolist(), generated.tolist(), strict=True)):
            sequence = self._grammars.get(owner)
            if sequence is None or sequence.grammar is None:
                continue
            path = () if paths is None else paths[row]
            known = count == sequence.num_generated + len(path)
            mask = sequence.grammar.mask(path) if known else None
            if mask is not None:
                rows.append(row)
                masks.append(~mask)
        if not rows:
            return logits
        at = torch.tensor(rows, device=logits.device)
        refused = torch.from_numpy(np.stack(masks)).to(logits.device)
        return logits.index_copy(0, at, logits[at].masked_fill(refused, MINUS_INF))

    def _index(self, owners: Ints) -> torch.Tensor:
        return torch.from_numpy(owners).to(self.device)

    def _forbid_enders(self, logits: torch.Tensor, owners: Ints, generated: Ints) -> torch.Tensor:
        logits = logits.clone()
        for row in np.flatnonzero(generated < self._minimum[owners]).tolist():
            kept = logits[row, self._enders[owners[row]]]
            logits[row, self._enders[owners[row]]] = MINUS_INF
            if owners[row] in self._grammars and not torch.isfinite(logits[row]).any():
                logits[row, self._enders[owners[row]]] = kept  # its grammar allows only the end
        return logits

    def choose(
        self, values: torch.Tensor, noise: torch.Tensor | None, owners: Ints
    ) -> torch.Tensor:
        """The token of each row: argmax(log p + gumbel).

        In most rows the filters need no sort: if the argmax over all tokens passes the filters, it
        is also the argmax over the tokens that pass.

        Args:
            values: [R, V] from this processor.
            noise: [R, V] Gumbel noise; may be None if all requests are greedy.
        Returns:
            [R] int64.
        """
        if noise is None:
            return values.argmax(-1)
        if not self.all_stochastic:
            noise = noise * self._stochastic[self._index(owners)][:, None]
        tokens = (values + noise).argmax(-1)
        lost = self._lost(values, tokens, owners)
        if lost is not None:
            kept = self.filtered(values[lost], owners[lost.cpu().numpy()])
            tokens[lost] = (kept + noise[lost]).argmax(-1)
        return tokens

    def tokens(self, values: torch.Tensor, numbers: Numbers, store: NoiseStore) -> Ints:
        """[R] the tokens that the numbers determine; `TOKEN` numbers by each request's map."""
        if self.mapped and numbers.purpose is Purpose.TOKEN:
            return tokens_of(self, self._maps, self.mapped, values, numbers, store)
        return self.gumbel_tokens(values, numbers, store)

    def gumbel_tokens(self, values: torch.Tensor, numbers: Numbers, store: NoiseStore) -> Ints:
        """[R] the same as `choose`, with Gumbel noise of `numbers`; compiled where possible."""
        draw = store.draw(numbers)
        if draw is not None:
            return choose(draw, self.knobs, values)
        noise = store.rows(numbers) if self.any_stochastic else None
        chosen: Ints = self.choose(values, noise, numbers.owners).cpu().numpy()
        return chosen

    @cached_property
    def _log_min_p(self) -> torch.Tensor:
        """[B] logarithms of the min-p options."""
        assert self._min_p is not None
        return logarithms(self._min_p)

    @cached_property
    def knobs(self) -> Knobs:
        """The options in the form of the compiled kernels."""
        inverse = self._inverse.numpy() if self._scaled else None
        top_k = None if self._top_k is None else self._top_k.numpy()
        top_p = None if self._top_p is None else self._top_p.numpy()
        log_min_p = None if self._min_p is None else self._log_min_p.numpy()
        return Knobs(self.stochastic, inverse, top_k, top_p, log_min_p)

    def _lost(
        self, values: torch.Tensor, tokens: torch.Tensor, owners: Ints
    ) -> torch.Tensor | None:
        """[R] whether the filters may exclude a row's token; None if no row is affected."""
        if not self._filters:  # greedy requests have none
            return None
        lost = ~self._passes(values, tokens, self._index(owners))
        return lost if bool(lost.any()) else None

    def _passes(self, values: torch.Tensor, tokens: torch.Tensor, at: torch.Tensor) -> torch.Tensor:
        """[R] whether each row's token surely passes the filters."""
        value = values.gather(1, tokens[:, None])  # [R, 1]
        above = values > value
        passes = torch.ones_like(tokens, dtype=torch.bool)
        if self._top_k is not None:
            k = self._top_k[at]
            passes &= (k == 0) | (above.sum(-1) < k)
        if self._top_p is not None:
            passes &= (values.softmax(-1) * above).sum(-1) < self._top_p[at] - ROUNDING
        if self._top_k is not None and self._top_p is not None:
            passes &= (self._top_k[at] == 0) | (self._top_p[at] == 1)  # p counts within top-k
        if self._min_p is not None:
            passes &= value[:, 0] >= values.amax(-1) + self._log_min_p[at]
        return passes

    def filtered(self, values: torch.Tensor, owners: Ints) -> torch.Tensor:
        """[R, V] with -inf for the tokens that the filters exclude."""
        if not self._filters:
            return values
        at = self._index(owners)
        if self._top_k is not None:
            values = keep_top_k(values, self._top_k[at])
        if self._top_p is not None:
            values = keep_top_p(values, self._top_p[at])
        if self._min_p is not None:
            values = keep_min_p(values, self._min_p[at])
        return values

    def probabilities(self, values: torch.Tensor, owners: Ints) -> torch.Tensor:
        """[R, V] float32, rows sum to 1; a greedy request's row is one-hot."""
        at = self._index(owners)
        probs = self.filtered(values, owners).softmax(-1)
        if not self.all_stochastic:
            hot = torch.zeros_like(probs).scatter_(1, values.argmax(-1, keepdim=True), 1.0)
            probs = torch.where(self._stochastic[at][:, None], probs, hot)
        return probs
