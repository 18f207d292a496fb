"""A student in the place of the target: what a generate job may ask of it."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.errors import InvalidOption
from models.registry import GUMBEL
from models.requests.request import require
from pipelines.engine_options import reserved_cpus

if TYPE_CHECKING:
    from actors.pool.students import StudentPool
    from actors.student import Mix
    from pipelines.generate.config import GenerateConfig

# What the student has learned with, so that another value cannot be honoured.
_LEARNED: Mapping[str, object] = {
    "temperature": 1.0,
    "top_p": 1.0,
    "top_k": 0,
    "min_p": 0.0,
    "logit_bias": {},
    "logprobs": None,
    "decoder": None,
    "drafter": "none",
    "draft_actors": 0,
    "max_target_actors": None,
    "tensor_parallel": 1,
    "verify": "match",
    "dtype": "float32",
}


def with_target(values: Mapping[str, Any]) -> dict[str, Any]:
    """Options as a user gives them, with a student's folder in the target's place.

    Raises:
        UnsupportedCheckpoint: a target is given, too, and the student was made for another one.
    """
    student, target = values.get("student"), values.get("target")
    if student is None:
        return dict(values)
    if target not in (None, student):
        check_made_for(student, str(target))
    return {**values, "target": student}


def check_drafting_student(drafter: str, target: str) -> None:
    """Raise UnsupportedCheckpoint if the drafter is a student of another target."""
    from models.students.about import is_student

    if is_student(drafter):
        check_made_for(drafter, target)


def check_made_for(student: str, target: str) -> None:
    """Raise UnsupportedCheckpoint unless the student was made for this target."""
    from models.students.checkpoint import load_student
    from models.students.config import MadeFor
    from pipelines.generate.fingerprint import checkpoint_digest

    found = MadeFor(path=target, digest=checkpoint_digest(target))
    load_student(student).config.refuse_another(found)


def check_student(config: "GenerateConfig") -> None:
    """Refuse what a student cannot do; without one, a student as the target.

    Raises:
        InvalidOption: the option and what would be accepted.
        UnsupportedCheckpoint: the folder holds no student.
    """
    from models.students.about import is_student
    from models.students.checkpoint import load_student

    if config.student is None:
        if is_student(Path(config.target)):
            raise InvalidOption("target", config.target, "it is a student: give it as --student")
        return
    require(config.target == config.student, "target", config.target, "the student's folder")
    made = load_student(config.student).config
    for name, learned in _LEARNED.items():
        value = getattr(config, name)
        require(value == learned, name, value, f"only {learned!r} with a student")
    require(config.noise == GUMBEL, "noise", config.noise, "no map: a student has its own")
    told = f"{made.guidance}, with which the student has learned"
    require(config.guidance in (None, made.guidance), "guidance", config.guidance, told)
    require(config.device != "cuda", "device", config.device, "auto or cpu with a student")
    most = 1 + len(made.bounds)
    require(config.steps <= most, "steps", config.steps, f"1 to {most}")
    if config.teacher is not None and config.teacher_tokens is not None:
        check_made_for(config.student, config.teacher)
        first, last = teacher_range(config.teacher_tokens)
        cuts = (0, *made.bounds, made.num_tokens)  # where a pass of the student may begin or end
        single = len(cuts) == cuts[-1] + 1
        told = f"0 to {cuts[-1]}" if single else "of " + ", ".join(map(str, cuts))
        ok = first < last and {first, last} <= set(cuts)
        require(ok, "teacher_tokens", config.teacher_tokens, f"A:B with A below B, both {told}")


def teacher_range(given: str) -> tuple[int, int]:
    """(A, B) of the option `teacher_tokens`. Raises InvalidOption."""
    match = re.fullmatch(r"(\d+):(\d+)", given)
    if match is None:
        raise InvalidOption("teacher_tokens", given, "A:B with A below B, numbers of tokens")
    return int(match[1]), int(match[2])


def student_pool(config: "GenerateConfig") -> "StudentPool":
    """The actors that make the images."""
    from actors.pool.students import StudentPool

    assert config.student is not None
    return StudentPool.start(
        str(Path(config.student).absolute()),
        steps=config.steps,
        actors=config.target_actors,
        batch_size=config.batch_size,
        threads=config.threads,
        num_cpus=reserved_cpus(config),
        mix=_mix(config),
    )


def _mix(config: "GenerateConfig") -> "Mix | None":
    from actors.student import Mix

    if config.teacher is None or config.teacher_tokens is None:
        return None
    first, last = teacher_range(config.teacher_tokens)
    teacher = str(Path(config.teacher).absolute())
    return Mix(teacher=teacher, first=first, last=last, batch_size=config.batch_size)
