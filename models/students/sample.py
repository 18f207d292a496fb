"""Images from a student: first guesses, then one or more passes with the same noise.

Letters: B images, n tokens of an image, V vocabulary, C width of a code.
"""

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch

from models.batch import Ints
from models.sampling.flow import FlowMap, flow_noise
from models.students.config import StudentConfig
from models.students.networks.generator import Generator
from models.students.networks.two_head import TwoHeadStudent
from models.students.scale_config import ScaleStudentConfig


class Passes(Protocol):
    """A student by `flow-map`: a `Student` that is trained, or a `FrozenStudent`."""

    prior: torch.Tensor  # [K, n, V]

    @property
    def config(self) -> StudentConfig | ScaleStudentConfig: ...

    def __call__(
        self,
        classes: torch.Tensor,
        tokens: torch.Tensor,
        noise: torch.Tensor,
        guesses: torch.Tensor,
        starts: torch.Tensor,
        until: int | None = None,
    ) -> torch.Tensor:
        """See `Student.forward`."""


Images = Passes | TwoHeadStudent | Generator


def image_noise(seeds: Sequence[int] | Ints, num_tokens: int, width: int) -> torch.Tensor:
    """The noise of images' places: [B, n, C] float32, a function of seed and place.

    The class of an image is at position 0 of its sequence, so its first token is at position 1.
    """
    owners = np.repeat(np.asarray(seeds, dtype=np.int64), num_tokens)
    positions = np.tile(np.arange(1, num_tokens + 1), len(seeds))
    return flow_noise(owners, positions, width).view(len(seeds), num_tokens, width)


def first_guesses(
    chart: FlowMap, prior: torch.Tensor, classes: torch.Tensor, noise: torch.Tensor
) -> torch.Tensor:
    """[B, n] tokens drawn from the prior [K, n, V] by the noise [B, n, C], each by itself.

    Logarithms are the CPU's, so that guesses are the same with students on any device.
    """
    laws = prior[(classes % len(prior)).to(prior.device)].cpu()
    return tokens_of(chart, laws.log(), noise).to(classes.device)


@torch.inference_mode()
def sample(
    student: Images, chart: FlowMap, classes: torch.Tensor, noise: torch.Tensor, steps: int = 1
) -> torch.Tensor:
    """Images in `steps` passes.

    The pass k decides an equal share of the places (or of the maps) from the tokens decided so far
    and from the noise of all others, which is the same in every pass. It computes no later places.

    Args:
        classes: [B] int64. noise: [B, n, C]. steps: 1 to n, or to the number of maps.
    Returns:
        tokens [B, n] int64.
    """
    count = noise.shape[1]
    guesses = first_guesses(chart, student.prior, classes, noise)
    tokens, cuts = guesses.clone(), (0, *student.config.bounds, count)
    for k in range(steps):
        start, end = (cuts[(len(cuts) - 1) * at // steps] for at in (k, k + 1))
        tokens = _decide(student, chart, classes, noise, guesses, tokens, start, end)
    return tokens


@torch.inference_mode()
def finish(
    student: Images,
    chart: FlowMap,
    classes: torch.Tensor,
    noise: torch.Tensor,
    tokens: torch.Tensor,
    start: int,
) -> torch.Tensor:
    """Decide the tokens [B, n] from the place `start` on, in one pass; see `sample`."""
    end = noise.shape[1]
    if start == end:
        return tokens
    guesses = first_guesses(chart, student.prior, classes, noise)
    tokens = torch.cat([tokens[:, :start], guesses[:, start:]], dim=1)
    return _decide(student, chart, classes, noise, guesses, tokens, start, end)


def _decide(
    student: Images,
    chart: FlowMap,
    classes: torch.Tensor,
    noise: torch.Tensor,
    guesses: torch.Tensor,
    tokens: torch.Tensor,
    start: int,
    end: int,
) -> torch.Tensor:
    """A pass that decides tokens from `start` to the one before `end` at least."""
    starts = torch.full_like(classes, start)
    if isinstance(student, TwoHeadStudent):
        return student.decide(classes, tokens, noise, starts)
    if isinstance(student, Generator):
        return student.decide(classes, tokens, noise, guesses, starts)
    logits = student(classes, tokens, noise, guesses, starts, end)[:, start:]
    tokens[:, start:end] = tokens_of(chart, logits, noise[:, start:end])
    return tokens


def tokens_of(chart: FlowMap, logits: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
    """Logits [B, n, V] and noise [B, n, C] -> tokens [B, n]."""
    return chart.of_logits(logits.flatten(0, 1), noise.flatten(0, 1)).view(logits.shape[:2])
