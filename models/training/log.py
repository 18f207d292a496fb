"""A training's figures: one line of JSON for each step, and TensorBoard events."""

import json
from collections.abc import Mapping
from pathlib import Path
from types import TracebackType
from typing import Self


class Log:
    """Continues the files of an earlier run after the steps that its state holds."""

    def __init__(self, metrics: Path, events: Path, *, done: int) -> None:
        """`done`: steps of the state; lines of later steps are removed, as they are taken again."""
        from tensorboardX import SummaryWriter

        kept = [line for line in read_lines(metrics) if line["step"] <= done]
        text = "".join(json.dumps(line) + "\n" for line in kept)
        metrics.parent.mkdir(parents=True, exist_ok=True)
        new = metrics.with_suffix(".new")
        new.write_text(text, encoding="utf-8")
        new.replace(metrics)
        self._file = metrics.open("a", encoding="utf-8")
        self._events = SummaryWriter(str(events), purge_step=done + 1)

    def add(self, figures: Mapping[str, float]) -> None:
        """The figures of a step, which are named; `step` is among them."""
        self._file.write(json.dumps(dict(figures)) + "\n")
        self._file.flush()
        for name, value in figures.items():
            if name != "step":
                self._events.add_scalar(name, value, int(figures["step"]))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()
        self._events.close()


def read_lines(metrics: Path) -> list[dict[str, float]]:
    """The complete lines of a file, none if there is no such file."""
    if not metrics.exists():
        return []
    lines = metrics.read_text(encoding="utf-8").split("\n")
    return [json.loads(line) for line in lines[:-1]]  # the last one has no end yet
