"""Whether a folder holds a student, and of which target. Loads no torch."""

import json
from pathlib import Path
from typing import Any

MODEL_TYPE = "paceline_student"  # of a raster target
SCALE_MODEL_TYPE = "paceline_scale_student"  # of a next-scale target


def is_student(folder: str | Path) -> bool:
    """Whether the folder's config.json is a student's."""
    return student_config(folder) is not None


def student_config(folder: str | Path) -> dict[str, Any] | None:
    """The object in the config.json of a student; None if the folder holds none."""
    try:
        raw = json.loads((Path(folder) / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return None
    of_student = isinstance(raw, dict) and raw.get("model_type") in (MODEL_TYPE, SCALE_MODEL_TYPE)
    return raw if of_student else None
