"""What a plan is made for: one field per option."""

from dataclasses import dataclass

from models.registry import NONE
from models.requests.request import require
from pipelines import engine_options
from pipelines.bench.config import BenchConfig
from pipelines.engine_options import HARDWARE, MAIN, SAMPLING
from pipelines.options import check_types, option

FIXED = 4  # tokens of a chain whose costs are measured beside those of `auto`


@dataclass(frozen=True, slots=True, kw_only=True)
class PlanConfig:
    """The models, the work to measure them with, and the devices to plan for."""

    target: str = option("folder of the target model", metavar="PATH", group=MAIN)
    drafter: str = engine_options.drafter()
    input: str = option(
        "prompts to measure with: a Parquet, JSON Lines or text file, or a folder of them",
        metavar="FILE_OR_FOLDER",
        group=MAIN,
    )
    gpus: tuple[int, ...] = option(
        "numbers of devices to plan for; each is taken to be like the one that is measured",
        default=(1, 2, 4, 8),
        group=MAIN,
    )
    rows: int = option("number of rows of the data set", default=1_000_000, group=MAIN)
    batch_size: int = engine_options.batch_size()
    max_tokens: int = option("maximum number of tokens per completion", default=64, group=MAIN)
    prompts: int = option("number of prompts to measure with", default=16, group=MAIN)
    repeats: int = option("number of runs; the median counts", default=3, group=MAIN)
    temperature: float = option(
        "sampling temperature; 0 always takes the most likely token", default=1.0, group=SAMPLING
    )
    progress: bool = option("show a progress bar", default=True, group=MAIN)
    dtype: str = engine_options.dtype()
    arithmetic: str = engine_options.arithmetic()
    device: str = engine_options.device()
    threads: int | None = option(
        "number of CPU threads; default: all cores", default=None, group=HARDWARE
    )

    def __post_init__(self) -> None:
        check_types(self)
        require(self.drafter != NONE, "drafter", self.drafter, "a drafter to plan with")
        require(self.batch_size >= 2, "batch_size", self.batch_size, "2 or more: pools halve it")
        require(self.rows >= 1, "rows", self.rows, "1 or more")
        for count in self.gpus:
            require(count >= 1, "gpus", count, "1 or more each")
        require(len(self.gpus) > 0, "gpus", self.gpus, "one or more")
        self.bench()

    def bench(self) -> BenchConfig:
        """What is measured: plain, `auto` and a chain, at the batch size and at half of it."""
        names = ("target", "input", "max_tokens", "prompts", "repeats", "temperature", "progress")
        values = {name: getattr(self, name) for name in (*names, "dtype", "arithmetic", "device")}
        return BenchConfig(
            **values,
            drafter=(self.drafter,),
            batch_size=(self.batch_size, self.batch_size // 2),
            draft_tokens=("auto", FIXED),
            draft_width=(1,),
            threads=self.threads,
        )
