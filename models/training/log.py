"""A training's figures: lines of JSON for steps and exams, and TensorBoard events."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self

METRICS, EXAMS, EVENTS = "metrics.jsonl", "exams.jsonl", "events"


class Log:
    """Continues the files of an earlier run after the steps that its state holds."""

    def __init__(self, folder: Path, *, done: int) -> None:
        """`done`: steps of the state; lines of later steps are removed, as they are taken again.

        Without a state, the exam of step 0 is taken again, too.
        """
        from tensorboardX import SummaryWriter

        folder.mkdir(parents=True, exist_ok=True)
        for name in (METRICS, EXAMS):
            _keep(folder / name, done)
        self._steps = (folder / METRICS).open("a", encoding="utf-8")
        self._exams = (folder / EXAMS).open("a", encoding="utf-8")
        self._events = SummaryWriter(str(folder / EVENTS), purge_step=done + 1)

    def add(self, figures: Mapping[str, float]) -> None:
        """The figures of a step, which are named; `step` is among them."""
        self._steps.write(json.dumps(dict(figures)) + "\n")
        self._steps.flush()
        self._draw("", figures)

    def add_exam(self, step: int, figures: Mapping[str, float]) -> None:
        """The figures of an exam, if there are any."""
        if figures:
            self._exams.write(json.dumps({"step": step, **figures}) + "\n")
            self._exams.flush()
            self._draw("exam/", {"step": step, **figures})

    def _draw(self, group: str, figures: Mapping[str, float]) -> None:
        for name, value in figures.items():
            if name != "step":
                self._events.add_scalar(group + name, value, int(figures["step"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._steps.close()
        self._exams.close()
        self._events.close()


def read_lines(file: Path) -> list[dict[str, float]]:
    """The complete lines of a file, none if there is no such file."""
    if not file.exists():
        return []
    lines = file.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]  # the last one has no end yet


def _keep(file: Path, done: int) -> None:
    """Remove the lines of steps after `done`, and all if there is no state."""
    kept = [line for line in read_lines(file) if line["step"] <= done and done > 0]
    new = file.with_suffix(".new")
    new.write_text("".join(json.dumps(line) + "\n" for line in kept), encoding="utf-8")
    new.replace(file)
