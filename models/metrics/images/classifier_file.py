"""Reads and writes classifier folders (config.json, model.safetensors), with a weights hash."""

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors.torch import load, save

from models.errors import UnsupportedCheckpoint
from models.metrics.images.classifier import Classifier
from models.targets.decoder.config import read_json

MODEL_TYPE = "paceline_classifier"
WEIGHTS, CONFIG = "model.safetensors", "config.json"


def weights_hash(model: Classifier) -> str:
    """SHA-256 of the weights, in the order of their names, as little-endian float32."""
    digest = hashlib.sha256()
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(name.encode())
        digest.update(tensor.cpu().numpy().astype(np.dtype("<f4")).tobytes())
    return digest.hexdigest()


def classifier_bytes(model: Classifier, facts: dict[str, Any]) -> dict[str, bytes]:
    """The content of the folder's files. `facts` (accuracy, data, seed) go to config.json."""
    config = {
        "model_type": MODEL_TYPE,
        "size": list(model.size),
        "labels": list(model.labels),
        "weights_sha256": weights_hash(model),
        **facts,
    }
    tensors = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    return {CONFIG: json.dumps(config, indent=1).encode() + b"\n", WEIGHTS: save(tensors)}


def load_classifier(folder: Path) -> tuple[Classifier, dict[str, Any]]:
    """A classifier and its config.

    Raises:
        UnsupportedCheckpoint: a file is missing, damaged or not a classifier.
    """
    config = read_json(folder / CONFIG)
    if config.get("model_type") != MODEL_TYPE:
        found = config.get("model_type")
        raise UnsupportedCheckpoint(f"{folder}: model_type {found!r} is no {MODEL_TYPE}")
    try:
        channels, height, width = (int(number) for number in config["size"])
        labels = tuple(str(label) for label in config["labels"])
        model = Classifier((channels, height, width), labels)
        model.load_state_dict(load((folder / WEIGHTS).read_bytes()))
    except (OSError, SafetensorError, RuntimeError, KeyError, TypeError, ValueError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UnsupportedCheckpoint(f"{folder} holds no whole classifier: {reason}") from error
    if weights_hash(model) != config.get("weights_sha256"):
        raise UnsupportedCheckpoint(f"{folder}: the weights' hash is not weights_sha256's")
    return model.eval(), config
