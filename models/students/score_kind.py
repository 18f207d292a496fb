"""Distilled Decoding 2 as a kind of training: the student's laws are drawn to the teacher's.

The student makes images from noise. At every place, given the tokens before it, the law of its code
is compared with the teacher's, both seen through noise. The means of a noised vector have closed
forms under both; the law of the student's own tokens is learned by the critic, a second network.
The difference of the means is the gradient of the divergence of the noised laws, up to a positive
factor. No pairs of noise and images are needed: the student finds a map from noise to images
itself.
Source: Liu et al. 2025, Distilled Decoding 2, with the gradient of Wang et al. 2023 (arXiv
2305.16213). Differences: earlier places are read as tokens, because rows hold tokens; the critic's
law is one over codes, and vectors are held near them; the student starts as independent sampling
and the critic as the teacher, so the paper's first stage falls away.
Letters: B samples of a worker, n tokens of an image, V vocabulary, C width, M draws of noise.
"""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from models.batch import Ints
from models.metrics.energy import energy_distance
from models.sampling.flow import FlowMap
from models.sampling.noise import Purpose, normals, row_keys, uniform
from models.students.checkpoint import save_student
from models.students.networks.critic import Critic
from models.students.networks.generator import Generator
from models.students.noised import mean_given, noised, velocity
from models.students.pairs import Laws, Records
from models.students.sample import first_guesses, image_noise
from models.students.starts import known_places, starts_of
from models.training.kind import LOSS, SCORE, Samples

TURNS = 3  # steps of the critic in each step of the student
DRAWS = 2  # of noise for each vector
PULL = 0.25  # of a vector to the nearest code
EARLIEST = 0.1  # time of a noised vector
EXAM_BATCH = 64
EXAM_POINTS = 2**12  # patches of each side, at most


@dataclass(frozen=True, slots=True, kw_only=True)
class Made:
    """Images that the student made, seen through noise.

    Places before `starts` hold tokens that it was given.
    """

    classes: torch.Tensor  # [B]
    tokens: torch.Tensor  # [B, n] as rows hold them
    starts: torch.Tensor  # [B]
    vectors: torch.Tensor  # [B, n, C]
    noise: torch.Tensor  # [M, B, n, C]
    times: torch.Tensor  # [M, B, n, 1]

    @property
    def unknown(self) -> torch.Tensor:
        """[B, n] the places that the student decided."""
        return ~known_places(self.starts, self.tokens.shape[1])

    @property
    def seen(self) -> torch.Tensor:
        """[M, B, n, C] the noised vectors."""
        return noised(self.vectors, self.noise, self.times)


