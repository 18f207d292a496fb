"""A run's folder: what the run is, and which of its stages are committed.

A run on S3 is worked on in a folder of this machine's cache, which is a mirror of it.

RUN/run.json            options, what decides the result, versions
RUN/records/            the target's images to learn from (rows of `paceline generate`)
RUN/classes/, prompts/  what the records are asked for
RUN/held-out/           more of them, for the evaluation
RUN/texts/              a drafter's: the texts to learn from, and held-out ones
RUN/renewed/N/          a drafter's: generation N of rows and texts, from the second on
RUN/train/              states, metrics.jsonl, exams.jsonl, events/ of TensorBoard, the model
RUN/samples/            images of each way of sampling
RUN/evaluation/         their figures, curves and sheets
RUN/export/             the trained model, to be used by its path
RUN/report.html         what came out, on a page
RUN/_stages/NAME.json   commits a stage
"""

import hashlib
import json
import shutil
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.storage import storage
from cluster.storage.checkpoints import cache_folder
from cluster.storage.lease import Ticket
from cluster.storage.mirror import Mirror
from models.training.checkpoint import STATE
from pipelines.errors import OutputRefused
from pipelines.output.manifest import FOLDER as MANIFEST
from pipelines.output.manifest import JOB, LEASE, differences

ABOUT, REPORT, STAGES = "run.json", "report.html", "_stages"
ROWS = ("records", "held-out", "renewed/*/rows")  # folders of `paceline generate`
NOTES = "train/ray"  # Ray's own, which nothing is continued from
JUDGED = ("report", "export", "evaluate")  # what follows the training, the last one first
ORDER = ("records", "train", "evaluate", "export", "report")  # of the stages
PARTS = (
    "classes",
    "prompts",
    "records",
    "held-out",
    "texts",
    "renewed",
    "train",
    "samples",
    "evaluation",
    "export",
    STAGES,
)


class RunFolder:
    """Opened for one run; stages that are committed are skipped."""

    def __init__(
        self, path: Path, *, tell: Callable[[str], None], mirror: Mirror | None = None
    ) -> None:
        """`mirror`: of a run on S3, to which each stage is copied before it is committed."""
        self.path, self._tell, self._mirror = path, tell, mirror
        self._within = 0.0  # seconds of the stages that the present one has run

    def stage(self, name: str, work: Callable[[], Mapping[str, Any]]) -> dict[str, Any]:
        """Do the work unless it is committed, commit it, and return what it reported.

        The work may run stages of its own; their seconds do not count as its own.
        """
        entry = self._entry(name)
        if entry.exists():
            self._tell(f"{name}: done before")
        else:
            self._tell(f"{name} ...")
            told, seconds = self._timed(work)
            made = {"told": told, "seconds": seconds, "folder": str(self.path)}
            self._commit(entry, json.dumps(made, indent=1).encode() + b"\n")
        found: dict[str, Any] = json.loads(entry.read_text(encoding="utf-8"))
        reported: dict[str, Any] = _moved(found["told"], found.get("folder"), str(self.path))
        return reported

    def _timed(self, work: Callable[[], Mapping[str, Any]]) -> tuple[dict[str, Any], float]:
        """What the work reported, and its seconds without those of stages within it."""
        before, self._within = self._within, 0.0
        began = time.monotonic()
        told = dict(work())
        took = time.monotonic() - began
        own, self._within = took - self._within, before + took
        return told, own

    def _commit(self, entry: Path, data: bytes) -> None:
        """On S3 first, after all that it commits: another machine may go on with the run."""
        if self._mirror is not None:
            self._mirror.push()
            self._mirror.create(entry.relative_to(self.path).as_posix(), data)
        storage.create(str(entry), data)

    def seconds(self) -> dict[str, float]:
        """How long each committed stage took by itself, in order."""
        entries = [json.loads(p.read_text("utf-8")) | {"name": p.stem} for p in self._entries()]
        return {entry["name"]: entry["seconds"] for entry in entries}

    def _entries(self) -> list[Path]:
        return sorted((self.path / STAGES).glob("*.json"), key=lambda path: _place(path.stem))

    def is_done(self, name: str) -> bool:
        """Whether the stage is committed."""
        return self._entry(name).exists()

    def _entry(self, name: str) -> Path:
        return self.path / STAGES / f"{name}.json"

    def describe(self, about: Mapping[str, Any]) -> None:
        """Write what the run is; `judging` in it names what decides no more than the evaluation.

        Where only that is another, records and training are kept.

        Raises:
            OutputRefused: the folder holds a run that something else decides.
        """
        file = self.path / ABOUT
        if file.exists():
            before, now = json.loads(file.read_text("utf-8"))["decides"], about["decides"]
            changes, judging = differences(before, now), about.get("judging", ())
            if changes and not self._has_work():
                self.clear()  # a run that was refused for its prompts, say
            elif changes and _changed(before, now) <= set(judging):
                self._judge_again(changes)
            elif changes:
                raise OutputRefused(
                    f"output {str(self.path)!r} holds another run: {'; '.join(changes[:3])}. Give "
                    "another output, or --no-resume to delete that run and start over"
                )
        storage.publish(str(file), json.dumps(about, indent=1).encode() + b"\n")
        if self._mirror is not None:
            self._mirror.push()

    def _judge_again(self, changes: Sequence[str]) -> None:
        """Discard what the evaluation made; the export stays until the next one takes its place."""
        self._tell(f"another evaluation: {'; '.join(changes)}")
        for name in JUDGED:
            self._entry(name).unlink(missing_ok=True)
        for name in ("samples", "evaluation"):
            shutil.rmtree(self.path / name, ignore_errors=True)
        (self.path / REPORT).unlink(missing_ok=True)

    def _has_work(self) -> bool:
        """Whether a stage is committed, or any rows for one."""
        return any(self._entries()) or any(
            any(self.path.glob(f"{rows}/{MANIFEST}/[0-9]*.json")) for rows in ROWS
        )

    def clear(self) -> None:
        """Delete the run's stages and their files."""
        for name in PARTS:
            shutil.rmtree(self.path / name, ignore_errors=True)
        for name in (ABOUT, REPORT):
            (self.path / name).unlink(missing_ok=True)
        if self._mirror is not None:
            self._mirror.push()


