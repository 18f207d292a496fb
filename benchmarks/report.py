"""Sections as JSON files, and the page that is made of all that lie there."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.section import GOAL_HEADS, Section
from pipelines.machine import Machine, this_machine
from pipelines.table import markdown

ORDER = ("plain", "draft", "lookup", "batch", "useless", "overhead", "ablation", "pipeline")
HEAD = """\
# Benchmarks: text

Medians of interleaved runs in one process: in every turn each contestant completes the same
prompts, then the next turn has others; a ratio is the median of the turns' ratios. Tokens/s count
the reading of prompts, rounds do not. `speed-up` is over our own plain decoding in the same table.
All contestants have the same weights, dtype and threads, and write the same number of tokens. The
demo checkpoints hold bfloat16 values: ours keeps them so in float32 runs too, which computes the
same from half the memory. A checkpoint with true float32 values is kept in float32, and read in
twice the time."""


def measure(make: Callable[[], Section], folder: Path, *, command: str) -> None:
    """Run one section, show it and save it."""
    began = time.monotonic()
    section = make()
    took_s = time.monotonic() - began
    print(f"{goals_text(section)}\n", flush=True)
    save(section, folder, machine=this_machine(), command=command, took_s=took_s)


def save(section: Section, folder: Path, *, machine: Machine, command: str, took_s: float) -> None:
    """One section's data, replacing those of an earlier run."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {"machine": machine.as_dict(), "machine_line": machine.line(), "command": command}
    content = {**section.as_dict(), **about, "took_s": round(took_s, 1)}
    path = folder / f"{section.name}.json"
    path.write_text(json.dumps(content, indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def compose(folder: Path, page: Path, *, head: str = HEAD, order: Sequence[str] = ORDER) -> str:
    """Write the page from all sections that were ever saved in the folder; returns its text."""
    found = [folder / f"{name}.json" for name in order]
    sections = [json.loads(path.read_text(encoding="utf-8")) for path in found if path.exists()]
    rows = [row for section in sections for row in section["goal_rows"]]
    parts = [head, "## Goals", markdown(GOAL_HEADS, rows, texts=(0, 4))]
    for section in sections:
        parts += _section(section)
    text = "\n\n".join(parts) + "\n"
    page.parent.mkdir(parents=True, exist_ok=True)
    page.write_text(text, encoding="utf-8")
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
