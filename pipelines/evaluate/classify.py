"""Which classifier looks at the images, and what it sees in them."""

import json
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.storage import storage
from cluster.storage.checkpoints import fetched
from models.errors import PacelineError
from models.metrics.images.classifier import Classifier, accuracy, train
from models.metrics.images.classifier_file import (
    CONFIG,
    classifier_bytes,
    load_classifier,
    weights_hash,
)
from models.metrics.images.digits import LABELS, load_digits
from models.metrics.resample import Floats, proportional_order
from models.targets.load import pick_device
from pipelines.errors import InvalidInput
from pipelines.evaluate.config import AUTO, EvaluateConfig
from pipelines.evaluate.find import open_source
from pipelines.evaluate.samples import Images, Ints, Samples, label_numbers

DIGITS = "scikit-learn's handwritten digits"
FOLDER = "classifier"
MAX_TRAINING_ROWS = 20_000
SEED = 0  # of training: features must not change with the evaluation's seed


@dataclass(frozen=True, slots=True, kw_only=True)
class Seen:
    """Of the rows of a set: features [N, F], the classes seen [N]."""

    features: Floats
    classes: Ints


@dataclass(frozen=True, slots=True, kw_only=True)
class Judge:
    """A classifier and what is known of it."""

    model: Classifier
    facts: Mapping[str, Any]

    def look(self, images: Images, device: str) -> Seen:
        """What it sees."""
        where = pick_device(device)
        pixels = torch.from_numpy(np.ascontiguousarray(images)).to(where)
        features, classes = self.model.to(where).seen(pixels)
        return Seen(features=features.double().cpu().numpy(), classes=classes.cpu().numpy())

    def expected(self, samples: Samples) -> Ints:
        """The classes [N] of the labels that the rows were made for.

        Raises:
            InvalidInput: the classifier does not know a label.
        """
        assert samples.labels is not None
        _refuse_unknown(samples.labels, self.model.labels, whose=repr(samples.url))
        known = {label: i for i, label in enumerate(self.model.labels)}
        return np.array([known[label] for label in samples.labels], dtype=np.int64)

    def told(self) -> str:
        """One line about it."""
        return (
            f"of {self.facts['data']}, accuracy {self.facts['test_accuracy']:.1%} on "
            f"{self.facts['num_test']} images, weights {weights_hash(self.model)[:12]}"
        )

    def as_dict(self) -> dict[str, Any]:
        """What is known of it, for the report."""
        return {**self.facts, "weights_sha256": weights_hash(self.model)}

    def save(self, folder: str) -> None:
        """Write it where it will be found again."""
        for name, data in classifier_bytes(self.model, dict(self.facts)).items():
            storage.publish(storage.join(folder, name), data)


def find_judge(config: EvaluateConfig) -> Judge:
    """The classifier that the options ask for; `auto` uses the one that the output folder holds."""
    if config.classifier == AUTO:
        return _kept(config) or _of_digits()
    folder = _folder(config.classifier)
    if folder is None:
        return _of_images(config)
    model, facts = load_classifier(folder)
    return Judge(model=model, facts=_facts(facts))


def _folder(url: str) -> Path | None:
    """Where a classifier is on this machine; None where there is no classifier."""
    where = storage.normalize(url)
    if storage.file_size(storage.join(where, CONFIG)) is None:
        return None
    return Path(fetched(where))


def check_classifier(config: EvaluateConfig, labels: Collection[str]) -> None:
    """Refuse what `find_judge` finds no classifier by, or one without these labels; trains none.

    Raises:
        InvalidInput: it is no classifier and no labelled images, or does not know a label.
        UnsupportedCheckpoint: it cannot be loaded.
    """
    known: Sequence[str] = LABELS
    folder = None if config.classifier == AUTO else _folder(config.classifier)
    if folder is not None:
        known = load_classifier(folder)[0].labels
    elif config.classifier != AUTO:
        known = _labels(_labelled(config))
    whose = f"classifier {config.classifier!r}: the target"
    _refuse_unknown(labels, known, whose=whose)


def _refuse_unknown(labels: Collection[str], known: Sequence[str], *, whose: str) -> None:
    unknown = sorted(set(labels) - set(known))
    if unknown:
        told = f"{whose} has the label {unknown[0]!r}, which the classifier does not know"
        raise InvalidInput(f"{told}: it knows {', '.join(known[:12])}")


def _kept(config: EvaluateConfig) -> Judge | None:
    """The one of digits that an earlier run left in the output folder."""
    folder = None if config.output is None else _folder(storage.join(config.output, FOLDER))
    if folder is None:
        return None
    try:
        model, facts = load_classifier(folder)
    except PacelineError:
        return None
    return Judge(model=model, facts=_facts(facts)) if facts.get("data") == DIGITS else None


def _of_digits() -> Judge:
    training, test = load_digits()
    model = train(training.images, training.classes, LABELS, seed=SEED)
    score = accuracy(model, test.images, test.classes)
    return Judge(
        model=model, facts=_measured(DIGITS, len(training.images), len(test.images), score)
    )


def _labelled(config: EvaluateConfig) -> Samples:
    """The images to train a classifier on."""
    source = open_source(config.classifier, config)
    numbers = label_numbers(source.labels)[0]
    if not len(numbers):
        told = "has no labels: a classifier's folder or labelled images are needed"
        raise InvalidInput(f"classifier {config.classifier!r} {told}")
    order = proportional_order(numbers, np.random.default_rng(SEED))[:MAX_TRAINING_ROWS]
    rows = source.take(order)
    if rows.images is None or len(set(rows.labels or ())) < 2 or len(order) < 20:
        told = "20 labelled images or more, of two classes or more, are needed"
        raise InvalidInput(f"classifier {config.classifier!r}: {told}")
    return rows


def _labels(rows: Samples) -> tuple[str, ...]:
    return tuple(sorted(set(rows.labels or ()), key=lambda text: (len(text), text)))


def _of_images(config: EvaluateConfig) -> Judge:
    """Trained on four fifths of some labelled images, measured on the rest."""
    rows = _labelled(config)
    assert rows.images is not None
    images, labels = torch.from_numpy(np.ascontiguousarray(rows.images)), _labels(rows)
    classes = torch.tensor([labels.index(label) for label in rows.labels or ()])
    held_out = torch.arange(len(images)) % 5 == 0
    model = train(images[~held_out], classes[~held_out], labels, seed=SEED)
    score = accuracy(model, images[held_out], classes[held_out])
    num_test = int(held_out.sum())
    return Judge(
        model=model, facts=_measured(config.classifier, len(images) - num_test, num_test, score)
    )


def _measured(data: str, num_training: int, num_test: int, score: float) -> dict[str, Any]:
    return {
        "data": data,
        "num_training": num_training,
        "num_test": num_test,
        "test_accuracy": score,
        "seed": SEED,
    }


def _facts(config: Mapping[str, Any]) -> dict[str, Any]:
    """What a classifier's config says of its training, whatever it lacks."""
    unknown = {"data": "unknown data", "num_training": 0, "num_test": 0, "test_accuracy": 0.0}
    facts: dict[str, Any] = json.loads(json.dumps({**unknown, **config}))
    sizes = ("model_type", "size", "labels", "weights_sha256")
    return {name: value for name, value in facts.items() if name not in sizes}