def _changed(before: Mapping[str, Any], now: Mapping[str, Any]) -> set[str]:
    return {name for name in {**before, **now} if before.get(name) != now.get(name)}


def _place(stage: str) -> tuple[int, int]:
    """Of a stage in the order; `records-2` are the records' second generation."""
    name, _, number = stage.partition("-")
    return ORDER.index(name), int(number or 1)


def open_path(output: str) -> Path:
    """The folder of a run on this machine.

    Raises:
        OutputRefused: the output holds something else.
        StorageError: it cannot be looked at.
    """
    url = storage.normalize(output)
    there = _names(url)
    strange = [name for name in there if name not in (*PARTS, ABOUT, REPORT, MANIFEST)]
    if strange and ABOUT not in there:
        told = f"contains {strange[0]!r}, which is no run of distill; choose an empty folder"
        raise OutputRefused(f"output {output!r} already {told}")
    if storage.is_local(url):
        return Path(url)
    return cache_folder() / "runs" / hashlib.blake2b(url.encode(), digest_size=8).hexdigest()


def mirror_of(output: str, ticket: Ticket) -> Mirror | None:
    """What copies a run to S3; None if its output is a folder of this machine."""
    url = storage.normalize(output)
    if storage.is_local(url):
        return None
    leases = (MANIFEST, *(f"{rows}/{LEASE}" for rows in ROWS))
    return Mirror(
        open_path(output), url, commits=_commits, check=ticket.check, skipped=(*leases, NOTES)
    )


def _commits(name: str) -> bool:
    """Whether a file says that others are complete: a stage's, a state's, a shard's."""
    parts = name.split("/")
    rows = MANIFEST in parts and not name.endswith(JOB)  # that is there before all rows
    return rows or STAGES in parts or parts[-1] == STATE


def _names(url: str) -> list[str]:
    """What lies in a folder, by name."""
    if storage.is_local(url):
        path = Path(url)
        return sorted(p.name for p in path.iterdir()) if path.is_dir() else []
    return sorted({info.name.split("/")[0] for info in storage.list_files(url)})


def _moved(told: Any, before: str | None, now: str) -> Any:
    """What a stage reported, with names of files where the run's folder is now."""
    if before in (None, now):
        return told
    if isinstance(told, str) and told.startswith(f"{before}/"):
        return now + told[len(str(before)) :]
    if isinstance(told, list):
        return [_moved(item, before, now) for item in told]
    if isinstance(told, dict):
        return {name: _moved(item, before, now) for name, item in told.items()}
    return told
