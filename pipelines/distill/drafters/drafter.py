"""`paceline distill drafter`: what a drafter's own stages do."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from cluster.storage.checkpoints import present
from models.drafting.distil.build import (
    DraftLessons,
    build_drafter,
    network_of,
    target_config,
    vocabulary_of,
)
from models.drafting.distil.exam import Trial
from models.drafting.distil.kind import EXAM, Course, DrafterKind
from models.drafting.distil.streamed import Stream, taps_of
from models.drafting.distil.teacher import Teacher, load_teacher
from models.drafting.distil.texts import Text, batch_of, read_texts
from models.drafting.draft_models.build import LEARNED
from models.requests.request import require
from models.students.config import MadeFor
from models.targets.load import pick_device
from models.tokenizers.about import image_target
from models.training.engines.worker import CPU, Worker
from models.training.kind import LOSS, Samples
from models.training.log import EXAMS, METRICS, read_lines
from pipelines.checkpoints import with_local
from pipelines.distill.curves import CURVES, draw_curves
from pipelines.distill.drafters.beside import check_beside
from pipelines.distill.drafters.config import RECOMPUTE, STREAM, DrafterOptions
from pipelines.distill.drafters.images import settled as settled_for_images
from pipelines.distill.drafters.judge import MADE, START, Judgement, measure
from pipelines.distill.drafters.prompts import ORDER
from pipelines.distill.drafters.stream import require_store, streaming
from pipelines.distill.drafters.texts import (
    HELD_OUT,
    TRAINED,
    check_source,
    make_rows,
    renew,
    rows_of,
    write_split,
)
from pipelines.distill.estimate import START_S, STATES, Estimate
from pipelines.distill.findings import Findings
from pipelines.distill.folder import open_path
from pipelines.distill.given_rows import check_rows
from pipelines.distill.records import digest_of, files_of
from pipelines.distill.stages import FIGURES, Renewal, run_stages
from pipelines.engine_options import located, located_drafter
from pipelines.generate.fingerprint import checkpoint_digest
from pipelines.inputs.files import find_inputs

CACHED = 4.0  # a text token by token, against one pass over all of its tokens
EXAM_S = 10.0
BESIDE = ("lookup",)  # in the evaluation, unless the user names others
TEXT_BYTES = 2000  # of a row of `generate`


@dataclass(frozen=True, slots=True, kw_only=True)
class DrafterRun:
    """A drafter's distillation that was checked; a `Run` (pipelines/distill/stages.py)."""

    config: DrafterOptions
    path: Path
    digest: str

    def on(self, device: str) -> "DrafterRun":
        """The same on "cpu" or "cuda"."""
        return replace(self, config=replace(self.config, device=device))

    @property
    def digests(self) -> Mapping[str, str]:
        """Of the start and the prompts, which exam chooses the best state, and which prompts."""
        found = {"exam": EXAM}
        if self.config.prompts is not None or self.config.data is not None:
            found["order"] = ORDER
        if self.config.start is not None:
            found["start"] = checkpoint_digest(self.config.start, role="start")
        if self.config.prompts is not None:
            found["prompts"] = digest_of([file.url for file in find_inputs(self.config.prompts)])
        return found

    def estimate(self) -> Estimate:
        """Measured on a few random texts."""
        config = self.config
        length = min(config.text_length, 512)
        lessons = _here(self._lessons((), kept=0))
        kind, teacher = _probe(lessons, length, pick_device(config.device))
        began = time.perf_counter()
        teacher.states(batch_of(kind.texts, np.arange(4)), np.arange(4))
        reading = (time.perf_counter() - began) / 4
        samples = Samples(numbers=np.arange(4), records=np.arange(4))
        began = time.perf_counter()
        loss = kind.made.losses(kind.made.model, samples)[LOSS]
        loss.backward()
        float(loss.detach())  # a GPU has worked
        stepping = (time.perf_counter() - began) / 4
        texts = config.num_records
        if texts:
            texts *= 1 + len(config.renewed_at(texts))
        exams = 1 + config.train_steps // config.exam_every
        weights = 4 * sum(weight.numel() for weight in kind.made.model.parameters())
        training = (stepping + reading) * config.train_steps * config.train_batch
        return Estimate(
            seconds={
                "records": START_S + CACHED * reading * texts,
                "train": START_S + training + EXAM_S * exams,
                "evaluate": EXAM_S * (2 + len(config.beside)),
            },
            num_bytes={
                "records": 2 * TEXT_BYTES * texts,
                "train": 4 * STATES * weights,
                "evaluate": 2 * weights,
            },
        )

    def records(self) -> dict[str, Any]:
        """The target's texts, to learn from and held out.

        Raises:
            InvalidOption: the training could not hold what is streamed of them.
        """
        if self.config.states == STREAM:
            require_store(self.config, self._lessons((), kept=0))
        folder = self.path / "records"
        made = make_rows(self.config, folder) if self.config.data is None else {}
        texts = self.path / "texts"
        told = write_split(self.config, rows_of(self.config, folder), texts)
        files = [str(texts / TRAINED)]
        return {**made, **told, "files": files, "digest": digest_of(files)}

    def renewals(self, data: Mapping[str, Any]) -> list[Renewal]:
        """New texts after every --renew passes."""
        return [
            Renewal(step=step, records=partial(renew, self.config, number, self.path, data))
            for number, step in enumerate(self.config.renewed_at(data["texts"]), start=2)
        ]

    def build(
        self, data: Mapping[str, Any], stream: Stream | None = None
    ) -> Callable[[Worker], DrafterKind]:
        """The drafter, new or from its start."""
        lessons = self._lessons(tuple(data["files"]), kept=data["exam"])
        lessons = replace(lessons, first=tuple(data.get("first", data["files"])))
        return partial(_build, lessons, stream=stream)

    @contextmanager
    def building(
        self, data: Mapping[str, Any], tell: Callable[[str], None], *, until: int
    ) -> Iterator[Callable[[Worker], DrafterKind]]:
        """With the target in the training processes, or in actors of its own meanwhile."""
        if self.config.states == RECOMPUTE:
            yield self.build(data)
            return
        lessons = self._lessons((), kept=0)
        with streaming(self.config, lessons, tell, until=until) as stream:
            yield self.build(data, stream)

    def _lessons(self, files: tuple[str, ...], *, kept: int) -> DraftLessons:
        config = self.config
        return DraftLessons(
            kind=config.kind,
            target=config.target,
            files=files,
            course=Course(
                depth=config.depth,
                match_from=config.match_from,
                kept=kept,
                exam_tokens=config.exam_length,
            ),
            length=config.text_length,
            seed=config.seed,
            start=config.start,
            width=config.width,
            draft_vocab=config.draft_vocab,
            guidance=1.0 if config.guidance is None else config.guidance,
            about=self._about(),
        )

    def _about(self) -> dict[str, object]:
        """What the export says of itself; the scale decides whether it is guided when it drafts."""
        target = {"path": self.config.target, "digest": self.digest}
        scale = self.config.guidance
        return {"target": target} | ({} if scale is None else {LEARNED: scale})

    def hold_out(self) -> None:
        """Nothing: the held-out texts are those of prompts, which the records are split by."""

    @property
    def title(self) -> str:
        """Of the report."""
        return f"A drafter of {Path(self.config.target).name}: {self.config.kind}"

    def evaluate(self, trained: Path, tell: Callable[[str], None]) -> Findings:
        """The real loop on held-out prompts, beside plain decoding and other drafters."""
        config, folder = self.config, present(self.config.target)
        target = load_teacher(Path(folder), device=config.device).target
        held = read_texts(
            [str(self.path / "texts" / HELD_OUT)],
            length=config.text_length,
            num_ids=target.input_size,
        )
        trial = Trial(
            target=folder,
            texts=held,
            depth=config.depth,
            max_tokens=config.exam_length,
            threads=config.threads,
            guidance=1.0 if config.guidance is None else config.guidance,
            seed=len(held),  # images of the exams have those before
        )
        shown = {name: located_drafter(present(name)) for name in config.beside}
        if config.start is not None:
            shown[START] = present(config.start)
        shown[MADE] = str(trained)
        found = Judgement(
            lines=measure(trial, shown, target),
            exams=read_lines(self.path / "train" / EXAMS),
        )
        found.write(self.path / FIGURES)
        picture = (self.path / FIGURES).with_name(CURVES)
        draw_curves(self.path / "train" / METRICS, picture, loss="a token", log_scale=False)
        tell(found.told())
        return found.findings()


