"""What a bench is told: the work, and the recipes and batch sizes to try on it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.registry import NONE, RULES
from models.requests.request import Sampling, require
from pipelines import engine_options
from pipelines.bench.recipe import Recipe, grid
from pipelines.engine_options import AUTO, DRAFTER_NAMES, DRAFTING, HARDWARE, MAIN, SAMPLING
from pipelines.options import check_types, option

if TYPE_CHECKING:
    from models.engine_config import EngineConfig

ROWS = "prompts and runs"
OF_SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "ignore_eos")


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig:
    """A bench: every recipe of the grid at every batch size, on the same prompts."""

    target: str = option("folder of the target model", metavar="PATH", group=MAIN)
    input: str = option(
        "prompts: a Parquet, JSON Lines or text file, or a folder of them",
        metavar="FILE_OR_FOLDER",
        group=MAIN,
    )
    output: str = option(
        "folder for the table (bench.md, bench.json) and the plot (bench.png)",
        default="out/bench",
        metavar="FOLDER",
        group=MAIN,
    )
    drafter: tuple[str, ...] = option(
        "drafters to compare; plain decoding is always measured as well",
        default=("lookup",),
        metavar=DRAFTER_NAMES,
        group=MAIN,
    )
    batch_size: tuple[int, ...] = option("batch sizes to measure", default=(1, 4, 16), group=MAIN)
    max_tokens: int = option("maximum number of tokens per completion", default=64, group=MAIN)
    temperature: float = option(
        "sampling temperature; 0 always takes the most likely token", default=1.0, group=MAIN
    )
    prompts: int = option(
        "number of prompts to use, from the start of the input", default=16, group=MAIN
    )

    draft_tokens: tuple[int | str, ...] = option(
        "numbers of tokens to propose per round; auto: chosen every round",
        default=(AUTO, 2, 4),
        metavar="auto|N",
        group=DRAFTING,
    )
    draft_width: tuple[int | str, ...] = option(
        "numbers of alternatives for each proposed token; 1: chains, more: trees",
        default=(1, 4),
        metavar="auto|N",
        group=DRAFTING,
    )
    verify: tuple[str, ...] = option(
        f"verification rules: {', '.join(RULES)}",
        default=("match",),
        metavar="RULE",
        group=DRAFTING,
    )

    prompt_field: str | None = option(
        "input column with the prompt, a text or a list of chat messages; default: prompt, or "
        "messages if there is no column prompt",
        default=None,
        metavar="NAME",
        group=ROWS,
    )
    id_field: str = option(
        "input column that identifies a row", default="id", metavar="NAME", group=ROWS
    )
    repeats: int = option(
        "number of interleaved runs of each recipe; the median counts", default=3, group=ROWS
    )
    progress: bool = option("show a progress bar", default=True, group=ROWS)

    top_p: float = option(
        "sample from the most likely tokens whose probabilities add up to this",
        default=1.0,
        group=SAMPLING,
    )
    top_k: int = option(
        "sample from the K most likely tokens; 0: all", default=0, metavar="K", group=SAMPLING
    )
    min_p: float = option(
        "exclude tokens less likely than this fraction of the most likely one's probability",
        default=0.0,
        group=SAMPLING,
    )
    ignore_eos: bool = option(
        "continue after the model's end-of-sequence token", default=False, group=SAMPLING
    )
    seed: int = option("rows derive their seeds from it, as in generate", default=0, group=SAMPLING)

    dtype: str = engine_options.dtype()
    arithmetic: str = engine_options.arithmetic()
    device: str = engine_options.device()
    threads: int | None = option(
        "number of CPU threads; default: all cores", default=None, group=HARDWARE
    )

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("prompts", "repeats"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("drafter", "draft_tokens", "draft_width", "batch_size", "verify"):
            require(len(getattr(self, name)) > 0, name, getattr(self, name), "one or more")
        for size in self.batch_size:
            require(size >= 1, "batch_size", size, "1 or more each")
        for rule in self.verify:
            require(rule in RULES, "verify", rule, f"one of {', '.join(RULES)}")
        for name in ("draft_tokens", "draft_width"):
            for value in getattr(self, name):
                ok = value == AUTO or (isinstance(value, int) and value >= 1)
                require(ok, name, value, "auto or a positive number each")
        if not any(drafter not in ("", NONE) for drafter in self.drafter):
            for name in ("draft_tokens", "draft_width", "verify"):
                value, default = getattr(self, name), self.__dataclass_fields__[name].default
                told = "unset with drafter='none' alone: plain decoding has no drafts"
                require(value == default, name, value, told)
        require(0 <= self.seed < 2**63, "seed", self.seed, "0 to 2**63 - 1")
        self.sampling()

    def recipes(self) -> list[Recipe]:
        """Plain decoding is always among them: the others are measured against it."""
        drafters = [drafter or NONE for drafter in self.drafter]
        return grid(drafters, self.draft_tokens, self.draft_width, self.verify)

    def sampling(self) -> Sampling:
        """How each request's tokens are chosen."""
        return Sampling(**{name: getattr(self, name) for name in OF_SAMPLING})

    def engine(self, recipe: Recipe, *, batch_size: int, max_length: int) -> "EngineConfig":
        """One recipe at one batch size."""
        from models.engine_config import EngineConfig

        return EngineConfig(
            target=self.target,
            drafter=recipe.drafter,
            draft_tokens=recipe.draft_tokens,
            draft_width=recipe.draft_width,
            verify=recipe.verify,
            dtype=self.dtype,
            arithmetic=self.arithmetic,
            device=self.device,
            batch_size=batch_size,
            max_length=max_length,
            threads=self.threads,
        )
