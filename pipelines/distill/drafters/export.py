"""`paceline distill export`: a run's drafter in the layout of another server."""

import json
import shutil
from dataclasses import dataclass
from pathlib import Path

from models.drafting.folder_kind import ABOUT, EAGLE, folder_kind
from models.drafting.heads.eagle_export import write_eagle
from models.drafting.heads.eagle_layouts import read_eagle
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.requests.request import require
from pipelines.errors import OutputRefused

FORMATS = ("paceline", "speculators", "sglang")


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """A run's drafter, and where it goes: `output`, or RUN/export-FORMAT."""

    run: str
    format: str
    output: str | None = None

    def __post_init__(self) -> None:
        require(self.format in FORMATS, "format", self.format, f"one of {', '.join(FORMATS)}")


def export(config: ExportOptions) -> Path:
    """Write the drafter; returns its folder.

    Raises:
        InvalidOption: the kind of drafter has no such layout.
        UnsupportedCheckpoint: the run has no drafter, or the layout cannot hold it.
        OutputRefused: the folder is not empty.
    """
    run = Path(config.run)
    made = run / "export"
    if not (made / ABOUT).exists():
        told = "a run of `paceline distill drafter` that has ended is needed"
        raise UnsupportedCheckpoint(f"{config.run!r} has no export/{ABOUT}: {told}")
    output = run / f"export-{config.format}" if config.output is None else Path(config.output)
    if output.is_dir() and any(output.iterdir()):
        raise OutputRefused(f"output {str(output)!r} is not empty; choose another folder")
    if config.format == "paceline":
        shutil.copytree(made, output, dirs_exist_ok=True)
        return output
    if folder_kind(made) != EAGLE:
        told = "paceline: only EAGLE-3 drafters have a layout of their own; servers take others"
        raise InvalidOption("format", config.format, f"{told} as they are")
    about = json.loads((made / ABOUT).read_text(encoding="utf-8"))
    target = Path(about["target"]["path"])
    head = read_eagle(made, target)
    write_eagle(head, output, layout=config.format, target=target, draft_tokens=int(about["depth"]))
    return output
