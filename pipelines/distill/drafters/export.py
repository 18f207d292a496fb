"""`paceline distill export`: a run's drafter in the layout of another server."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from cluster.errors import StorageError
from cluster.storage import storage
from cluster.storage.checkpoints import present
from cluster.storage.outgoing import written
from models.drafting.folder_kind import ABOUT, EAGLE, folder_kind
from models.drafting.heads.eagle_export import write_eagle
from models.drafting.heads.eagle_layouts import read_eagle
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.requests.request import require
from pipelines.engine_options import located
from pipelines.errors import OutputRefused
from pipelines.generate.fingerprint import checkpoint_digest

AS_IT_IS = "paceline"
FORMATS = (AS_IT_IS, "speculators", "sglang")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """A run's drafter, and where it goes: `output`, or RUN/export-FORMAT; local or s3://.

    `target`: where the drafter's target is now, if it is no longer where it was.
    """

    run: str
    format: str
    output: str | None = None
    target: str | None = None

    def __post_init__(self) -> None:
        require(self.format in FORMATS, "format", self.format, f"one of {', '.join(FORMATS)}")
        ok = self.target is None or self.format != AS_IT_IS
        require(ok, "target", self.target, f"none with format={AS_IT_IS}, which reads no target")


def export(config: ExportOptions) -> str:
    """Write the drafter; returns its folder's path or URL.

    Raises:
        InvalidOption: the kind of drafter has no such layout, or its target is not there.
        UnsupportedCheckpoint: the run has no drafter, the layout cannot hold it, or the target is
            another one.
        OutputRefused: the folder is not empty.
        StorageError: the drafter cannot be read or written.
    """
    run = storage.normalize(config.run)
    made = storage.join(run, "export")
    if storage.file_size(storage.join(made, ABOUT)) is None:
        told = "a run of `paceline distill drafter` that has ended is needed"
        raise UnsupportedCheckpoint(f"{config.run!r} has no export/{ABOUT}: {told}")
    output = storage.normalize(config.output or storage.join(run, f"export-{config.format}"))
    if storage.file_size(output) is not None or storage.list_files(output):
        raise OutputRefused(f"output {output!r} is not empty; choose another folder")
    drafter = Path(present(made))
    with written(output) as folder:
        _write(config, drafter, folder)
    return output


def _write(config: ExportOptions, drafter: Path, folder: Path) -> None:
    if config.format == AS_IT_IS:
        shutil.copytree(drafter, folder, dirs_exist_ok=True)
        return
    if folder_kind(drafter) != EAGLE:
        told = f"{AS_IT_IS}: only EAGLE-3 drafters have a layout of their own; servers take others"
        raise InvalidOption("format", config.format, f"{told} as they are")
    about = json.loads((drafter / ABOUT).read_text(encoding="utf-8"))
    target = _target_of(config, about["target"])
    head = read_eagle(drafter, target)
    write_eagle(head, folder, layout=config.format, target=target, draft_tokens=int(about["depth"]))


def _target_of(config: ExportOptions, told: dict[str, Any]) -> Path:
    """The target's folder; `told`: what the drafter says of it."""
    found = _present(told["path"]) if config.target is None else present(config.target)
    target = Path(located(found))
    if not target.is_dir():
        needed = f"the folder of the drafter's target, which is not at {str(target)!r}"
        raise InvalidOption("target", config.target, needed)
    digest = checkpoint_digest(str(target))
    if digest != told["digest"]:
        raise UnsupportedCheckpoint(
            f"the drafter was made for the target {told['path']!r} (digest {told['digest'][:12]}), "
            f"not for {str(target)!r} (digest {digest[:12]}): give its own as --target"
        )
    return target


def _present(target: str) -> str:
    """What was fetched from S3 on another machine is fetched here, too, if it is still there."""
    try:
        return present(target)
    except StorageError:
        return target
