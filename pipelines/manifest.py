"""Which shards of an output folder are committed, and which job they belong to.

    OUTPUT/part-00000.parquet        a shard's rows, written in one instant
    OUTPUT/_images/                  its rows' pictures, where they are to be files
    OUTPUT/_manifest/job.json        what decides the rows: settings, checkpoint, input
    OUTPUT/_manifest/00000.json      commits the shard: its counts and its files' sizes

A shard without an entry does not count, whatever file there may be: it is run again and its file
replaced. So a job may be killed at any moment. An entry is created only where there is none, so
two runs of one job cannot both commit a shard. Readers that take a whole folder as Parquet skip
names that begin with an underscore.
"""

import json
import re
from collections.abc import Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field
from typing import Any, Self

from cluster import storage
from cluster.storage import FileInfo
from pipelines.errors import OutputRefused
from pipelines.picture_files import FOLDER as PICTURES

FOLDER = "_manifest"
JOB = f"{FOLDER}/job.json"
_ENTRY = re.compile(rf"{FOLDER}/\d+\.json")
_PART = re.compile(rf"part-\d+\.parquet|{PICTURES}/[^/]+\.png")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One committed shard: the file of its rows, and other files by name, with their sizes."""

    shard: int
    file: str
    size_bytes: int
    rows: int
    rows_failed: int
    prompt_tokens: int
    tokens: int
    exactness: str
    files: Mapping[str, int] = field(default_factory=dict)


def part_name(shard: int) -> str:
    """The file of a shard."""
    return f"part-{shard:05d}.parquet"


class Manifest:
    """An output folder, opened for one job."""

    def __init__(self, url: str, entries: Iterable[Entry] = ()) -> None:
        self.url = url
        self.entries = {entry.shard: entry for entry in entries}

    @classmethod
    def open(cls, url: str, job: Mapping[str, Any], *, resume: bool) -> Self:
        """Begin a job in a folder, or go on with it.

        Raises:
            OutputRefused: the folder holds files of someone else, or another job's.
            StorageError: it cannot be written.
        """
        files = {info.name: info for info in storage.list_files(url)}
        visible = [name for name in files if not name.startswith(("_", "."))]
        if JOB not in files and visible:
            raise OutputRefused(
                f"output {url!r} is not empty ({visible[0]!r}) and no job of ours: give another"
            )
        storage.remove_leftovers(url)
        for folder in (FOLDER, PICTURES):
            storage.remove_leftovers(storage.join(url, folder))
        if JOB in files and not resume:
            _clear(url, files)
            files = {}
        data = json.dumps(job, indent=1, sort_keys=True).encode()
        if storage.create(storage.join(url, JOB), data):
            return cls(url)
        _refuse_another(url, json.loads(storage.read_bytes(storage.join(url, JOB))), job)
        return cls(url, _entries(url, files))

    def commit(self, entry: Entry) -> None:
        """Make a shard count; if another run of the job was faster, its entry stands."""
        url = storage.join(self.url, _entry_name(entry.shard))
        if not storage.create(url, json.dumps(asdict(entry)).encode()):
            entry = Entry(**json.loads(storage.read_bytes(url)))
        self.entries[entry.shard] = entry


def _entry_name(shard: int) -> str:
    return f"{FOLDER}/{shard:05d}.json"


def _entries(url: str, files: Mapping[str, FileInfo]) -> list[Entry]:
    """The entries whose files are there as they were committed; others are withdrawn."""
    names = [name for name in files if _ENTRY.fullmatch(name)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda name: storage.read_bytes(files[name].url), names))
    entries = []
    for place, data in zip(names, found, strict=True):
        entry = Entry(**json.loads(data))
        sizes = {entry.file: entry.size_bytes, **entry.files}
        if all(name in files and files[name].size_bytes == size for name, size in sizes.items()):
            entries.append(entry)
        else:
            storage.remove(files[place].url)
    return entries


def _clear(url: str, files: Mapping[str, FileInfo]) -> None:
    """Remove a job: first what commits its shards, then the shards, last what names it."""
    entries = [name for name in files if _ENTRY.fullmatch(name)]
    parts = [name for name in files if _PART.fullmatch(name)]
    for name in [*entries, *parts, JOB]:
        storage.remove(storage.join(url, name))


def _refuse_another(url: str, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changes = list(differences(before, now))
    if changes:
        more = f" and {len(changes) - 3} more" if len(changes) > 3 else ""
        raise OutputRefused(
            f"output {url!r} holds another job's rows: {'; '.join(changes[:3])}{more}. "
            "Give another output, or --no-resume to delete those rows and start over"
        )


def differences(before: Mapping[str, Any], now: Mapping[str, Any], path: str = "") -> list[str]:
    """What changed between two nested mappings, in words."""
    out = []
    for name in [*before, *(name for name in now if name not in before)]:
        old, new = before.get(name), now.get(name)
        where = f"{path} {name}".strip()
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            out += differences(old, new, where)
        elif old != new:
            out.append(f"{where} was {old!r}, is {new!r}")
    return out
