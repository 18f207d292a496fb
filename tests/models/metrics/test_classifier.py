"""The classifier of digits: accuracy, repeatability, its files."""

import json
from pathlib import Path

import pytest
import torch

from models.errors import UnsupportedCheckpoint
from models.metrics.images import classifier as module
from models.metrics.images.classifier import accuracy, resized, train
from models.metrics.images.classifier_file import classifier_bytes, load_classifier, weights_hash
from models.metrics.images.digits import LABELS, load_digits

SHIPPED = Path(__file__).parents[3] / "examples" / "models" / "digits-classifier"


@pytest.fixture(scope="module")
def digits():
    return load_digits()


@pytest.fixture(scope="module")
def model():
    """The one that ships."""
    return load_classifier(SHIPPED)[0]


def test_the_split_is_fixed_and_fair(digits):
    training, test = digits
    assert (len(training.images), len(test.images)) == (1442, 355)
    assert float(training.images.min()) == 0
    assert float(training.images.max()) == 1
    assert torch.bincount(test.classes).min() >= 34


def test_it_knows_digits(model, digits):
    _, test = digits
    _, facts = load_classifier(SHIPPED)
    found = accuracy(model, test.images, test.classes)
    assert found == pytest.approx(facts["test_accuracy"])
    assert found >= 0.98


def test_it_learns_them_in_seconds(digits, monkeypatch):
    training, test = digits
    monkeypatch.setattr(module, "EPOCHS", 3)
    found = train(training.images, training.classes, LABELS)
    assert accuracy(found, test.images, test.classes) >= 0.93
    assert float(found.seen(training.images)[0].square().mean()) == pytest.approx(1, rel=1e-4)


def test_features_and_classes_of_many_images(model, digits):
    _, test = digits
    features, classes = model.seen(test.images, batch=100)
    assert features.shape == (355, 64)
    assert torch.equal(model(test.images).argmax(-1), classes)


def test_images_of_other_sizes_and_colours(model, digits):
    _, test = digits
    large = test.images.repeat_interleave(3, 2).repeat_interleave(3, 3).expand(-1, 3, -1, -1)
    torch.testing.assert_close(resized(large, (1, 8, 8)), test.images)
    assert accuracy(model, large, test.classes) >= 0.97
    assert resized(test.images, (3, 4, 4)).shape == (355, 3, 4, 4)


def test_the_same_seed_gives_the_same_weights(digits, monkeypatch):
    monkeypatch.setattr(module, "EPOCHS", 2)
    training, _ = digits
    images, classes = training.images[:200], training.classes[:200]
    torch.manual_seed(1)
    first = weights_hash(train(images, classes, LABELS, seed=3))
    torch.manual_seed(2)
    assert weights_hash(train(images, classes, LABELS, seed=3)) == first
    assert weights_hash(train(images, classes, LABELS, seed=4)) != first


def test_files_bring_it_back(model, tmp_path):
    for name, data in classifier_bytes(model, {"test_accuracy": 0.98}).items():
        (tmp_path / name).write_bytes(data)
    assert sum(path.stat().st_size for path in tmp_path.iterdir()) < 300_000
    again, config = load_classifier(tmp_path)
    assert config["test_accuracy"] == 0.98
    assert config["weights_sha256"] == weights_hash(model) == weights_hash(again)
    images = torch.rand(5, 1, 8, 8)
    assert torch.equal(again(images), model(images))


@pytest.mark.parametrize(
    ("name", "change", "message"),
    [
        ("config.json", None, "config.json is missing"),
        ("config.json", {"model_type": "llama"}, "model_type 'llama' is no paceline_classifier"),
        ("config.json", {"labels": ["a", "b"]}, "no whole classifier: Error"),
        ("config.json", {"size": "big"}, "no whole classifier"),
        ("config.json", {"weights_sha256": "0"}, "the weights' hash is not"),
        ("model.safetensors", None, "no whole classifier: .*No such file"),
        ("model.safetensors", b"broken", "no whole classifier"),
    ],
)
def test_damaged_folders_are_refused(model, tmp_path, name, change, message):
    for file, data in classifier_bytes(model, {}).items():
        (tmp_path / file).write_bytes(data)
    path = tmp_path / name
    if change is None:
        path.unlink()
    elif isinstance(change, bytes):
        path.write_bytes(change)
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | change))
    with pytest.raises(UnsupportedCheckpoint, match=message):
        load_classifier(tmp_path)
