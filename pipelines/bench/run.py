"""`paceline bench`: the same prompts through every recipe, interleaved, in this process.

Token loops without Ray or pools: what is compared is how to decode, not where. For each batch size
the loops of all recipes are loaded, each with its own copy of the models.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

from tqdm import tqdm

from cluster.storage import storage
from models.engine import build_loop
from models.engine_config import EngineConfig
from models.loop.token_loop import TokenLoop
from models.registry import NONE, is_folder
from models.requests.request import Request, require
from models.targets.limits import read_limits
from models.targets.load import DTYPES, load_target
from models.targets.out_of_memory import memory_explained
from models.tokenizers.about import image_target
from pipelines.bench.advice import advice
from pipelines.bench.config import BenchConfig
from pipelines.bench.interleave import Outputs, Series, race, warmed
from pipelines.bench.machine import Machine, this_machine
from pipelines.bench.measurement import Measurement, measurement
from pipelines.bench.plots import draw
from pipelines.bench.recipe import PLAIN, Recipe, names
from pipelines.bench.table import table
from pipelines.checkpoints import with_local
from pipelines.engine_options import warn_of_threads
from pipelines.errors import InvalidInput
from pipelines.generate.bounds import check_drafter
from pipelines.generate.rows.prompts import Prompt, read_prompts, requests, shortened
from pipelines.options import as_dict

WARM_TOKENS = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """What came out; `skipped` prompts did not fit the target's context."""

    lines: tuple[Measurement, ...]
    advice: tuple[str, ...]
    machine: Machine
    config: Mapping[str, Any] = field(default_factory=dict)
    prompts: int = 0
    skipped: int = 0

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return {
            "machine": self.machine.as_dict(),
            "config": dict(self.config),
            "prompts": self.prompts,
            "skipped": self.skipped,
            "measurements": [line.as_dict() for line in self.lines],
            "advice": list(self.advice),
        }

    def text(self) -> str:
        """The table with what a reader must know of it, as Markdown."""
        settings = ("max_tokens", "temperature", "repeats", "dtype")
        told = ", ".join(f"{name} {self.config[name]}" for name in settings)
        skipped = f" ({self.skipped} did not fit the context)" if self.skipped else ""
        return "\n\n".join(
            [
                f"{self.config['target']} on {self.machine.line()}.",
                f"{self.prompts} prompts{skipped} from {self.config['input']}, {told}. Medians of "
                "interleaved runs of token loops in one process, without Ray; reading the prompts "
                "counts. Speed-up is over plain at the same batch size.",
                table(self.lines),
                *self.advice,
            ]
        )


def bench(config: BenchConfig) -> Bench:
    """Measure every recipe at every batch size; writes bench.md, bench.json and bench.png.

    Raises what `measure` raises, and StorageError if the output cannot be written.
    """
    storage.check_writable(storage.join(storage.normalize(config.output), "bench.json"))
    found = measure(config)
    write(found, config.output)
    return found


def measure(config: BenchConfig) -> Bench:
    """Measure every recipe at every batch size.

    Raises:
        PacelineError: an option, the input or a checkpoint cannot work.
        StorageError: the input or a checkpoint cannot be read.
    """
    here = with_local(config)
    recipes = _recipes(config, here)
    for recipe in recipes.values():  # checks what only the models know
        _check_drafter(here.engine(recipe, batch_size=1, max_length=2))
    warn_of_threads(config)
    prompts, skipped = _prompts(here)
    lines = _measure(here, recipes, prompts)
    return Bench(
        lines=tuple(lines),
        advice=tuple(advice(lines)),
        machine=this_machine(),
        config=as_dict(config),
        prompts=len(prompts),
        skipped=skipped,
    )


def _recipes(config: BenchConfig, here: BenchConfig) -> dict[Recipe, Recipe]:
    """Each recipe as the user names its drafter: the same with the folder on this machine."""
    given = dict(zip(here.drafter, config.drafter, strict=True))
    return {replace(r, drafter=given.get(r.drafter, r.drafter)): r for r in here.recipes()}


