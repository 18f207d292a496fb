"""The stages of a distillation, each done once: records, train, evaluate, export; for any kind."""

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import torch

from actors.trainer import TRAINED, Training
from cluster.connect import connected
from cluster.placement.placement import alive_nodes
from cluster.storage import storage
from models.errors import InvalidOption
from models.training.checkpoint import read_told, states
from models.training.engines.worker import Worker
from models.training.kind import Kind
from models.training.step import TrainingPlan
from pipelines.distill.config import DistillConfig
from pipelines.distill.deepspeed_file import is_half, read_deepspeed
from pipelines.distill.estimate import Estimate
from pipelines.distill.findings import Findings
from pipelines.distill.folder import REPORT, RunFolder, mirror_of
from pipelines.distill.places import beside_training, settled
from pipelines.distill.records import digest_of, files_of
from pipelines.distill.report.report import write_report
from pipelines.distill.train import train
from pipelines.generate.reporting.summary import versions
from pipelines.options import as_dict, deciding, judging
from pipelines.output.manifest import claimed

FIGURES = Path("evaluation") / "evaluation.json"


@dataclass(frozen=True, slots=True, kw_only=True)
class Renewal:
    """From step `step` on, the training takes new records, which `records` makes or finds."""

    step: int
    records: Callable[[], Mapping[str, Any]]


class Run(Protocol):
    """A distillation that was checked: what students and drafters do differently."""

    @property
    def config(self) -> DistillConfig:
        """Its options; `target` is an absolute path."""

    @property
    def path(self) -> Path:
        """The run's folder."""

    @property
    def digest(self) -> str:
        """Of the target's files."""

    @property
    def digests(self) -> Mapping[str, str]:
        """Of what else decides the result: content, by option, and methods, by name."""

    def estimate(self) -> Estimate:
        """What the run will take; measured in seconds."""

    def records(self) -> Mapping[str, Any]:
        """Make what is missing of the records; their `files`, in order, and their `digest`."""

    def renewals(self, data: Mapping[str, Any]) -> Sequence[Renewal]:
        """When the records of `data` are replaced, in the order of the steps."""

    def building(
        self, data: Mapping[str, Any], tell: Callable[[str], None], *, until: int
    ) -> AbstractContextManager[Callable[[Worker], Kind]]:
        """What makes what is trained, from what `records` returned; Ray sends it to the workers.

        The context lasts until step `until` is done, with whatever else helps the training.
        """

    def hold_out(self) -> None:
        """Make what is missing of the outputs that the evaluation compares with."""

    @property
    def title(self) -> str:
        """Of the report."""

    def evaluate(self, trained: Path, tell: Callable[[str], None]) -> Findings:
        """Measure the trained model; writes FIGURES in the run's folder."""

    def on(self, device: str) -> "Run":
        """The same on "cpu" or "cuda"."""


def run_stages(run: Run, *, tell: Callable[[str], None] = print) -> Path:
    """Do what is not done yet; returns the export's folder.

    Raises:
        PacelineError: what the user gave cannot work (these are ValueErrors), or JobFailed.
    """
    config = run.config
    deepspeed_of(config)  # refused before anything is written
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    url = storage.normalize(config.output)
    with claimed(url) as ticket:
        mirror = mirror_of(config.output, ticket)
        if mirror is not None:
            mirror.pull()
        folder = RunFolder(run.path, tell=tell, mirror=mirror)
        about = _about(run)
        if config.resume:
            folder.describe(about)
        trained = run.path / "train" / TRAINED
        with (
            connected(config.address, min_cpus=config.num_processes + 2),
            nullcontext() if mirror is None else mirror.following(),
        ):
            if mirror is not None:
                _refuse_nodes(config, len(alive_nodes()))
            done = all(map(folder.is_done, ("records", "train", "evaluate")))
            if not (config.resume and done):
                run = run.on(settled(config))
            if not config.resume:  # here, because what has no room deletes nothing
                folder.clear()
                folder.describe(about)
            if not folder.is_done("train"):
                _tell_estimate(run, tell)
            data = folder.stage("records", run.records)
            folder.stage("train", lambda: _train(run, folder, data, tell))
            found = folder.stage("evaluate", partial(_evaluate, run, trained, tell))
        folder.stage("export", lambda: _export(run, trained))
        findings = Findings.from_dict(found)
        folder.stage(
            "report", lambda: write_report(run.path, run.title, findings, folder.seconds())
        )
        tell(f"report     {storage.join(url, REPORT)}")
    return run.path / "export"


