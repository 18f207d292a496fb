"""How good a drafter is: chances by its laws on the target's texts, and the real loop.

Letters: M places, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch

from models.drafting.distil.texts import Text
from models.engine import build_loop
from models.engine_config import EngineConfig
from models.loop.figures import Figures
from models.metrics.agreement import acceptance, agreement
from models.registry import drafter_entry
from models.requests.request import Request, Sampling
from models.targets.target import Target


@dataclass(frozen=True, slots=True, kw_only=True)
class Trial:
    """A run in the real loop: the prompts of `texts`, `max_tokens` each, one after the other.

    `depth`: of the chains; 0: plain decoding. Drafters with a window have their own length.
    `guidance`: scale of classifier-free guidance. `seed`: of the first text; the others follow.
    """

    target: str
    texts: Sequence[Text]
    depth: int
    max_tokens: int = 48
    batch_size: int = 1
    threads: int | None = None
    guidance: float = 1.0
    seed: int = 0

    def run(self, drafter: str, temperature: float, target: Target | None = None) -> Figures:
        """The figures with a drafter; the tokens are the same with any that goes with `match`."""
        return self.play(drafter, temperature, target).figures

    def play(self, drafter: str, temperature: float, target: Target | None = None) -> "Played":
        """The same with what the target wrote."""
        sized = self.depth and not drafter_entry(drafter).window
        longest = max(text.num_prompt for text in self.texts) + self.max_tokens
        loop = build_loop(
            EngineConfig(
                target=self.target,
                drafter=drafter,
                draft_tokens=self.depth if sized else "auto",
                batch_size=self.batch_size,
                max_length=longest,
                threads=self.threads,
                guidance=self.guidance,
            ),
            target=target,
        )
        sampling = Sampling(temperature=temperature, max_tokens=self.max_tokens)
        requests = [
            Request(id=str(i), prompt=text.tokens[: text.num_prompt], sampling=sampling, seed=i)
            for i, text in enumerate(self.texts, start=self.seed)
        ]
        loop.run(requests[:1])  # what is prepared once
        loop.reset_figures()
        found = {result.id: result.tokens for result in loop.run(requests)}
        texts = [
            Text(tokens=(*asked.prompt, *found[asked.id]), num_prompt=len(asked.prompt))
            for asked in requests
        ]
        return Played(figures=loop.figures(), texts=tuple(texts))


@dataclass(frozen=True, slots=True, kw_only=True)
class Played:
    """A run's figures, and its prompts with what was written."""

    figures: Figures
    texts: tuple[Text, ...]


def played(trial: Trial, drafter: Path, target: Target | None = None) -> dict[int, Played]:
    """Runs with a drafter at temperatures 0 and 1."""
    return {t: trial.play(str(drafter), float(t), target) for t in (0, 1)}


def sums(log_p: torch.Tensor, log_q: torch.Tensor, same: torch.Tensor) -> torch.Tensor:
    """[3] the sums of J, alpha and G over laws [M, V] of target and drafter.

    `same` [M]: whether their likeliest tokens are the same.
    """
    parts = agreement(log_p, log_q), acceptance(log_p, log_q), same
    return torch.stack([part.double().sum() for part in parts])
