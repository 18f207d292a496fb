"""`paceline distill export`: a run's drafter in the layout of another server."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from cluster.storage import storage
from cluster.storage.checkpoints import fetched, present
from cluster.storage.outgoing import written
from models.drafting.folder_kind import ABOUT, EAGLE, folder_kind
from models.drafting.heads.eagle_export import write_eagle
from models.drafting.heads.eagle_layouts import read_eagle
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.requests.request import require
from pipelines.errors import OutputRefused

FORMATS = ("paceline", "speculators", "sglang")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """A run's drafter, and where it goes: `output`, or RUN/export-FORMAT; both local or s3://."""

    run: str
    format: str
    output: str | None = None

    def __post_init__(self) -> None:
        require(self.format in FORMATS, "format", self.format, f"one of {', '.join(FORMATS)}")


def export(config: ExportOptions) -> str:
    """Write the drafter; returns its folder's path or URL.

    Raises:
        InvalidOption: the kind of drafter has no such layout.
        UnsupportedCheckpoint: the run has no drafter, or the layout cannot hold it.
        OutputRefused: the folder is not empty.
        StorageError: the run or the output cannot be reached.
    """
    run = storage.normalize(config.run)
    if storage.file_size(storage.join(run, "export", ABOUT)) is None:
        told = "a run of `paceline distill drafter` that has ended is needed"
        raise UnsupportedCheckpoint(f"{config.run!r} has no export/{ABOUT}: {told}")
    output = storage.normalize(config.output or storage.join(run, f"export-{config.format}"))
    if storage.list_files(output):
        raise OutputRefused(f"output {output!r} is not empty; choose another folder")
    made = Path(fetched(storage.join(run, "export")))
    if config.format == "paceline":
        with written(output) as folder:
            shutil.copytree(made, folder, dirs_exist_ok=True)
        return output
    if folder_kind(made) != EAGLE:
        told = "paceline: only EAGLE-3 drafters have a layout of their own; servers take others"
        raise InvalidOption("format", config.format, f"{told} as they are")
    about = json.loads((made / ABOUT).read_text(encoding="utf-8"))
    target, depth = Path(present(about["target"]["path"])), int(about["depth"])
    head = read_eagle(made, target)
    with written(output) as folder:
        write_eagle(head, folder, layout=config.format, target=target, draft_tokens=depth)
    return output
