"""Drafters that the evaluation shows beside the trained one: whether they can draft for the target.

The evaluation comes after hours of training, which is too late to find that out.
"""

from dataclasses import dataclass

from cluster.storage.checkpoints import present
from models.drafting.folder_kind import MODEL, folder_kind
from models.engine import build_drafter
from models.engine_config import EngineConfig
from models.errors import InvalidOption
from models.registry import is_folder
from models.targets.limits import read_limits
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.generate.bounds import check_drafter
from pipelines.generate.student import check_drafting_student


@dataclass(frozen=True, slots=True, kw_only=True)
class _Shown:
    """A `Drafting` of pipelines/generate/bounds.py."""

    target: str
    drafter: str
    max_length: int = 1  # see `_check_context`


def check_beside(config: DrafterOptions, *, longest: int) -> None:
    """Refuse what cannot draft for the target; fetches drafters that are on S3.

    `longest`: tokens of a prompt and its output in the evaluation, at most.

    Raises:
        InvalidOption: there is no such drafter, or its context is too short.
        UnsupportedCheckpoint: it does not fit the target.
        StorageError: it cannot be fetched.
    """
    for name in config.beside:
        try:
            found = is_folder(folder := present(name))
        except InvalidOption as error:
            raise error.named("beside") from None
        if found:
            _check_folder(config, name, folder, longest)


def _check_folder(config: DrafterOptions, name: str, folder: str, longest: int) -> None:
    check_drafter(_Shown(target=config.target, drafter=folder), read_limits(config.target))
    check_drafting_student(folder, config.target)
    _check_context(name, folder, longest)
    engine = EngineConfig(
        target=config.target,
        drafter=folder,
        batch_size=1,
        device="cpu",
        guidance=1.0 if config.guidance is None else config.guidance,
    )
    build_drafter(engine, None, longest)  # its tensors have the last word


def _check_context(name: str, folder: str, longest: int) -> None:
    """With the options that decide the length here, which `check_drafter` does not know."""
    room = read_limits(folder).context_length if folder_kind(folder) == MODEL else None
    if room and room < longest:
        told = f"a drafter with a context of {longest} tokens or more, not {room}"
        raise InvalidOption("beside", name, f"{told}; or smaller length and exam_tokens")
