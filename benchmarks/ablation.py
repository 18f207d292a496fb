"""A section on the compiled kernels: tokens/s with one C file after the other switched off."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any
from unittest.mock import patch

from benchmarks.section import Section
from benchmarks.work import Contestant, Setting, Work, compete, contestant, make_loop, target_of
from models.compute import linear
from models.compute.x86 import kernels
from models.compute.x86.attention_compiled import CompiledAttention
from models.sampling import noise, processing
from models.targets.decoder import decoder
from pipelines.bench.interleave import Series
from pipelines.bench.recipe import PLAIN, Recipe

BATCHES = (1, 8)
TURNS = 2  # of every slice
STEPS = (
    "nothing",
    "draft.c",
    "choose.c, noise.c",
    "score.c",
    "attention.c",
    "linear.c, rows.c",
)
HEADS = ("switched off", "tokens/s", "of all", "lost by this step")


def ablation(work: Work) -> Section:
    """What each C file buys, for plain decoding and for a tree, at batch 1 and 8."""
    section = Section(name="ablation", title="What the compiled kernels buy")
    section.notes.append(
        "A line switches off the C file that it names and those of the lines above it; Python and "
        "torch do their work."
    )
    for size in BATCHES:
        for name, recipe in {"plain": PLAIN, work.small_tree.size: work.small_tree}.items():
            setting = Setting(temperature=1.0, batch_size=size, at_least=2 * size)
            contestants = {
                step: _without(work, recipe, setting, level) for level, step in enumerate(STEPS)
            }
            title, turns = f"{name}, batch {size}", TURNS * len(work.slices)
            series = compete(title, contestants, turns, threads=work.threads)
            section.put(f"{name}, {setting}", HEADS, _rows(series))
    return section


def _rows(series: dict[str, Series]) -> list[list[str]]:
    rows, above = [], series[STEPS[0]]
    for step, found in series.items():
        speed, whole = found.middle.tokens_per_second, found.over(series[STEPS[0]])
        rows.append([step, f"{speed:.0f}", f"{whole:.2f}×", f"{1 - found.over(above):.0%}"])
        above = found
    return rows


def _without(work: Work, recipe: Recipe, setting: Setting, level: int) -> Contestant:
    """A loop that is built and run with the first `level` steps switched off."""
    with _switched_off(level):
        target_of.cache_clear()  # a target is built as the patches say
        inner = contestant(work, make_loop(work, recipe, setting), setting)
    target_of.cache_clear()

    def run(turn: int) -> Any:
        with _switched_off(level):
            return inner(turn)

    return run


@contextmanager
def _switched_off(level: int) -> Iterator[None]:
    absent = SimpleNamespace(compiled=lambda: False)
    patches: list[Any] = []
    if level >= 1:
        patches.append(patch.object(decoder.Decoder, "chooses", False))
    if level >= 2:
        patches.append(patch.object(noise, "kernels", absent))
        patches.append(patch.object(processing, "compiled", absent.compiled))
    if level >= 3:
        patches.append(patch.object(decoder, "stack_of", lambda *given: None))
    if level == 3:
        patches.append(patch.object(decoder, "torch_attention", CompiledAttention))
    if level >= 5:
        patches.append(patch.object(linear, "compiled", absent.compiled))
        patches.append(patch.object(kernels, "compiled", absent.compiled))
    with ExitStack() as stack:
        for each in patches:
            stack.enter_context(each)
        yield
