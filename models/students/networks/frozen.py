"""A student that has learned: its passes run like a target's, with the compiled kernels.

So an image depends on its class and seed alone, to the bit, and a pass takes less time than with
the network that is trained. Letters as in raster.py.
"""

import numpy as np
import torch

from models.batch import Batch
from models.compute.linear import Scratch, make_linear
from models.memory.cache import KVCache
from models.students.networks.raster import DATA, NOISE, Student
from models.students.starts import known_places
from models.targets.decoder.decoder import Decoder
from models.targets.decoder.weights import assemble


class FrozenStudent:
    """A student's passes, without gradients; a call is `Student.forward`. Not thread-safe."""

    def __init__(self, student: Student) -> None:
        """`student` must not change afterwards."""
        self.config, self.prior, self.codebook = student.config, student.prior, student.codebook
        config, state = student.raster.config.decoder(), student.raster.state_dict()
        state["model.codebook"] = student.codebook
        dtype, device = torch.float32, student.codebook.device
        weights = assemble(config, lambda name: state[name], dtype=dtype, device=device)
        self._decoder = Decoder(config, weights, dtype=dtype, device=device)
        kinds, noise = student.kind.weight.detach(), student.noise_proj
        self._noise = make_linear(noise.weight.detach(), noise.bias.detach(), Scratch())
        self._data, self._unknown = kinds[DATA], kinds[NOISE]  # [D]
        self._cache: KVCache | None = None
        self.num_parameters = sum(weight.numel() for weight in student.parameters())

    @torch.inference_mode()
    def __call__(
        self,
        classes: torch.Tensor,
        tokens: torch.Tensor,
        noise: torch.Tensor,
        guesses: torch.Tensor,
        starts: torch.Tensor,
        until: int | None = None,
    ) -> torch.Tensor:
        """See `Student.forward`: [B, until, V] float32 logits."""
        rows, count = len(classes), tokens.shape[1] if until is None else until
        known = known_places(starts, count - 1)  # [B, n - 1]
        ids = tokens[:, : count - 1].where(known, guesses[:, : count - 1])
        told = self._noise(noise[:, : count - 1].flatten(0, 1)).view(rows, count - 1, -1)
        more = torch.where(known[..., None], self._data, told + self._unknown)
        first = (classes + self.config.vocab_size)[:, None]
        x = self._decoder.embed(torch.cat([first, ids], dim=1))  # [B, n, D]
        x[:, 1:] += more
        batch = Batch(
            rows=np.arange(rows),
            counts=np.full(rows, count, dtype=np.int64),
            tokens=np.zeros(rows * count, dtype=np.int64),
            depths=np.tile(np.arange(count), rows),
            visible=(None,) * rows,
        )
        logits = self._decoder.score_inputs(self._room(rows), batch, x.flatten(0, 1)).logits
        return logits.view(rows, count, -1)

    def _room(self, rows: int) -> KVCache:
        """A cache with empty rows; what is in it is of no use to a later pass."""
        if self._cache is None or self._cache.rows < rows:
            self._cache = self._decoder.new_cache(rows, self.config.num_tokens)
        return self._cache
