"""What the laws foresee of a run in the real loop: training and decoding must agree.

Under `match`, a run's tokens are the target's whatever the drafter is. So the laws of target and
drafter on just these tokens say how many rounds the run takes: exactly at temperature 0, in the
mean and with a known variance at temperature 1.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch

from models.drafting.distil.exam import Played
from models.drafting.distil.texts import Text
from models.metrics.rounds import rounds_of
from models.training.kind import SCORE

AGREES = "loop_agrees"  # 1: the loop needs the rounds that the laws foresee; 0: it does not
DEVIATIONS = 4.0  # of the number of rounds that chance explains
PART = 8  # texts at once
ROUNDED = 0.02  # of the rounds that rounding explains: where two tokens are nearly as likely


@dataclass(frozen=True, slots=True, kw_only=True)
class Foreseen:
    """The rounds of texts by the laws: their mean, and its standard deviation."""

    tokens: int
    rounds: float
    deviation: float

    @property
    def length(self) -> float:
        """Tokens per round."""
        return self.tokens / self.rounds

    def agrees(self, rounds: int) -> bool:
        """Whether a run that took so many rounds is explained."""
        explained = DEVIATIONS * self.deviation + ROUNDED * self.rounds + 1
        return abs(rounds - self.rounds) <= explained


# (texts, temperature) -> the chances [B, N, K] of drafts, and the lengths [B, N] of rounds
Laws = Callable[[Sequence[Text], float], tuple[torch.Tensor, torch.Tensor]]


def compared(
    figures: Mapping[str, float], played: Mapping[int, Played], laws: Laws
) -> dict[str, float]:
    """An exam's figures, with those of runs at temperatures 0 and 1, and the score.

    `figures`: by the laws on texts that the target wrote at temperature 1.
    """
    found, loops, agree = dict(figures), list[float](), True
    for temperature, run in played.items():
        expected, every = _of_run(run.texts, float(temperature), laws)
        loop = run.figures
        found[f"accepted_length_t{temperature}"] = loop.accepted_length
        found[f"foreseen_length_t{temperature}"] = expected.length
        # at temperature 1, the figures have it already, of more texts
        found.setdefault(f"length_by_laws_t{temperature}", every)
        loops.append(loop.accepted_length)
        agree &= expected.agrees(loop.round_rows)
    score = (found["length_by_laws_t0"] + found["length_by_laws_t1"]) / 2
    if not agree:
        score = min(score, sum(loops) / len(loops))
    return found | {AGREES: float(agree), SCORE: score}


def _of_run(texts: Sequence[Text], temperature: float, laws: Laws) -> tuple[Foreseen, float]:
    """What is foreseen, and the mean length of a round from every place of the texts."""
    parts, lengths = list[Foreseen](), list[torch.Tensor]()
    for begin in range(0, len(texts), PART):
        some = texts[begin : begin + PART]
        chances, each = laws(some, temperature)
        parts.append(foreseen(chances, some))
        lengths.append(each[~each.isnan()])
    found = Foreseen(
        tokens=sum(part.tokens for part in parts),
        rounds=sum(part.rounds for part in parts),
        deviation=sum(part.deviation**2 for part in parts) ** 0.5,
    )
    every = torch.cat(lengths)
    return found, float(every.mean()) if len(every) else found.length


def foreseen(chances: torch.Tensor, texts: Sequence[Text]) -> Foreseen:
    """What [B, N, K] chances, by the place of a chain's first token, mean for B texts."""
    each = [
        rounds_of(own[text.num_prompt : len(text.tokens)])
        for own, text in zip(chances, texts, strict=True)
    ]
    means, variances = zip(*each, strict=True)
    return Foreseen(
        tokens=sum(text.num_places for text in texts),
        rounds=sum(means),
        deviation=sum(variances) ** 0.5,
    )
