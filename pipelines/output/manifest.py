"""Which shards of an output folder are committed, and which job they belong to.

    OUTPUT/part-00000.parquet        a shard's rows, written in one instant
    OUTPUT/_images/                  its rows' pictures, where they are to be files
    OUTPUT/_manifest/job.json        what decides the rows: settings, checkpoint, input
    OUTPUT/_manifest/00000.json      commits the shard: its counts and its files' sizes
    OUTPUT/_manifest/figures.json    what the runs counted so far (generate/reporting/history.py)
    OUTPUT/_manifest/lease.json      which run writes here at the moment (cluster/storage/lease.py)

A shard without an entry does not count, whatever file there may be: it is run again and its file
replaced. So a job may be killed at any moment. An entry is replaced only if some of its rows failed
in a way that may pass: the shard is run again, its file is replaced, then its entry. Readers that
take a whole folder as Parquet skip names that begin with an underscore.
"""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from typing import Any, Self

from cluster.storage import storage
from cluster.storage.lease import Held, Ticket, hold
from cluster.storage.storage import FileInfo
from pipelines.errors import OutputBusy, OutputRefused
from pipelines.output.picture_files import FOLDER as PICTURES

FOLDER = "_manifest"
JOB = f"{FOLDER}/job.json"
FIGURES = f"{FOLDER}/figures.json"
LEASE = f"{FOLDER}/lease.json"
_ENTRY = re.compile(rf"{FOLDER}/\d+\.json")
_PART = re.compile(rf"part-\d+\.parquet|{PICTURES}/[^/]+\.png")


@dataclass(frozen=True, slots=True, kw_only=True)
class Entry:
    """One committed shard: the file of its rows, and other files by name, with their sizes.

    Of the `rows_failed`, the `rows_retryable` are tried again by the next run; of these, the
    `rows_without_room` need more memory. `seconds`: of generating, since the commit before.
    """

    shard: int
    file: str
    size_bytes: int
    rows: int
    rows_failed: int
    prompt_tokens: int
    tokens: int
    exactness: str
    files: Mapping[str, int] = field(default_factory=dict)
    rows_retryable: int = 0
    rows_without_room: int = 0
    seconds: float = 0.0


def part_name(shard: int) -> str:
    """The file of a shard."""
    return f"part-{shard:05d}.parquet"


class Manifest:
    """An output folder, opened for one job. `ticket`: of its lease; None: nobody else is there."""

    def __init__(
        self, url: str, entries: Iterable[Entry] = (), *, ticket: Ticket | None = None
    ) -> None:
        self.url, self._ticket = url, ticket
        self.entries = {entry.shard: entry for entry in entries}

    @classmethod
    def open(
        cls, url: str, job: Mapping[str, Any], *, resume: bool, ticket: Ticket | None = None
    ) -> Self:
        """Begin a job in a folder that is ours (see `refuse_foreign`), or go on with it.

        Raises:
            OutputRefused: the folder holds rows of another job.
            StorageError: it cannot be written.
        """
        files = {info.name: info for info in storage.list_files(url)}
        for folder in ("", FOLDER, PICTURES):
            storage.remove_leftovers(storage.join(url, folder))
        entries = list[Entry]()
        if JOB in files:
            entries, withdrawn = _entries(files) if resume else ([], [])
            before = json.loads(storage.read_bytes(storage.join(url, JOB)))
            if entries:
                _refuse_another(url, before, job)
            elif not resume or differences(before, job):
                _clear(url, files)
            for name in withdrawn:
                storage.remove(storage.join(url, name))
        storage.create(storage.join(url, JOB), json.dumps(job, indent=1, sort_keys=True).encode())
        return cls(url, entries, ticket=ticket)

    @property
    def settled(self) -> list[Entry]:
        """Entries of shards that need not be run again."""
        return [entry for entry in self.entries.values() if not entry.rows_retryable]

    def check(self) -> None:
        """Raise LeaseLost if another run has taken the folder over."""
        if self._ticket is not None:
            self._ticket.check()

    def commit(self, entry: Entry) -> None:
        """Make a shard count, in the place of an entry with rows to be tried again."""
        self.check()
        url = storage.join(self.url, _entry_name(entry.shard))
        before = self.entries.get(entry.shard)
        if before is not None and before.rows_retryable:
            entry = replace(entry, seconds=before.seconds + entry.seconds)
            storage.publish(url, _data(entry))
        elif not storage.create(url, _data(entry)):
            entry = Entry(**json.loads(storage.read_bytes(url)))
        self.entries[entry.shard] = entry


@contextmanager
def claimed(url: str) -> Iterator[Ticket]:
    """Keep other runs out of an output folder; raises OutputBusy if one is there."""
    try:
        with hold(storage.join(url, LEASE)) as ticket:
            yield ticket
    except Held as error:
        holder = error.holder
        raise OutputBusy(
            f"output {url!r} is in use by another run: {holder}. Wait until it ends, stop it, or "
            f"give another output. If it no longer answers, it counts as dead in "
            f"{holder.left_s:.0f} s; run the same command again then"
        ) from error


def refuse_foreign(url: str) -> None:
    """Raise OutputRefused if a folder holds files of someone else."""
    names = {info.name for info in storage.list_files(url)}
    visible = sorted(name for name in names if not name.startswith(("_", ".")))
    if JOB not in names and visible:
        raise OutputRefused(
            f"output {url!r} already contains {visible[0]!r}, which paceline did not write; "
            "choose an empty folder"
        )


def _data(entry: Entry) -> bytes:
    return json.dumps(asdict(entry)).encode()


def _entry_name(shard: int) -> str:
    return f"{FOLDER}/{shard:05d}.json"


def _entries(files: Mapping[str, FileInfo]) -> tuple[list[Entry], list[str]]:
    """The entries whose files are there as they were committed, and the names of the others."""
    names = [name for name in files if _ENTRY.fullmatch(name)]
    with ThreadPoolExecutor(16) as pool:
        found = list(pool.map(lambda name: storage.read_bytes(files[name].url), names))
    entries, others = [], []
    for place, data in zip(names, found, strict=True):
        entry = Entry(**json.loads(data))
        sizes = {entry.file: entry.size_bytes, **entry.files}
        if all(name in files and files[name].size_bytes == size for name, size in sizes.items()):
            entries.append(entry)
        else:
            others.append(place)
    return entries, others


def _clear(url: str, files: Mapping[str, FileInfo]) -> None:
    """Remove a job: first what commits its shards, then the shards, last what names it."""
    entries = [name for name in files if _ENTRY.fullmatch(name)]
    parts = [name for name in files if _PART.fullmatch(name)]
    figures = [FIGURES] if FIGURES in files else []
    for name in [*entries, *parts, *figures, JOB]:
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
