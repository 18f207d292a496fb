"""Whether the rows of `--data` are of the target and of the distributions that are learned.

Output folders of `paceline generate` say what made them; other rows are taken as they are.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from models.students.config import MadeFor
from pipelines.errors import InvalidInput
from pipelines.generate.fingerprint import FORMAT
from pipelines.output.manifest import JOB

# The target's own distributions. Which random numbers chose the tokens does not matter.
UNCHANGED: Mapping[str, object] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "logit_bias": {},
}


def check_rows(files: Sequence[str], target: MadeFor, needed: Mapping[str, object] = {}) -> None:
    """Refuse rows that another target made, or this one with other settings than `needed`.

    Raises:
        InvalidInput: the message has both values.
    """
    for folder in dict.fromkeys(Path(file).parent for file in files):
        if (folder / JOB).is_file():
            _check(folder, json.loads((folder / JOB).read_text("utf-8")), target, needed)


def _check(
    folder: Path, job: Mapping[str, Any], target: MadeFor, needed: Mapping[str, object]
) -> None:
    if job["format"] != FORMAT:  # its digests cannot be compared
        return
    if job["target"] != target.digest:
        told = f"made by a model with the digest {job['target'][:12]}"
        raise InvalidInput(f"data {str(folder)!r} was {told}, not by the target {target}")
    for name, value in needed.items():
        found = job["settings"].get(name, value)
        if found != value:
            told = f"{name}={found!r}; rows made with {name}={value!r} are needed"
            raise InvalidInput(f"data {str(folder)!r} was made with {told}")
