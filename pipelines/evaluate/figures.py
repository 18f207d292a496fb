"""The figures that a set of rows allows, ready to be measured; and why others cannot be had."""

from collections.abc import Callable, Iterator, Mapping
from functools import cached_property, partial

import numpy as np
import torch

from models.metrics.catalogue import METRICS
from models.metrics.compare import Measure
from models.metrics.images.classifier import resized
from models.metrics.images.frechet import FrechetDistance
from models.metrics.images.kernel import KernelDistance
from models.metrics.images.neighbours import Distances
from models.metrics.likelihood import Likelihood
from models.metrics.resample import Floats
from models.metrics.rowwise import ClassEntropy, Mean
from models.metrics.tables import PositionEntropy, TableDistance, bigrams, positions
from pipelines.errors import InvalidInput
from pipelines.evaluate.choose import Sets
from pipelines.evaluate.classify import Judge, Seen, find_judge
from pipelines.evaluate.config import EvaluateConfig
from pipelines.evaluate.samples import Images, Ints
from pipelines.evaluate.teacher import Teacher

PIXELS = 8  # height and width, at most, for distances of pixels


def split(sets: Sets, config: EvaluateConfig) -> tuple[list[str], dict[str, str]]:
    """(the figures to measure, why the others cannot be had).

    Raises:
        InvalidInput: one of the latter was asked for by name, or none is left.
    """
    why = {name: _lack(about.needs, sets, config) for name, about in METRICS.items()}
    for name in config.metrics:
        if why[name]:
            raise InvalidInput(f"{name} cannot be measured: {why[name]}")
    wanted = config.metrics or tuple(METRICS)
    names = [name for name in METRICS if name in wanted and not why[name]]
    if not names:
        raise InvalidInput(f"nothing can be measured: {'; '.join(sorted(set(why.values())))}")
    return names, {name: why[name] for name in METRICS if name in wanted and why[name]}


def _lack(needs: str, sets: Sets, config: EvaluateConfig) -> str:
    """Why a figure with these needs cannot be had; empty if it can."""
    pool = (sets.samples, sets.floor)
    if needs in ("images", "labels") and any(part.images is None for part in sets.all()):
        url = next(part.url for part in sets.all() if part.images is None)
        return f"{url!r} has no images (column {config.image_field!r})"
    if needs == "labels":
        bare = [part.url for part in pool if part.labels is None]
        return f"{bare[0]!r} has no labels (column {config.label_field!r})" if bare else ""
    if needs == "teacher" and config.teacher is None:
        return "no --teacher is given"
    if needs in ("tokens", "grids", "teacher"):
        held = pool if needs == "teacher" else sets.all()
        bare = [part.url for part in held if part.tokens is None]
        if bare:
            return f"{bare[0]!r} has no tokens (column {config.tokens_field!r})"
    if needs == "grids":
        lengths = {len(row) for part in sets.all() for row in part.tokens or ()}
        return "" if len(lengths) == 1 else "rows have different numbers of tokens"
    return ""


class Figures:
    """Makes figures of the sets; what several of them need is computed once."""

    def __init__(self, sets: Sets, config: EvaluateConfig) -> None:
        self.sets, self.config = sets, config
        self.makers: Mapping[str, Callable[[], Measure]] = {
            "fd-clf": lambda: FrechetDistance(*self.features),
            "fd-pixel": lambda: FrechetDistance(*self._pixels()),
            "kd-clf": lambda: KernelDistance(*self.features),
            "precision": lambda: self.distances.precision,
            "recall": lambda: self.distances.recall,
            "accuracy": lambda: Mean(self._right()),
            "label-entropy": lambda: ClassEntropy(self._classes()),
            "token-tv": lambda: self._tables(positions),
            "bigram-tv": lambda: self._tables(bigrams),
            "token-entropy": lambda: PositionEntropy(self._tokens()[: self._num_pool]),
            "nll": lambda: Mean(self.likelihood.nll, self.likelihood.counts),
            "nll-excess": lambda: Mean(
                self.likelihood.nll - self.likelihood.expected, self.likelihood.counts
            ),
        }

    @cached_property
    def judge(self) -> Judge:
        """The classifier."""
        return find_judge(self.config)

    @cached_property
    def seen(self) -> tuple[Seen, Seen, Seen]:
        """What it sees in the samples, the floor and the reference."""
        look = partial(self.judge.look, device=self.config.device)
        samples, floor, reference = self._images()
        return look(samples), look(floor), look(reference)

    @cached_property
    def features(self) -> tuple[Floats, Floats]:
        """Of the pool and of the reference."""
        samples, floor, reference = (seen.features for seen in self.seen)
        return np.concatenate([samples, floor]), reference

    @cached_property
    def distances(self) -> Distances:
        """Between the features."""
        return Distances(*self.features, k=self.config.neighbours)

    @cached_property
    def likelihood(self) -> Likelihood:
        """Of the pool's tokens."""
        assert self.config.teacher is not None
        teacher = Teacher(self.config.teacher, self.config)
        found = [teacher.read(part) for part in (self.sets.samples, self.sets.floor)]
        return Likelihood(
            nll=np.concatenate([part.nll for part in found]),
            expected=np.concatenate([part.expected for part in found]),
            counts=np.concatenate([part.counts for part in found]),
        )

    @property
    def _num_pool(self) -> int:
        return self.sets.samples.num_rows + self.sets.floor.num_rows

    def _images(self) -> Iterator[Images]:
        for part in self.sets.all():
            assert part.images is not None
            yield part.images

    def _pixels(self) -> tuple[Floats, Floats]:
        channels = min(images.shape[1] for images in self._images())
        samples, floor, reference = (_pixels(images, channels) for images in self._images())
        return np.concatenate([samples, floor]), reference

    def _right(self) -> Floats:
        pairs = zip((self.sets.samples, self.sets.floor), self.seen, strict=False)
        right = [seen.classes == self.judge.expected(part) for part, seen in pairs]
        return np.concatenate(right).astype(np.float64)

    def _classes(self) -> Ints:
        samples, floor, _ = (seen.classes for seen in self.seen)
        return np.concatenate([samples, floor])

    def _tokens(self) -> list[Ints]:
        return [row for part in self.sets.all() for row in part.tokens or ()]

    def _tables(self, cells: Callable[[list[Ints]], tuple[Ints, Ints]]) -> TableDistance:
        owner, found = cells(self._tokens())
        num_reference = self.sets.reference.num_rows
        return TableDistance(owner, found, num_pool=self._num_pool, num_reference=num_reference)


def _pixels(images: Images, channels: int) -> Floats:
    """[N, D] of images [N, C, H, W]."""
    size = (channels, min(PIXELS, images.shape[2]), min(PIXELS, images.shape[3]))
    small = resized(torch.from_numpy(np.ascontiguousarray(images)), size)
    flat: Floats = small.flatten(1).double().numpy()
    return flat
