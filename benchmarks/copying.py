"""Text whose continuation is a copy, more or less: functions read twice, and tables of records.

The demo target is too small to follow "repeat this", but it does go on with what it has read
before. How much of its output really is a copy is measured and reported beside the speed.
"""

import bisect
import calendar
import copy
import fnmatch
import glob
import heapq
import inspect
import json
import posixpath
import random
import shlex
import shutil
import statistics
import string
import textwrap
from collections.abc import Iterator, Sequence
from types import FunctionType, ModuleType

from actors.tokenizer import TokenizerActor
from pipelines.generate.rows.prompts import Prompt

MODULES: tuple[ModuleType, ...] = (
    bisect,
    calendar,
    copy,
    fnmatch,
    glob,
    heapq,
    posixpath,
    random,
    shlex,
    shutil,
    statistics,
    string,
    textwrap,
)
SHORTEST, LONGEST = 100, 260  # tokens of a function
RECORDS = 8  # lines of a table
RUN = 8  # tokens: a shorter repetition is no copy


def record_prompts(checkpoint: str, *, count: int) -> list[Prompt]:
    """The first lines of tables with the same keys in every line: what modules define."""
    found = [_record(name, source) for name, source in _functions()]
    step = max(1, (len(found) - RECORDS) // count)
    tables = [found[i : i + RECORDS] for i in range(0, len(found) - RECORDS, step)][:count]
    texts = [f"FUNCTIONS = [\n{''.join(table)}" for table in tables]
    tokens = TokenizerActor(checkpoint).encode_batch(texts)
    return [Prompt(id=f"records-{i}", tokens=tuple(row)) for i, row in enumerate(tokens)]


def _record(name: str, source: str) -> str:
    module, function = name.split(".")
    known = {"module": module, "name": function, "lines": source.count("\n")}
    known |= {"public": not function.startswith("_"), "kind": "function"}
    return f"    {json.dumps(known)},\n"


def function_prompts(checkpoint: str, *, count: int) -> list[Prompt]:
    """Functions of the standard library twice, and their first two lines once more."""
    tokenizer, out = TokenizerActor(checkpoint), []
    for name, source in _functions():
        head = "\n".join(source.splitlines()[:2]) + "\n"
        whole, text = tokenizer.encode_batch([source, f"{source}\n\n{source}\n\n{head}"])
        if SHORTEST <= len(whole) <= LONGEST:
            out.append(Prompt(id=name, tokens=tuple(text)))
    step = max(1, len(out) // count)
    return out[::step][:count]


def _functions() -> Iterator[tuple[str, str]]:
    for module in MODULES:
        for name, found in sorted(vars(module).items()):
            if isinstance(found, FunctionType) and found.__code__.co_filename == module.__file__:
                yield f"{module.__name__}.{name}", inspect.getsource(found)


def copied_share(prompt: Sequence[int], output: Sequence[int]) -> float:
    """Of the output's tokens, the part in runs of RUN or more that stand earlier in the text."""
    text = [*prompt, *output]
    seen = {tuple(text[i : i + RUN]) for i in range(len(prompt) - RUN + 1)}
    copied: set[int] = set()
    for end in range(max(len(prompt) + 1, RUN), len(text) + 1):
        run = tuple(text[end - RUN : end])
        if run in seen:
            copied.update(range(max(end - RUN, len(prompt)), end))
        seen.add(run)
    return len(copied) / max(len(output), 1)
