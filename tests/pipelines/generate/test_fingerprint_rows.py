"""Jobs with one fingerprint write one set of rows, whatever else their options say; a real model.

Random jobs, and for each another one that differs in one option: if the fingerprint is the same,
the other one goes on with the first one's output and all rows are those of the first one alone. If
it differs, the output is refused. CROSSINGS=N tries N pairs.
"""

import json
import os
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from actors.desk import refusal
from models.engine import build_loop
from models.loop.token_loop import TokenLoop
from models.registry import NONE
from models.requests.request import Request, Result
from pipelines.errors import OutputRefused
from pipelines.generate.config import GenerateConfig
from pipelines.generate.prepare import prepare
from pipelines.options import from_mapping
from tests.models import checkpoints
from tests.pipelines.generate.inprocess import ByteTokenizer, outcome, run_job, write_prompts

PAIRS = int(os.environ.get("CROSSINGS", "30"))
PART = 10
DRAFT, END = "a draft model", 2
# By option, values that decide rows; the first is the default.
DECIDING: dict[str, tuple[Any, ...]] = {
    "seed": (0, 1),
    "n": (1, 2),
    "max_tokens": (9, 5),
    "temperature": (1.0, 0.0, 0.5),
    "top_p": (1.0, 0.5),
    "top_k": (0, 3),
    "min_p": (0.0, 0.3),
    "presence_penalty": (0.0, -2.0),
    "frequency_penalty": (0.0, -2.0),
    "repetition_penalty": (1.0, 0.3),
    "logit_bias": ({}, {3: 5.0}),
    "stop_token_ids": ((), tuple(range(3, 60))),
    "ignore_eos": (False, True),
    "min_tokens": (0, 4),
    "logprobs": (None, 1),
    "max_length": (None, 23),
    "shard_rows": (2, 3),
    "dtype": ("float32", "bfloat16"),
}
# Values of options that change no row, under `match`.
OTHERS: dict[str, tuple[Any, ...]] = {
    "batch_size": (8, 1, 3),
    "prefill_chunk": (256, 3, 16),
    "memory": (None, "1MiB", "400KB"),
    "threads": (None, 1, 2),
    "drafter": (NONE, "lookup", DRAFT),
    "draft_tokens": ("auto", 3),
    "draft_width": ("auto", 2),
    "device": ("auto", "cpu"),
}


class LoopPool:
    """A target actor's loop; stops the job, as a crash does, when `most` results were taken."""

    def __init__(self, loop: TokenLoop, most: int) -> None:
        self._loop, self._left, self._refused = loop, most, list[Result]()

    def free_slots(self) -> int:
        return 8 - self._loop.num_unfinished

    def submit(self, requests: list[Request]) -> None:
        for request in requests:
            try:
                self._loop.submit(request)
            except ValueError as error:
                self._refused.append(refusal(request.id, error))

    def take(self, timeout_s: float) -> list[Result]:
        found = [*self._refused, *self._loop.step()]
        self._refused.clear()
        self._left -= len(found)
        if self._left < 0:
            raise Crash
        return found


class Crash(Exception):
    """Ends a run in the middle."""


class Codec(ByteTokenizer):
    """For a vocabulary of more than bytes."""

    def decode_batch(self, tokens: list[list[int]]) -> list[str]:
        return ["".join(f"{token} " for token in ids) for ids in tokens]


def start(config: GenerateConfig, most: int = 1 << 30) -> None:
    run_job(config, pool=LoopPool(build_loop(config.engine()), most), codec=Codec())


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("jobs")
    checkpoints.save(root / "target", "llama3")
    checkpoints.save(root / "draft", "qwen2-tied", seed=1)
    write_prompts(root / "in" / "prompts.jsonl", 7)
    return root


def value_of(values: Mapping[str, Any], name: str, folder: Path) -> Any:
    return str(folder / "draft") if values[name] == DRAFT else values[name]


def made(folder: Path, output: Path, values: Mapping[str, Any]) -> GenerateConfig | None:
    """The configuration; None if the values do not go together."""
    given = {name: value_of(values, name, folder) for name in values}
    fixed = {"target": str(folder / "target"), "input": str(folder / "in"), "progress": False}
    try:
        config = from_mapping(GenerateConfig, {**given, **fixed, "output": str(output)})
        config.engine()
    except ValueError:
        return None
    return config