@dataclass(frozen=True, slots=True)
class _Probe:
    made: DrafterKind
    texts: list[Text]


def _probe(
    lessons: DraftLessons, length: int, device: torch.device = CPU
) -> tuple[_Probe, Teacher]:
    """A training on random texts of this length."""
    target = Path(lessons.target)
    config = target_config(target)
    network, shape = network_of(lessons, target, config)
    network.to(device)
    teacher = load_teacher(target, taps_of(network), lessons.guidance, device)
    generator = torch.Generator().manual_seed(0)
    rows = torch.randint(config.vocab_size, (4, length), generator=generator)
    if config.grid is not None:
        rows[:, 0] = config.vocab_size  # a class
    prompt = length // 2 if config.grid is None else 1
    texts = [Text(tokens=tuple(row), num_prompt=prompt) for row in rows.tolist()]
    some = vocabulary_of(network)
    course = lessons.course
    made = DrafterKind(
        network, shape, teacher, texts, course, target=target, vocabulary=some, device=device
    )
    return _Probe(made, texts), teacher


def _build(lessons: DraftLessons, worker: Worker, *, stream: Stream | None) -> DrafterKind:
    """On a worker."""
    return build_drafter(_here(lessons), worker, stream)


def _here(lessons: DraftLessons) -> DraftLessons:
    """On a node that may not have fetched the checkpoints yet."""
    start = None if lessons.start is None else present(lessons.start)
    return replace(lessons, target=present(lessons.target), start=start)


