"""What the manifest of a generate job says, as lines of text; the job may run anywhere."""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from cluster.errors import StorageError
from cluster.storage import storage
from cluster.storage.lease import Holder
from models.errors import InvalidOption
from pipelines.output.manifest import FOLDER, JOB, LEASE, Entry
from pipelines.top import PLACE

ENTRY = re.compile(rf"{FOLDER}/\d+\.json")
ROWS = re.compile(r"(\d+) rows")


@dataclass(frozen=True, slots=True, kw_only=True)
class JobState:
    """Sums over committed shards. `total`: rows of the whole job."""

    at: float
    total: int
    shards: int
    rows: int
    failed: int
    tokens: int
    holder: str

    @property
    def is_done(self) -> bool:
        """Whether every row is committed."""
        return self.rows >= self.total


class JobFolder:
    """An output folder; each entry is read once."""

    def __init__(self, url: str) -> None:
        """Raises InvalidOption: there is no job."""
        self._url = storage.normalize(url)
        if storage.file_size(storage.join(self._url, JOB)) is None:
            told = "a server's http:// address, or the output folder of a generate job, is needed"
            raise InvalidOption(PLACE, url, told)
        self._total = _total(json.loads(storage.read_bytes(storage.join(self._url, JOB))))
        self._entries: dict[str, Entry] = {}

    def state(self, at: float) -> JobState:
        """As it is now. Raises StorageError."""
        for info in storage.list_files(storage.join(self._url, FOLDER)):
            name = f"{FOLDER}/{info.name}"
            if ENTRY.fullmatch(name) and name not in self._entries:
                self._entries[name] = Entry(**json.loads(storage.read_bytes(info.url)))
        entries = self._entries.values()
        return JobState(
            at=at,
            total=self._total,
            shards=len(entries),
            rows=sum(entry.rows for entry in entries),
            failed=sum(entry.rows_failed for entry in entries),
            tokens=sum(entry.tokens for entry in entries),
            holder=self._holder(),
        )

    def _holder(self) -> str:
        url = storage.join(self._url, LEASE)
        try:
            if storage.file_size(url) is None:
                return "no run"
            return str(Holder.read(storage.read_bytes(url)))
        except (StorageError, ValueError):  # it ends at this moment
            return "no run"


def job_lines(now: JobState, before: JobState | None) -> Iterator[str]:
    """The view; rates are over the time since the state before."""
    share = now.rows / now.total if now.total else 1.0
    yield f"rows       {now.rows:,} of {now.total:,} committed ({share:.0%}), {now.failed:,} failed"
    yield f"shards     {now.shards:,} committed"
    yield f"tokens     {now.tokens:,}{_rate(now, before)}"
    yield f"run        {now.holder}"


def _rate(now: JobState, before: JobState | None) -> str:
    if before is None or now.at <= before.at or now.tokens <= before.tokens:
        return ""
    speed = (now.tokens - before.tokens) / (now.at - before.at)
    rows = (now.rows - before.rows) / (now.at - before.at)
    left = f", {(now.total - now.rows) / rows:,.0f} s left" if rows > 0 else ""
    return f" ({speed:,.1f}/s{left})"


def _total(job: Any) -> int:
    """Rows of the job, from what decides it."""
    found = [ROWS.match(told) for told in job.get("input", {}).values()]
    return sum(int(match[1]) for match in found if match) * int(job["settings"].get("n", 1))