def pairs(rng: np.random.Generator) -> tuple[dict[str, Any], str, Any]:
    """Options of a job, and another value of one of them."""
    known = DECIDING | OTHERS
    values = {}
    for name, choices in known.items():
        values[name] = choices[int(rng.integers(len(choices))) if rng.random() < 0.3 else 0]
    name = str(rng.choice(list(known)))
    others = [value for value in known[name] if value != values[name]]
    return values, name, others[int(rng.integers(len(others)))]


def check(folder: Path, output: Path, number: int) -> str:
    """What came of a pair of jobs."""
    rng = np.random.default_rng([number, 5])
    while True:
        values, name, other = pairs(rng)
        first = made(folder, output / "whole", values)
        second = made(folder, output / "cut", {**values, name: other})
        if first is not None and second is not None:
            break
    start(first)
    rows = outcome(first.output)
    assert len(rows) == 7 * first.n
    with pytest.raises(Crash):
        start(replace(first, output=second.output), most=len(rows) - 1 - int(rng.integers(3)))
    begun = len(outcome(second.output))
    try:
        prepare(second)
    except OutputRefused:
        assert name in DECIDING, (number, name, other)
        return "refused"
    if begun:
        assert name in OTHERS, (number, name, other)
    start(second)
    if name in OTHERS:
        assert outcome(second.output) == rows, (number, values, name, other)
    return "went on" if begun else "began anew"


@pytest.mark.parametrize("first", range(0, PAIRS, PART))
def test_the_rows_are_those_of_one_job(folder: Path, tmp_path: Path, first: int) -> None:
    found = Counter(
        check(folder, tmp_path / str(number), number)
        for number in range(first, min(first + PART, PAIRS))
    )
    assert found["went on"] > 0
    assert found["refused"] > 0


def rows_and_files(folder: Path, output: Path, **values: Any) -> tuple[Any, list[str]]:
    base = {name: choices[0] for name, choices in DECIDING.items()}
    base |= {"temperature": 0.9, "logit_bias": {END: 4.0}}  # some end early
    config = made(folder, output, base | values)
    assert config is not None
    start(config)
    return outcome(config.output), sorted(path.name for path in output.glob("part-*"))


@pytest.fixture(scope="module")
def plain(folder: Path) -> tuple[Any, list[str]]:
    return rows_and_files(folder, folder / "plain")


@pytest.mark.parametrize("name", DECIDING)
def test_what_is_refused_would_change_the_rows(
    folder: Path, tmp_path: Path, plain: tuple[Any, list[str]], name: str
) -> None:
    """A control: or the files that they lie in."""
    assert rows_and_files(folder, tmp_path / "out", **{name: DECIDING[name][-1]}) != plain


def test_rows_that_lacked_memory_are_made_when_there_is_more(folder: Path, tmp_path: Path) -> None:
    """How much there is depends on the machine and the moment, so it must not decide a row."""
    prompts = write_prompts(tmp_path / "in" / "prompts.jsonl", 5)
    longer = {"id": "long", "prompt": "a prompt of some length, " * 8}
    with prompts.open("a") as file:
        file.write(json.dumps(longer) + "\n")
    rows = []
    for memory in ("100KB", "400KB"):
        given = {"max_tokens": 9, "shard_rows": 2, "memory": memory, "batch_size": 2}
        config = made(folder, tmp_path / "out", given)
        assert config is not None
        config = replace(config, input=str(prompts.parent))
        start(config)
        rows.append(outcome(config.output))
    before, after = rows
    assert "set --memory to 1MiB or more" in before[-1]["error"]
    assert before[-1]["retryable"]
    assert [row["error"] for row in after] == [None] * 6
    assert after[:5] == before[:5]
    plain = made(folder, tmp_path / "plain", {"max_tokens": 9, "shard_rows": 2})
    assert plain is not None
    start(replace(plain, input=str(prompts.parent)))
    assert outcome(plain.output) == after