def _refuse_nodes(config: DistillConfig, nodes: int) -> None:
    """Workers read and write the run's folder, which is on this node if the output is on S3."""
    if nodes > 1:
        told = f"a folder that all {nodes} nodes of the cluster share; S3 is for a single node"
        raise InvalidOption("output", config.output, told)


def plan_of(config: DistillConfig) -> TrainingPlan:
    """The training that the options ask for."""
    return TrainingPlan(
        steps=config.train_steps, batch=config.train_batch, rate=config.rate, seed=config.seed
    )


def _about(run: Run) -> dict[str, Any]:
    decides: dict[str, Any] = {**deciding(run.config), "target": run.digest, **run.digests}
    if run.config.data is not None:
        decides["data"] = digest_of(files_of(run.config.data))
    if is_half(deepspeed_of(run.config)):
        decides["bf16"] = True
    config = run.config
    return {
        "decides": decides,
        "judging": judging(config),
        "config": as_dict(config),
        "versions": versions(),
    }


def _agreed(run: Run) -> dict[str, Any]:
    """What decides the training."""
    about = _about(run)
    return {name: v for name, v in about["decides"].items() if name not in about["judging"]}


def _tell_estimate(run: Run, tell: Callable[[str], None]) -> None:
    expected = beside_training(run.config, run.estimate)
    for line in expected.lines():
        tell(line)
    expected.refuse_without_room(run.path)


def _train(
    run: Run, folder: RunFolder, data: Mapping[str, Any], tell: Callable[[str], None]
) -> Mapping[str, Any]:
    """Train to the end, on each generation of the records in turn; from the newest state on."""
    first, renewals = data, run.renewals(data)
    told: dict[str, Any] = {}
    for number, end in enumerate([*(each.step for each in renewals), run.config.train_steps]):
        if number:
            data = folder.stage(f"records-{number + 1}", renewals[number - 1].records)
        if done_steps(run.path / "train") < end or end == run.config.train_steps:
            found = _train_until(run, data, first["digest"], end, tell)
            told = {**found, "seconds": found["seconds"] + told.get("seconds", 0.0)}
    return told


def _train_until(
    run: Run, data: Mapping[str, Any], digest: str, end: int, tell: Callable[[str], None]
) -> Mapping[str, Any]:
    """`digest`: of the first records, which decide all others."""
    config = run.config
    with run.building(data, tell, until=end) as build:
        return train(
            Training(
                folder=str(run.path / "train"),
                build=build,
                plan=plan_of(config),
                save_every=config.save_every,
                exam_every=config.exam_every,
                threads=threads_of(config),
                agreed=_agreed(run) | {"records": digest},
                device=config.device,
                deepspeed=deepspeed_of(config),
                until=end,
            ),
            workers=config.workers,
            progress=config.progress,
        )


def done_steps(folder: Path) -> int:
    """Of the newest state of a training."""
    found = states(folder)
    return int(read_told(found[-1])["step"]) if found else 0


def threads_of(config: DistillConfig) -> int:
    """Of each training process."""
    return config.threads or max(1, (os.cpu_count() or 1) // config.workers)


def deepspeed_of(config: DistillConfig) -> dict[str, Any] | None:
    """DeepSpeed's configuration, checked; None without one."""
    if config.deepspeed is None:
        return None
    return read_deepspeed(config.deepspeed, batch=config.train_batch, workers=config.workers)


def _evaluate(run: Run, trained: Path, tell: Callable[[str], None]) -> Mapping[str, Any]:
    run.hold_out()
    found, lines = beside_training(run.config, partial(_evaluated, run, trained))
    for line in lines:
        tell(line)
    return found.as_dict()


def _evaluated(run: Run, trained: Path) -> tuple[Findings, list[str]]:
    """With what it tells, which may be on another node."""
    lines: list[str] = []
    return run.evaluate(trained, lines.append), lines


def _export(run: Run, trained: Path) -> dict[str, Any]:
    place, new = run.path / "export", run.path / "export.new"
    shutil.rmtree(new, ignore_errors=True)
    shutil.copytree(trained, new)
    report = (run.path / FIGURES).read_bytes()
    storage.publish(str(new / "report.json"), report)
    shutil.rmtree(place, ignore_errors=True)
    new.rename(place)
    return {"folder": str(place)}
