"""Saves each section as a JSON file and composes the page from all saved sections."""

import json
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks.section import GOAL_HEADS, Section
from pipelines.bench.machine import Machine, this_machine
from pipelines.bench.table import markdown

ORDER = ("plain", "draft", "lookup", "batch", "useless", "overhead", "ablation", "pipeline", "real")
HEAD = """\
# Benchmarks: text

This page compares Paceline with transformers, openvino-genai and llama.cpp, and with its own plain
decoding. [idea.md](idea.md) explains the terms.

All contestants use the same weights, dtype and number of threads, and generate the same number of
tokens. They run in turn in one process: in each turn every contestant completes the same prompts,
and the next turn uses other prompts. The values are medians over the turns. A ratio is the median
of the ratios of the turns.

| column | meaning |
| --- | --- |
| tokens/s | generated tokens per second, prefill included |
| speed-up | over Paceline's plain decoding in the same table |
| round ms, and its parts draft to other | milliseconds for each round, prefill not included |
| target passes, draft passes | forward passes of the target model and the draft model |
| same tokens | completions with the tokens of plain decoding; – where they cannot be compared |

The column `made of` explains a goal. "3.28 plain rounds' tokens at the cost of 2.35" means that a
round yields 3.28 times the tokens of a plain round and takes 2.35 times as long. The parts that
follow are in units of a plain round.

The demo checkpoints contain bfloat16 values. Paceline stores them in bfloat16 in float32 runs too,
because this gives the same results and halves the memory traffic. A checkpoint with other float32
values is stored in float32, and reading it takes twice the time."""


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


def compose(folder: Path, page: Path, *, head: str = HEAD, order: Sequence[str] = ORDER) -> str:
    """Write the page from all sections saved in the folder; returns its text."""
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
