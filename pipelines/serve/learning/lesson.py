"""What a round of training is told; sent to its process as a JSON file."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.storage import storage

FILE = "lesson.json"
IDLE = 19
ROWS = 4096  # the newest, of which a round chooses


@dataclass(frozen=True, slots=True, kw_only=True)
class Course:
    """How a server teaches its drafter.

    `nice`: of its process; IDLE: only what other processes leave of the cores.
    `every`: new rows that start a round. `steps` of `batch` texts each; the texts are the newest
    `learned`. `held_out`: requests that a round is judged by; `least_held_out`: fewer judge none.
    """

    every: int = 256
    steps: int = 64
    batch: int = 16
    learned: int = 1024
    rate: float = 3e-4
    length: int = 256
    held_out: int = 64
    least_held_out: int = 8
    save_every: int = 16
    nice: int = IDLE


COURSE = Course()


@dataclass(frozen=True, slots=True, kw_only=True)
class Lesson:
    """`present`: the drafter in use. `start`: what the training goes on from, often the same.

    `rows`: the folder of recorded requests. `depth`: of chains. `number`: of the round.
    """

    target: str
    digest: str  # of the target
    present: str
    start: str
    rows: str
    depth: int
    number: int
    course: Course

    def write(self, folder: Path) -> None:
        """For the process that trains in this folder."""
        storage.publish(str(folder / FILE), json.dumps(asdict(self), indent=1).encode() + b"\n")


def read_lesson(folder: Path) -> Lesson:
    """What `write` wrote."""
    values: dict[str, Any] = json.loads((folder / FILE).read_text(encoding="utf-8"))
    return Lesson(**{**values, "course": Course(**values["course"])})
