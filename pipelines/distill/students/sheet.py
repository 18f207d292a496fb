"""Images of each way of sampling side by side."""

from collections.abc import Mapping
from pathlib import Path

from cluster.storage import storage
from pipelines.distill.records import files_of
from pipelines.output.contact_sheet import first_pictures, sheet

COLUMNS = 20


def draw_sheet(ways: Mapping[str, Path], out: Path) -> None:
    """A PNG with a line of images for each way of sampling."""
    lines = [
        first_pictures(files_of(folder), str(folder), "image", count=COLUMNS)
        for folder in ways.values()
    ]
    storage.publish(str(out), sheet(lines, list(ways)))
