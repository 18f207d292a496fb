"""Which files an input is made of, and of what kind they are. Reads none of them."""

from dataclasses import dataclass
from pathlib import PurePosixPath

from cluster.storage import storage
from pipelines.errors import InvalidInput

KINDS = {
    ".parquet": "parquet",
    ".pq": "parquet",
    ".jsonl": "jsonl",
    ".ndjson": "jsonl",
    ".json": "jsonl",
    ".txt": "text",
    ".text": "text",
}
ACCEPTED = "Parquet (.parquet, .pq), JSON Lines (.jsonl, .ndjson, .json), text (.txt, .text)"


@dataclass(frozen=True, slots=True, kw_only=True)
class InputFile:
    """One file; `name` is relative to the input folder, so that moving the folder changes no id."""

    url: str
    name: str
    kind: str  # parquet | jsonl | text
    size_bytes: int


def find_inputs(url: str) -> list[InputFile]:
    """The input's files in the order of their names; hidden ones (.name, _name) are not input."""
    url = storage.normalize(url)
    size_bytes = storage.file_size(url)
    if size_bytes is not None:
        name = url.rpartition("/")[2]
        return [InputFile(url=url, name=name, kind=_kind(name, url), size_bytes=size_bytes)]
    found = [info for info in storage.list_files(url) if not _is_hidden(info.name)]
    if not found:
        raise InvalidInput(f"input {url!r} is no file, and no folder with files: give {ACCEPTED}")
    return [
        InputFile(
            url=info.url, name=info.name, kind=_kind(info.name, url), size_bytes=info.size_bytes
        )
        for info in found
    ]


def _kind(name: str, url: str) -> str:
    kind = KINDS.get(PurePosixPath(name).suffix.lower())
    if kind is None:
        raise InvalidInput(f"unknown file type {name!r} in input {url!r}: accepted {ACCEPTED}")
    return kind


def _is_hidden(name: str) -> bool:
    return any(part.startswith((".", "_")) for part in name.split("/"))
