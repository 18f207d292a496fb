"""Training pairs: a target's images, each with noise that the flow map carries to its tokens.

The tokens may have been drawn with any noise. Given tokens and laws, noise is drawn from its
conditional distribution, by solving the flow from the tokens to the noise. So the pair of noise and
tokens has the distribution that decoding with the flow map gives, and nothing but
{class, seed, tokens} has to be stored.
Letters: N images, B of them, n tokens of an image, V vocabulary, C width of a code.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from models.batch import Ints
from models.sampling.flow import FlowMap
from models.sampling.noise import Purpose, normals, row_keys
from models.students.sample import first_guesses

TRIES = 8
GROUP_NUMBERS = 2**19  # of the laws [B, n, V] of a group
KEPT_NUMBERS = 2**28  # of the laws [N, n, V] of all records, 1 GiB: more are computed again
# (classes [B], tokens [B, n]) -> the teacher's logits [B, n, V]
Laws = Callable[[torch.Tensor, torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Records:
    """Images of a target: classes [N], tokens [N, n] and seeds [N]."""

    classes: torch.Tensor
    tokens: torch.Tensor
    seeds: Ints

    def __len__(self) -> int:
        return len(self.classes)


@dataclass(frozen=True, slots=True, kw_only=True)
class Pairs:
    """Records with their noise [N, n, C] float32 and the first guesses [N, n] that it leads to.

    In the CPU's memory, as the records are. `logits`: the teacher's [N, n, V] float32, or None
    where they take too much memory.
    """

    records: Records
    noise: torch.Tensor
    guesses: torch.Tensor
    logits: torch.Tensor | None

    def __len__(self) -> int:
        return len(self.records)

    def parts(self) -> list[torch.Tensor]:
        """What the sum over workers completes."""
        return [self.noise, self.guesses, *([] if self.logits is None else [self.logits])]


def group_size(num_tokens: int, vocab_size: int) -> int:
    """Images whose pairs are made together: always the same ones, so that they have equal bits."""
    return max(1, GROUP_NUMBERS // (num_tokens * vocab_size))


def make_pairs(
    records: Records,
    laws: Laws,
    chart: FlowMap,
    prior: torch.Tensor,
    *,
    rank: int = 0,
    world: int = 1,
    done: Callable[[int], object] = lambda images: None,
) -> Pairs:
    """The pairs of all records.

    Worker `rank` of `world` makes every `world`-th group and leaves zeros for the others, so that
    the sum over workers is what one worker would make. `done` gets the number of images made.
    """
    count, length = records.tokens.shape
    noise = torch.zeros(count, length, chart.width)
    guesses = torch.zeros(count, length, dtype=torch.int64)
    shape = count, length, chart.vocab_size
    kept = torch.zeros(shape) if math.prod(shape) <= KEPT_NUMBERS else None
    size = group_size(length, chart.vocab_size)
    for first in range(rank * size, count, world * size):
        some = slice(first, first + size)
        classes, tokens = records.classes[some], records.tokens[some]
        logits = laws(classes, tokens).cpu()
        if kept is not None:
            kept[some] = logits
        noise[some] = noise_of(logits, tokens, records.seeds[some], chart)
        guesses[some] = first_guesses(chart, prior, classes, noise[some])
        done(len(classes))
    return Pairs(records=records, noise=noise, guesses=guesses, logits=kept)


def noise_of(
    logits: torch.Tensor, tokens: torch.Tensor, seeds: Ints, chart: FlowMap
) -> torch.Tensor:
    """Noise [B, n, C] float32 that the map carries to the tokens under these laws.

    Where a token is missed because the map is solved in a finite number of steps, noise is drawn
    again, TRIES times in all. What is left then (tokens of tiny probability) stays as it is.

    Args:
        logits: [B, n, V]. tokens: [B, n] int64. seeds: [B], of the images.
    """
    length = tokens.shape[1]
    probs, wanted = logits.double().softmax(-1).flatten(0, 1), tokens.flatten()
    owners = np.repeat(np.asarray(seeds, dtype=np.int64), length)
    positions = np.tile(np.arange(1, length + 1), len(seeds))
    noise = torch.zeros(len(wanted), chart.width)
    left = torch.arange(len(wanted))
    for attempt in range(1, TRIES + 1):
        at = left.numpy()
        keys = row_keys(owners[at], positions[at], Purpose.FLOW, attempt)
        found = chart.noise_of(probs[left], wanted[left], normals(keys, chart.width))
        noise[left] = found.float()
        left = left[chart(probs[left], noise[left]) != wanted[left]]
        if len(left) == 0:
            break
    return noise.view(*tokens.shape, chart.width)