class ScoreKind:
    """An `AlternatingKind` (models/training/alternating.py)."""

    turns = TURNS

    def __init__(
        self,
        student: Generator,
        critic: Critic,
        laws: Laws,
        records: Records,
        *,
        seed: int = 0,
        kept: int = 0,
        tokenizer: Path | None = None,
    ) -> None:
        """`laws`, `kept`: as of `StudentKind`. `records`: what it may go on from."""
        self.model, self.second = student, critic
        self._laws, self._records, self._seed = laws, records, seed
        self._tokenizer, self._chart = tokenizer, FlowMap(student.codebook)
        self.num_records = len(records) - kept

    def weight(self, samples: Samples) -> float:
        """The places that the student decides."""
        starts = starts_of(samples.numbers, self._seed, self.model.config.bounds)
        return float((self._records.tokens.shape[1] - starts).sum())

    def losses(self, model: nn.Module, samples: Samples) -> dict[str, torch.Tensor]:
        """Half of the squared distance of the two means, and PULL times that to the nearest code.

        Both are summed over places. The first's gradient by a vector is the mean under the critic
        minus the mean under the teacher. The second keeps vectors where they are seen as codes.
        """
        made = self._made(model, samples, TURNS)
        with torch.no_grad():
            seen, times, codes = made.seen, made.times, self.model.codebook
            laws = self._laws(made.classes, made.tokens)
            wanted = mean_given(laws, codes, seen, times)
            followed = self.second(made.classes, made.tokens, made.starts)
            own = mean_given(followed, codes, seen, times)
            away = (own - wanted).mean(0)  # [B, n, C]
            goal = made.vectors - away
        far = (made.vectors - goal).square().sum(-1) / 2
        off = (made.vectors - codes[made.tokens]).square().sum(-1) / 2
        return {LOSS: ((far + PULL * off) * made.unknown).sum()}

    def second_losses(
        self, model: nn.Module, samples: Samples, turn: int
    ) -> dict[str, torch.Tensor]:
        """Of the critic `model`: the squared error of the velocity, and the tokens' cross-entropy.

        Both are summed over places; the first is a mean over times.
        """
        with torch.no_grad():
            made = self._made(self.model, samples, turn)
        logits = model(made.classes, made.tokens, made.starts)
        seen, times = made.seen, made.times
        found = velocity(mean_given(logits, self.model.codebook, seen, times), seen, times)
        error = (found - (made.noise - made.vectors)).square().sum(-1).mean(0)  # [B, n]
        entropy = F.cross_entropy(logits.flatten(0, 1), made.tokens.flatten(), reduction="none")
        return {LOSS: ((error + entropy.view_as(error)) * made.unknown).sum()}

    @torch.no_grad()
    def exam(self, model: nn.Module) -> dict[str, float]:
        """The energy distance of its images to the records kept for it, by patches of codes."""
        kept = np.arange(self.num_records, len(self._records))
        if len(kept) < 2:
            return {}
        points = [
            self._drawn(model, kept[first : first + EXAM_BATCH])
            for first in range(0, len(kept), EXAM_BATCH)
        ]
        shown = self._points(self._given(kept)[1])
        some = _some(len(shown)).to(shown.device)
        found = energy_distance(torch.cat(points)[some], shown[some])
        return {"distance": found, SCORE: -found}

    def export(self, model: nn.Module, folder: Path) -> None:
        """A student's folder with the target's image tokenizer."""
        assert isinstance(model, Generator)
        save_student(model, folder, tokenizer=self._tokenizer)

    def _made(self, model: nn.Module, samples: Samples, turn: int) -> Made:
        """Images for one turn; all noise depends on the numbers of samples, turn and seed."""
        classes, tokens = self._given(samples.records)
        device = tokens.device
        starts = starts_of(samples.numbers, self._seed, self.model.config.bounds).to(device)
        owners = np.full(len(classes), self._seed)
        keys = row_keys(owners, samples.numbers, Purpose.TRAINING, 1 + turn)
        images = (keys >> np.uint64(1)).astype(np.int64)  # seeds of the images
        length, width = tokens.shape[1], self._chart.width
        noise = image_noise(images, length, width).to(device)
        guesses = first_guesses(self._chart, self.model.prior, classes, noise)
        vectors = model(classes, tokens, noise, guesses, starts)
        shape = (DRAWS, *tokens.shape)
        keys = row_keys(
            np.tile(np.repeat(images, length), DRAWS),
            np.tile(np.arange(length), DRAWS * len(images)),
            Purpose.TRAINING,
            np.repeat(np.arange(DRAWS), len(images) * length),
        )
        chance = torch.from_numpy(uniform(keys)).float().view(*shape, 1)
        times = EARLIEST + (1 - EARLIEST) * chance
        return Made(
            classes=classes,
            tokens=self.model.rounded(vectors, tokens, starts),
            starts=starts,
            vectors=vectors,
            noise=normals(keys, width).float().view(*shape, width).to(device),
            times=times.to(device),
        )

    def _drawn(self, model: nn.Module, records: Ints) -> torch.Tensor:
        """Images of the records' classes, from the records' seeds, as points."""
        assert isinstance(model, Generator)
        classes, given = self._given(records)
        noise = image_noise(self._records.seeds[records], given.shape[1], self._chart.width)
        noise = noise.to(given.device)
        guesses = first_guesses(self._chart, model.prior, classes, noise)
        tokens = model.decide(classes, given, noise, guesses, torch.zeros_like(classes))
        return self._points(tokens)

    def _given(self, records: Ints) -> tuple[torch.Tensor, torch.Tensor]:
        """Classes [B] and tokens [B, n] of records, on the student's device."""
        device, chosen = self.model.prior.device, torch.from_numpy(records)
        return self._records.classes[chosen].to(device), self._records.tokens[chosen].to(device)

    def _points(self, tokens: torch.Tensor) -> torch.Tensor:
        """[., F] patches of 2 x 2 codes of all images; of images of one row, the whole row."""
        config = self.model.config
        grid = self.model.codebook[tokens].unflatten(1, (config.grid_height, -1))  # [B, h, w, C]
        high, wide = (2, 2) if config.grid_height > 1 else (1, config.grid_width)
        patches = grid.unfold(1, high, 1).unfold(2, wide, 1)  # [B, ., ., C, high, wide]
        points: torch.Tensor = patches.flatten(3).flatten(0, 2)
        return points


def _some(count: int) -> torch.Tensor:
    """At most EXAM_POINTS numbers below `count`, by chance, but the same in every exam."""
    order = torch.randperm(count, generator=torch.Generator().manual_seed(0))
    return order[:EXAM_POINTS].sort().values
