"""What a bench is told: the work, and the recipes and batch sizes to try on it."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.exactness import ARITHMETICS, STEADY
from models.request import VERIFY_RULES, Sampling, require
from pipelines.options import check_types, option
from pipelines.recipe import AUTO, NONE, Recipe, grid

if TYPE_CHECKING:
    from models.engine_config import EngineConfig

SAMPLING = ("max_tokens", "temperature", "top_p", "top_k", "min_p", "ignore_eos")


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What is generated, the same for every recipe; options are those of `paceline generate`."""

    target: str = option("folder of the model that decides every token", metavar="PATH")
    input: str = option(
        "prompts: a Parquet, JSON Lines or text file, or a folder of them", metavar="FILE_OR_FOLDER"
    )
    output: str = option(
        "folder for the table (bench.md, bench.json) and the plot (bench.png)",
        default="out/bench",
        metavar="FOLDER",
    )
    prompt_field: str = option(
        "the input's column that holds the prompt", default="prompt", metavar="NAME"
    )
    id_field: str = option("the input's column that tells rows apart", default="id", metavar="NAME")
    prompts: int = option("prompts to take, from the input's start", default=16)
    repeats: int = option("runs of each recipe, of which the median counts", default=3)
    max_tokens: int = option("tokens a completion may have", default=64)
    temperature: float = option("0: always the likeliest token", default=1.0)
    top_p: float = option("sample from this much probability", default=1.0)
    top_k: int = option("sample from this many tokens; 0: all", default=0)
    min_p: float = option("leave out tokens this much less likely than the likeliest", default=0.0)
    ignore_eos: bool = option("go on after the model's own end", default=False)
    seed: int = option("rows derive their seeds from it, as in generate", default=0)
    dtype: str = option(
        "numbers that the models run in",
        default="float32",
        choices=("float32", "bfloat16", "float16"),
    )
    arithmetic: str = option("steady or fast, as in generate", default=STEADY, choices=ARITHMETICS)
    device: str = option("where they run", default=AUTO, choices=(AUTO, "cpu", "cuda"))
    threads: int | None = option("CPU threads", default=None)
    progress: bool = option("show a progress bar", default=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class BenchConfig(Workload):
    """A bench: every recipe of the grid at every batch size."""

    drafter: tuple[str, ...] = option(
        "who guesses ahead; plain always runs, too", default=("lookup",)
    )
    draft_tokens: tuple[int | str, ...] = option("sizes to try", default=(AUTO, 2, 4))
    draft_widths: tuple[int | str, ...] = option("widths to try", default=(1, 4))
    batch_sizes: tuple[int, ...] = option("batch sizes to try", default=(1, 4, 16))
    verify: tuple[str, ...] = option("rules to try", default=("match",))

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("prompts", "repeats"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("drafter", "draft_tokens", "draft_widths", "batch_sizes", "verify"):
            require(len(getattr(self, name)) > 0, name, getattr(self, name), "one or more")
        for batch_size in self.batch_sizes:
            require(batch_size >= 1, "batch_sizes", batch_size, "1 or more each")
        for rule in self.verify:
            require(rule in VERIFY_RULES, "verify", rule, f"one of {', '.join(VERIFY_RULES)}")
        for name in ("draft_tokens", "draft_widths"):
            for value in getattr(self, name):
                ok = value == AUTO or (isinstance(value, int) and value >= 1)
                require(ok, name, value, "auto or a positive number each")
        require(0 <= self.seed < 2**63, "seed", self.seed, "0 to 2**63 - 1")
        self.sampling()

    def recipes(self) -> list[Recipe]:
        """Plain decoding is always among them: the others are measured against it."""
        drafters = [drafter or NONE for drafter in self.drafter]
        return grid(drafters, self.draft_tokens, self.draft_widths, self.verify)

    def sampling(self) -> Sampling:
        """How each request's tokens are chosen."""
        return Sampling(**{name: getattr(self, name) for name in SAMPLING})

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
