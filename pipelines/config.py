"""What a generate job is told: one field per option, the same in YAML, Python and the shell."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from models.decoders import COUPLINGS, DEFAULT_COUPLING, DEFAULT_START, RULE_OF, STARTS, WINDOW
from models.exactness import ARITHMETICS, STEADY
from models.request import VERIFY_RULES, Sampling, require
from pipelines.options import check_types, option

if TYPE_CHECKING:
    from models.engine_config import EngineConfig

AUTO = "auto"
SEQUENTIAL = "sequential"
DECODERS = (SEQUENTIAL, *RULE_OF)


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateConfig:
    """A generate job. Options marked `decides=True` decide what the output rows hold."""

    target: str = option("folder of the model that decides every token", metavar="PATH")
    input: str = option(
        "prompts: a Parquet, JSON Lines or text file (one prompt a line), or a folder of them; "
        "local or s3://",
        metavar="FILE_OR_FOLDER",
    )
    output: str = option("folder for the output rows, local or s3://", metavar="FOLDER")
    drafter: str = option(
        "who guesses ahead: none, lookup (repeats of the text so far) or a draft model's folder",
        default="none",
        metavar="none|lookup|PATH",
    )
    draft_tokens: int | str = option(
        "tokens to guess ahead; auto: measured and chosen every round",
        default=AUTO,
        metavar="auto|N",
    )
    draft_width: int | str = option(
        "guesses at each of them (a tree; 1: a chain)", default=AUTO, metavar="auto|N"
    )
    draft_nodes: int | None = option(
        "of a tree of a fixed size, score the N likeliest guesses; default: all", default=None
    )
    prompt_field: str = option(
        "the input's column that holds the prompt: a text, or the class of an image",
        default="prompt",
        decides=True,
        metavar="NAME",
    )
    id_field: str = option(
        "the input's column that tells rows apart; without one, rows are <file>:<row number>",
        default="id",
        decides=True,
        metavar="NAME",
    )
    max_tokens: int | None = option(
        "tokens a completion may have; default: 128, or as many as an image has",
        default=None,
        decides=True,
    )
    min_tokens: int = option("tokens before a completion may end", default=0, decides=True)
    temperature: float = option("0: always the likeliest token", default=1.0, decides=True)
    top_p: float = option("sample from this much probability", default=1.0, decides=True)
    top_k: int = option("sample from this many tokens; 0: all", default=0, decides=True)
    min_p: float = option(
        "leave out tokens this much less likely than the likeliest", default=0.0, decides=True
    )
    presence_penalty: float = option(
        "subtracted from tokens generated before", default=0.0, decides=True
    )
    frequency_penalty: float = option(
        "subtracted from tokens per time generated", default=0.0, decides=True
    )
    repetition_penalty: float = option(
        "divides the scores of tokens seen before", default=1.0, decides=True
    )
    logit_bias: Mapping[int, float] = option(
        "added to single tokens' scores", factory=dict, decides=True, metavar="TOKEN=BIAS"
    )
    stop: tuple[str, ...] = option(
        "texts that end a completion and are not part of it",
        default=(),
        decides=True,
        metavar="TEXT",
    )
    stop_token_ids: tuple[int, ...] = option(
        "tokens that end a completion", default=(), decides=True, metavar="TOKEN"
    )
    ignore_eos: bool = option("go on after the model's own end", default=False, decides=True)
    n: int = option("completions of each prompt; one row each", default=1, decides=True)
    logprobs: int | None = option(
        "report each token's log-probability and the K likeliest",
        default=None,
        decides=True,
        metavar="K",
    )
    seed: int = option("the job's seed; rows derive theirs from it", default=0, decides=True)
    verify: str = option(
        "how guesses are checked: match gives the same tokens as no drafter; rejection and block "
        "the same distribution",
        default="match",
        decides=True,
        choices=VERIFY_RULES,
    )
    decoder: str | None = option(
        "images: how many of their tokens are worked on at once; sequential (the default): one; "
        "jacobi: a window, the same images; sjd, mc-sjd: a window, images of the same distribution",
        default=None,
        choices=DECODERS,
    )
    window: int | None = option(
        f"images: tokens ahead that jacobi, sjd and mc-sjd guess; default: {WINDOW}", default=None
    )
    coupling: str | None = option(
        f"images: how mc-sjd keeps a guess from one pass to the next; default: {DEFAULT_COUPLING}",
        default=None,
        choices=COUPLINGS,
    )
    start: str | None = option(
        "images: the first guess at a token: any one (uniform), its left neighbour's, or that "
        f"above it; default: {DEFAULT_START}",
        default=None,
        choices=STARTS,
    )
    guidance: float | None = option(
        "images: classifier-free guidance's scale, 1: off; default: what the target's "
        "generation_config.json says (guidance_scale), else off",
        default=None,
        decides=True,
        metavar="SCALE",
    )
    images_as: str | None = option(
        "images: PNG bytes in the rows (the default), or files that the rows name",
        default=None,
        decides=True,
        choices=("bytes", "files"),
    )
    target_actors: int = option("copies of the target", default=1)
    draft_actors: int = option("copies of the drafter; 0: it lives beside the target", default=0)
    batch_size: int = option("completions each target works on at once", default=8)
    max_length: int | None = option(
        "tokens a prompt and its completion may have together, which bounds the cache's memory; "
        "default: the target's context",
        default=None,
        decides=True,
    )
    prefill_chunk: int = option("prompt tokens read at once", default=256)
    dtype: str = option(
        "numbers that the models run in",
        default="float32",
        decides=True,
        choices=("float32", "bfloat16", "float16"),
    )
    arithmetic: str = option(
        "steady: a token's scores have the same bits in every batch and draft and on every x86 CPU "
        "with AVX2; fast: whatever the device does fastest. Each row's exactness says what held",
        default=STEADY,
        decides=True,
        choices=ARITHMETICS,
    )
    device: str = option("where they run", default=AUTO, choices=(AUTO, "cpu", "cuda"))
    threads: int | None = option("CPU threads of each model actor", default=None)
    shard_rows: int = option(
        "input rows per output file; a killed job runs again those that were not finished",
        default=256,
        decides=True,
    )
    resume: bool = option(
        "go on with an output folder that this job began; --no-resume: start over", default=True
    )
    summary: str | None = option(
        "where to write the run's figures; default: _summary.json in the output folder",
        default=None,
        metavar="FILE.json",
    )
    address: str | None = option(
        "of a running Ray cluster (auto, HOST:6379); default: start one here", default=None
    )
    progress: bool = option("show a progress bar", default=True)

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("target", "input", "output", "prompt_field", "id_field", "drafter"):
            require(bool(getattr(self, name)), name, getattr(self, name), "a text, not empty")
        for name in ("n", "target_actors", "batch_size", "prefill_chunk", "shard_rows"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(self.draft_actors >= 0, "draft_actors", self.draft_actors, "0 or more")
        require(0 <= self.seed < 2**63, "seed", self.seed, "0 to 2**63 - 1")
        for name in ("draft_tokens", "draft_width"):
            value = getattr(self, name)
            ok = value == AUTO or (isinstance(value, int) and value >= 1)
            require(ok, name, value, "auto or a positive number")
        for name in ("threads", "window", "max_tokens", "draft_nodes"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "1 or more")
        ok = self.guesses or self.draft_actors == 0
        told = "decoder='sequential'" if self.decoder else "drafter='none'"
        require(ok, "draft_actors", self.draft_actors, f"0 with {told}")
        ok = self.draft_actors == 0 or self.decoder in (None, SEQUENTIAL, "jacobi")
        told = f"0 with decoder={self.decoder!r}: its guesses carry distributions"
        require(ok, "draft_actors", self.draft_actors, told)
        guessing = DECODERS[1:]
        owners = (("window", guessing), ("start", guessing), ("coupling", guessing[-1:]))
        for name, decoders in owners:
            ok = getattr(self, name) is None or self.decoder in decoders
            require(ok, name, getattr(self, name), f"only with decoder {' or '.join(decoders)}")
        self.sampling()

    @property
    def guesses(self) -> bool:
        """Whether anything is guessed ahead."""
        return self.drafter != "none" or self.decoder not in (None, SEQUENTIAL)

    def sampling(self) -> Sampling:
        """How each request's tokens are chosen."""
        values = _same_named(self, Sampling)
        return Sampling(**{k: v for k, v in values.items() if k != "max_tokens" or v is not None})

    def engine(self) -> "EngineConfig":
        """What each target actor runs; folders of this machine by their full names."""
        from models.engine_config import EngineConfig

        values = _same_named(self, EngineConfig)
        values["target"] = _located(self.target)
        if self.drafter not in ("none", "lookup"):
            values["drafter"] = _located(self.drafter)
        if self.decoder not in (None, SEQUENTIAL):
            values |= {"drafter": self.decoder, "draft_tokens": self.window or AUTO}
        return EngineConfig(**{k: v for k, v in values.items() if v is not None})


def _same_named(config: GenerateConfig, other: Any) -> dict[str, Any]:
    """What the other configuration also has; the rest is left to its defaults."""
    names = other.__dataclass_fields__
    return {name: getattr(config, name) for name in names if hasattr(config, name)}


def _located(folder: str) -> str:
    return str(Path(folder).absolute()) if Path(folder).is_dir() else folder
