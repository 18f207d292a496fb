"""What can be checked before Ray is imported: models, drafters, lengths, keys and the port."""

import socket
from collections.abc import Sequence
from pathlib import Path

from models.errors import InvalidOption, UnsupportedCheckpoint
from models.registry import NONE
from models.requests.request import require
from models.students.about import is_student
from models.targets.split.check import check_ranks
from pipelines.generate.bounds import check_drafter
from pipelines.generate.student import check_drafting_student, check_made_for
from pipelines.modality.choose import modality
from pipelines.serve.config import ServeConfig
from pipelines.serve.door.access import read_key_hashes
from pipelines.serve.learning.check import check_learning


def check(configs: Sequence[ServeConfig]) -> None:
    """What can be checked before anything starts; the port only where Ray runs on this machine.

    Raises:
        InvalidOption, UnsupportedCheckpoint.
    """
    for config in configs:
        if config.student is None:
            _check_target(config)
        else:
            check_student(config, config.student)
    check_learning(configs)
    if configs[0].api_key_file is not None:
        read_key_hashes(configs[0].api_key_file)
    if configs[0].address is None:
        check_port(configs[0])


def check_student(config: ServeConfig, student: str) -> None:
    """Raise unless the folder holds a student, of the target, which takes so many steps."""
    if config.target != student:
        check_made_for(student, config.target)
    most = max_steps(student)
    require(config.steps <= most, "steps", config.steps, f"1 to {most}")


def max_steps(student: str) -> int:
    """The passes that a student may take for an image. Raises UnsupportedCheckpoint."""
    from models.students.checkpoint import load_student

    return 1 + len(load_student(student).config.bounds)


def _check_target(config: ServeConfig) -> None:
    if is_student(config.target):
        raise InvalidOption("target", config.target, "it is a student: give it as --student")
    served = modality(config.target)
    if served.kind == "images" and config.drafter != NONE:
        _check_image_drafter(config)
    if served.kind == "text" and not (Path(config.target) / "tokenizer.json").exists():
        raise UnsupportedCheckpoint(f"{config.target!r} has no tokenizer.json, which serving needs")
    limits, longest = served.limits, config.max_length
    context = limits.context_length
    if longest is not None and (longest < 2 or (context and longest > context)):
        most = f" to the target's context of {context}" if context else " or more"
        raise InvalidOption("max_length", longest, f"2{most}")
    check_drafter(config, limits)
    check_ranks(config.target, config.tensor_parallel)
    check_drafting_student(config.drafter, config.target)


def _check_image_drafter(config: ServeConfig) -> None:
    """Raise InvalidOption unless a draft model can guess the images."""
    from models.registry import is_draft_model
    from models.tokenizers.about import image_target

    about = image_target(config.target)
    assert about is not None, "it generates images"
    told = f"none: {config.target!r} writes whole maps at once, with nothing to guess ahead"
    require(about.in_order, "drafter", config.drafter, told)
    told = f"none, or a draft model of {config.target!r}, which generates images"
    require(is_draft_model(config.drafter), "drafter", config.drafter, told)


def check_port(config: ServeConfig) -> None:
    """Raise InvalidOption if nothing can listen there on this machine."""
    with socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host.strip("[]"), config.port))
        except OSError as error:
            told = f"a free one; {config.host}:{config.port} cannot be used: {error.strerror}"
            raise InvalidOption("port", config.port, told) from error
