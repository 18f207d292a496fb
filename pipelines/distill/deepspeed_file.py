"""`--deepspeed FILE.json`: what of DeepSpeed's configuration a training honours."""

import json
from collections.abc import Mapping
from typing import Any

from cluster.storage import storage
from models.errors import InvalidOption
from models.training.engines.replicas import CLIP

STAGES = (0, 1, 2, 3)
AUTO = "auto"  # stands for whatever the training sets
ZERO, BF16, PARTS = "zero_optimization", "bf16", "gradient_accumulation_steps"
BATCH, MICRO, CLIPPING = (
    "train_batch_size",
    "train_micro_batch_size_per_gpu",
    "gradient_clipping",
)
UNTESTED = "zero_allow_untested_optimizer"
KNOWN = (ZERO, BF16, PARTS, BATCH, MICRO, CLIPPING, UNTESTED)
REASONS = {
    "optimizer": "the optimizer is AdamW; --rate sets its peak rate",
    "scheduler": "the rate rises and falls with the step; --rate sets its peak",
    "fp16": "weights are float32, or bf16 with float32 masters",
}


def read_deepspeed(path: str, *, batch: int, workers: int) -> dict[str, Any]:
    """The file's configuration, without values `auto`.

    Args:
        path: of a JSON file. batch: samples of a step. workers: that share them.

    Raises:
        InvalidOption: something in it cannot be honoured.
        StorageError: it cannot be read.
    """
    data = storage.read_bytes(storage.normalize(path))
    try:
        raw = json.loads(data)
    except ValueError as error:
        raise InvalidOption("deepspeed", path, f"a JSON file is needed: {error}") from error
    if not isinstance(raw, dict):
        raise InvalidOption("deepspeed", path, "it must hold an object, {...}")
    told = {name: value for name, value in raw.items() if value != AUTO}
    _check_names(told, path)
    _check_zero(told, path)
    _check_batch(told, path, batch=batch, workers=workers)
    if told.get(CLIPPING, CLIP) != CLIP:
        raise _refused(path, CLIPPING, told[CLIPPING], f"gradients are clipped at {CLIP}")
    if told.get(UNTESTED, True) is not True:
        raise _refused(path, UNTESTED, told[UNTESTED], "it must be true for torch's AdamW")
    return told


def is_half(told: Mapping[str, Any] | None) -> bool:
    """Whether passes run in bf16, which changes more than the order of sums."""
    return bool((told or {}).get(BF16, {}).get("enabled", False))


def _check_names(told: Mapping[str, Any], path: str) -> None:
    for name, value in told.items():
        if name in KNOWN:
            continue
        if isinstance(value, dict) and value.get("enabled") is False:
            continue
        known = f"accepted are {', '.join(KNOWN)}"
        raise _refused(path, name, value, REASONS.get(name, known))


def _check_zero(told: Mapping[str, Any], path: str) -> None:
    zero, half = told.get(ZERO, {}), told.get(BF16, {})
    for name, value in ((ZERO, zero), (BF16, half)):
        if not isinstance(value, dict):
            raise _refused(path, name, value, "an object, {...}")
    stage = zero.get("stage", 0)
    if stage not in STAGES or type(stage) is not int:
        raise _refused(path, f"{ZERO}.stage", stage, f"one of {', '.join(map(str, STAGES))}")
    for name, value in zero.items():
        wanted = value.get("device") if isinstance(value, dict) else value
        if "offload" in name and wanted not in (None, False, "none"):
            raise _refused(path, f"{ZERO}.{name}", value, "weights and moments are not offloaded")
    if half.get("enabled", False) and stage == 0:
        raise _refused(path, f"{BF16}.enabled", True, f"{ZERO}.stage 1, 2 or 3 beside it")


def _check_batch(told: Mapping[str, Any], path: str, *, batch: int, workers: int) -> None:
    if told.get(BATCH, batch) != batch:
        raise _refused(path, BATCH, told[BATCH], f"--train-batch is {batch}")
    parts = told.get(PARTS, 1)
    if type(parts) is not int or parts < 1:
        raise _refused(path, PARTS, parts, "a whole number, 1 or more")
    if batch % (workers * parts):
        needed = f"--train-batch {batch} is not {workers} workers x {parts} parts x a whole number"
        raise _refused(path, PARTS, parts, needed)
    micro = batch // workers // parts
    if told.get(MICRO, micro) != micro:
        needed = f"{batch} samples / {workers} workers / {parts} parts are {micro}"
        raise _refused(path, MICRO, told[MICRO], needed)


def _refused(path: str, name: str, value: Any, needed: str) -> InvalidOption:
    return InvalidOption("deepspeed", path, f"{name} is {json.dumps(value)}: {needed}")
