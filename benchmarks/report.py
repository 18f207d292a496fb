"""Saves each section as a JSON file and composes the page from all saved sections."""

import json
import shlex
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.section import GOAL_HEADS, Section
from pipelines.bench.machine import Machine, this_machine
from pipelines.bench.table import markdown


@dataclass(frozen=True, slots=True, kw_only=True)
class Page:
    """A page of sections: `{name}.md` in a folder, the sections' data in `{name}-data` beside it.

    `sections`: by name, in the page's order.
    """

    name: str
    head: str
    sections: Mapping[str, Callable[[], Section]]

    def data(self, folder: Path) -> Path:
        """Where the sections are saved."""
        return folder / f"{self.name}-data"

    def file(self, folder: Path) -> Path:
        """The page itself."""
        return folder / f"{self.name}.md"


def publish(page: Page, only: Sequence[str], folder: Path, *, command: str) -> None:
    """Run sections one by one; the page is composed anew after each of them."""
    for name in only:
        measure(page.sections[name], page.data(folder), command=command)
        compose(page, folder)
    print(f"written to {page.file(folder)} and {page.data(folder)}")


def command_line(module: str, arguments: Sequence[str] | None) -> str:
    """What was typed, as pages tell it."""
    return shlex.join(["python", "-m", module, *(sys.argv[1:] if arguments is None else arguments)])


def measure(make: Callable[[], Section], folder: Path, *, command: str) -> None:
    """Run one section, print it and save it."""
    began = time.monotonic()
    section = make()
    took_s = time.monotonic() - began
    print(f"{goals_text(section)}\n", flush=True)
    save(section, folder, machine=this_machine(), command=command, took_s=took_s)


def save(section: Section, folder: Path, *, machine: Machine, command: str, took_s: float) -> None:
    """Write one section's data; replaces the data of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"machine": machine.as_dict(), "machine_line": machine.line(), "command": command}
    content = {**section.as_dict(), **about, "took_s": round(took_s, 1)}
    path = folder / f"{section.name}.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def saved(page: Page, folder: Path) -> list[dict[str, Any]]:
    """All sections that were ever run, in the page's order."""
    found = [page.data(folder) / f"{name}.json" for name in page.sections]
    return [json.loads(path.read_text(encoding="utf-8")) for path in found if path.exists()]


def compose(page: Page, folder: Path) -> str:
    """Write the page from all its sections that were saved; returns its text."""
    sections = saved(page, folder)
    rows = [row for section in sections for row in section["goal_rows"]]
    parts = [page.head, "## Goals", markdown(GOAL_HEADS, rows, texts=(0, 4))]
    for section in sections:
        parts += _section(section)
    text = "\n\n".join(parts) + "\n"
    folder.mkdir(parents=True, exist_ok=True)
    page.file(folder).write_text(text, encoding="utf-8")
    return text


def _section(section: dict[str, Any]) -> list[str]:
    parts = [f"## {section['title']}", *section["notes"]]
    for table in section["tables"]:
        parts += [f"{table['caption']}:", markdown(table["heads"], table["rows"])]
    return [
        *parts,
        f"`{section['command']}` ({section['took_s']:.0f} s) on {section['machine_line']}.",
    ]


def goals_text(section: Section) -> str:
    """A section's tables and goals, for the terminal."""
    tables: Sequence[str] = [f"{t.caption}:\n{markdown(t.heads, t.rows)}" for t in section.tables]
    goals = markdown(GOAL_HEADS, [goal.cells() for goal in section.goals], texts=(0, 4))
    return "\n\n".join([f"## {section.title}", *section.notes, *tables, goals])
