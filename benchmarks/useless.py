"""Drafters that are no use: what does it cost to have one?"""

import shutil
from collections.abc import Sequence as Several
from pathlib import Path

import numpy as np
import torch
from transformers import AutoConfig, AutoModelForCausalLM

from models.batch import Ints
from models.drafting.draft import Draft, Shape, chain_draft
from models.drafting.drafter import DraftContext, useful_depth
from models.requests.sequence import Sequence
from models.verify.round import Commit, Round


class UniformGuesser:
    """Any token, at no cost."""

    name = "uniform guesses"
    max_width = 1
    passes = 0
    remote = False
    transfer_s = 0.0
    bytes_per_entry = 0
    wants = None

    def __init__(self, vocab_size: int) -> None:
        self._vocab_size, self._random = vocab_size, np.random.default_rng(0)

    def propose(
        self, sequences: Several[Sequence], shape: Shape, context: DraftContext
    ) -> list[Draft]:
        """Chains of the size that was asked for."""
        return [chain_draft(self._guess(useful_depth(s, shape))) for s in sequences]

    def _guess(self, count: int) -> Ints:
        return self._random.integers(0, self._vocab_size, count)

    def observe(self, round_: Round, commits: Several[Commit]) -> None:
        """Learns nothing."""

    def forget(self, request_id: str) -> None:
        """Remembers nothing."""


def save_random_draft(draft: str, folder: Path) -> str:
    """A model of the draft's shape and tokenizer, with weights as they were before training."""
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(draft))
    model.save_pretrained(folder)
    tokenizer = Path(draft) / "tokenizer.json"
    if tokenizer.exists():
        shutil.copy(tokenizer, folder)
    return str(folder)