def _check_drafter(engine: EngineConfig) -> None:
    """Refuse a drafter that does not exist or fit the target, before anything is loaded."""
    if image_target(engine.target) is not None and not is_folder(engine.drafter):
        told = "none, or the folder of a draft model, with an image target"
        require(engine.drafter == NONE, "drafter", engine.drafter, told)
    check_drafter(engine, read_limits(engine.target))


def write(found: Bench, output: str) -> None:
    """The table, the data and the plot, into a folder."""
    url = storage.normalize(output)
    data = json.dumps(found.as_dict(), indent=1).encode()
    storage.publish(storage.join(url, "bench.json"), data)
    storage.publish(storage.join(url, "bench.md"), f"{found.text()}\n".encode())
    storage.publish(storage.join(url, "bench.png"), draw(found.lines))


def _prompts(config: BenchConfig) -> tuple[list[Prompt], int]:
    """The prompts that leave room for a completion, and how many do not."""
    target = load_target(config.target, dtype=DTYPES[config.dtype], device=config.device)
    read = read_prompts(
        config.input,
        checkpoint=config.target,
        count=config.prompts,
        prompt_field=config.prompt_field,
        id_field=config.id_field,
    )
    room = target.context_length - config.max_tokens
    fitting = [prompt for prompt in read if len(prompt.tokens) <= room]
    if not fitting:
        raise InvalidInput(
            f"no prompt of {config.input!r} leaves room for max_tokens={config.max_tokens} in the "
            f"target's context of {target.context_length}"
        )
    return fitting, len(read) - len(fitting)


def _measure(
    config: BenchConfig, recipes: Mapping[Recipe, Recipe], prompts: Sequence[Prompt]
) -> list[Measurement]:
    lines: list[Measurement] = []
    reference: Outputs | None = None  # plain at the first batch size
    total = len(recipes) * config.repeats * len(config.batch_size)
    with tqdm(total=total, unit="run", desc="bench", disable=not config.progress) as bar:
        for batch_size in config.batch_size:
            asked = requests(prompts, config.sampling(), seed=config.seed, at_least=batch_size)
            loops = _loops(config, recipes, batch_size, max(map(_length, asked)))
            series = run_all(loops, asked, config.repeats, bar)
            plain = series[PLAIN]
            reference = reference or plain.outputs
            lines += _lines(series, batch_size, reference)
    return lines


def _length(request: Request) -> int:
    return len(request.prompt) + request.sampling.max_tokens


def _loops(
    config: BenchConfig,
    recipes: Mapping[Recipe, Recipe],
    batch_size: int,
    max_length: int,
) -> dict[Recipe, TokenLoop]:
    """One loop per recipe."""
    loops = {}
    for recipe, here in recipes.items():
        engine = config.engine(here, batch_size=batch_size, max_length=max_length)
        with memory_explained("loading", engine):
            loops[recipe] = build_loop(engine)
    return loops


def run_all(
    loops: Mapping[Recipe, TokenLoop],
    asked: Sequence[Request],
    repeats: int,
    bar: "tqdm[Any]",
) -> dict[Recipe, Series]:
    """Warm each loop up, then run them in turn; a loop keeps what its controller has learned."""
    short = names(list(loops))
    warm = shortened(asked, count=2, max_tokens=WARM_TOKENS)
    contestants = {short[r]: warmed(loop, warm, lambda turn: asked) for r, loop in loops.items()}
    series = race(contestants, repeats, bar)
    return {recipe: series[short[recipe]] for recipe in loops}


def _lines(
    series: Mapping[Recipe, Series], batch_size: int, reference: Outputs
) -> list[Measurement]:
    """Plain is compared with plain at the first batch size, the others with plain at their own."""
    plain = series[PLAIN]
    lines = []
    for recipe, name in names(list(series)).items():
        compared = reference if recipe.is_plain else plain.outputs
        lines.append(
            measurement(
                name,
                series[recipe],
                plain,
                batch_size=batch_size,
                reference=compared,
                recipe=recipe,
            )
        )
    return lines