def distill(config: DrafterOptions, *, tell: Callable[[str], None] = print) -> Path:
    """Make a drafter; returns its folder. A run that was interrupted continues.

    Raises:
        PacelineError: what the user gave cannot work (these are ValueErrors), or JobFailed.
    """
    run = check(with_local(config))
    check_source(run.config)
    return run_stages(run, tell=tell)


def check(config: DrafterOptions) -> DrafterRun:
    """Refuse options that cannot work, before anything is written.

    Raises:
        PacelineError: target, start, output or a drafter to show beside it cannot be used.
        StorageError: such a drafter cannot be fetched.
    """
    about = image_target(config.target)
    if about is not None:
        config = settled_for_images(config, about)
    else:
        told = "a file or folder, or else --data; one of the two"
        require(config.prompts is not None or config.data is not None, "prompts", None, told)
        told = "none: the target generates text"
        require(config.guidance is None, "guidance", config.guidance, told)
        config = replace(
            config,
            beside=config.beside or BESIDE,
            length=config.text_length,
            exam_tokens=config.exam_length,
        )
    sizes = target_config(Path(config.target))
    context = f"the target's context of {sizes.context_length}"
    told = f"at most {context}"
    require(config.text_length <= sizes.context_length, "length", config.text_length, told)
    told = f"less than {context}, which holds the prompts, too"
    require(config.exam_length < sizes.context_length, "exam_tokens", config.exam_length, told)
    found = replace(
        config,
        records=config.num_records or None,
        target=located(config.target),
        start=None if config.start is None else located(config.start),
    )
    run = DrafterRun(
        config=found,
        path=open_path(config.output),
        digest=checkpoint_digest(config.target),
    )
    if config.data is not None:  # with any settings: greedy texts are what it meets there
        check_rows(files_of(config.data), MadeFor(path=config.target, digest=run.digest))
    network_of(run._lessons((), kept=0), Path(found.target), sizes)
    prompt = 1 if about is not None else config.text_length // 2
    check_beside(found, longest=min(prompt + found.exam_length, sizes.context_length))
    return run
