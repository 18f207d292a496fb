"""A transformers model that the ranks of a group hold together, as a target.

The first rank's adapter decides what the model runs; the others run the same tokens on their parts
(models/targets/split/adapted_parts.py).
"""

import weakref
from collections.abc import Iterable
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import DynamicCache

from models.targets.adapted.adapter import AdaptedTarget
from models.targets.decoder.config import eos_token_ids, read_configs
from models.targets.split.adapted_parts import load_part
from models.targets.split.group import Group
from models.targets.split.messages import KINDS, Run, Stop
from models.targets.split.plan import check_plan
from models.targets.split.wire import decode, encode


class AdaptedRank(AdaptedTarget):
    """One rank's part of a model; all ranks must run the same tokens in the same order."""

    def __init__(
        self, model: Any, group: Group, *, num_parameters: int, eos_token_ids: tuple[int, ...]
    ) -> None:
        super().__init__(model, eos_token_ids=eos_token_ids)
        self.group, self.num_parameters = group, num_parameters

    def follow(self) -> None:
        """Run what the first rank runs, until it says that there is no more.

        Raises RuntimeError if the first rank's process ends.
        """
        pasts: dict[int, DynamicCache] = {}
        while not isinstance(message := decode(self.group.hear(), KINDS), Stop):
            for key in message.dropped:
                del pasts[key]
            past = None
            if message.key is not None:
                past = pasts.setdefault(message.key, DynamicCache())
                if beyond := past.get_seq_length() - message.length:
                    past.crop(-beyond)
            self._forward(message.tokens.tolist(), past, states=False)


class LeadingAdapted(AdaptedRank):
    """A target: the first rank's part of a model, and the other ranks behind it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        self._leads = False  # every rank runs the adapter's first passes by itself
        super().__init__(*arguments, **options)
        self._leads = True
        self._keys: weakref.WeakKeyDictionary[DynamicCache, int] = weakref.WeakKeyDictionary()
        self._next, self._dropped = count(), list[int]()

    def _forward(self, tokens: Iterable[int], past: DynamicCache | None, *, states: bool) -> Any:
        tokens = list(tokens)
        if self._leads:
            self.group.tell(encode(self._run_of(tokens, past)))
        return super()._forward(tokens, past, states=states)

    def _run_of(self, tokens: list[int], past: DynamicCache | None) -> Run:
        key, length = None, 0
        if past is not None:
            key, length = self._key_of(past), past.get_seq_length()
        dropped = tuple(self._dropped)
        del self._dropped[: len(dropped)]
        return Run(key=key, length=length, tokens=np.array(tokens, np.int64), dropped=dropped)

    def _key_of(self, past: DynamicCache) -> int:
        """The other ranks know a row's cache by a number."""
        if past not in self._keys:
            self._keys[past] = next(self._next)
            weakref.finalize(past, self._dropped.append, self._keys[past])
        return self._keys[past]

    def stop(self) -> None:
        """Let the other ranks end."""
        self.group.tell(encode(Stop()))


def load_adapted_rank(
    path: Path,
    group: Group,
    *,
    dtype: torch.dtype,
    device: torch.device,
    make: type[AdaptedRank] = AdaptedRank,
) -> AdaptedRank:
    """This rank's part of a checkpoint.

    `make`: AdaptedRank, or LeadingAdapted on the first rank.

    Raises:
        InvalidOption: the model cannot be split over so many ranks.
        UnsupportedCheckpoint: as `load_adapted` does.
    """
    check_plan(path, group.size)
    raw, generation = read_configs(path)
    model, count = load_part(path, raw, group, dtype=dtype)
    ends = eos_token_ids(raw, generation)
    return make(model.to(device), group, num_parameters=count, eos_token_ids=ends)
