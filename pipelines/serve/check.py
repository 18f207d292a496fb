"""What can be checked before Ray is imported: the target, the drafter, lengths and the port."""

import socket
from pathlib import Path

from models.errors import InvalidOption, UnsupportedCheckpoint
from models.targets.split.check import check_ranks
from pipelines.generate.bounds import check_drafter, has_draft_model
from pipelines.generate.student import check_drafting_student
from pipelines.modality.choose import modality
from pipelines.serve.config import ServeConfig


def check(config: ServeConfig) -> None:
    """What can be checked before anything starts.

    Raises:
        InvalidOption, UnsupportedCheckpoint.
    """
    served = modality(config.target)
    if served.kind == "images" and config.drafter != "none":
        told = f"none: {config.target!r} generates images, which are served without drafts"
        raise InvalidOption("drafter", config.drafter, told)
    if served.kind == "text" and not (Path(config.target) / "tokenizer.json").exists():
        raise UnsupportedCheckpoint(f"{config.target!r} has no tokenizer.json, which serving needs")
    limits, longest = served.limits, config.max_length
    context = limits.context_length
    if longest is not None and (longest < 2 or (context and longest > context)):
        most = f" to the target's context of {context}" if context else " or more"
        raise InvalidOption("max_length", longest, f"2{most}")
    has_draft_model(config)
    check_drafter(config, limits)
    check_ranks(config.target, config.tensor_parallel)
    check_drafting_student(config.drafter, config.target)
    with socket.socket(socket.AF_INET6 if ":" in config.host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((config.host.strip("[]"), config.port))
        except OSError as error:
            told = f"a free one; {config.host}:{config.port} cannot be used: {error.strerror}"
            raise InvalidOption("port", config.port, told) from error
