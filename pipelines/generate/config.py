"""What a generate job is told: one field per option, the same in YAML, Python and the shell."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from models.drafting.parallel.decoders import (
    COUPLED,
    COUPLINGS,
    DEFAULT_COUPLING,
    DEFAULT_START,
    STARTS,
    WINDOW,
)
from models.memory.budget import parse_memory
from models.registry import (
    DECODERS,
    GUMBEL,
    MAPS,
    NONE,
    SEQUENTIAL,
    drafter_entry,
)
from models.requests.request import Sampling, require
from pipelines import engine_options
from pipelines.engine_options import (
    AUTO,
    DRAFTING,
    MAIN,
    SAMPLING,
    located,
    located_drafter,
    same_named,
    told_of,
)
from pipelines.options import check_types, option

if TYPE_CHECKING:
    from models.engine_config import EngineConfig

# What options are about, as --help groups them; see also pipelines/engine_options.py.
ROWS = "rows in and out"
ENDS = "end of a completion"
IMAGES = "images (with an image target only)"


@dataclass(frozen=True, slots=True, kw_only=True)
class GenerateConfig:
    """A generate job. Options marked `decides=True` decide what the output rows hold."""

    # The eight that matter first, then the others by what they are about.
    target: str = option(
        "folder of the target model: the model whose output you want", metavar="PATH", group=MAIN
    )
    input: str = option(
        "prompts: a Parquet, JSON Lines or text file (one prompt per line), or a folder of them; "
        "local or s3://",
        metavar="FILE_OR_FOLDER",
        group=MAIN,
    )
    output: str = option("folder for the output rows; local or s3://", metavar="FOLDER", group=MAIN)
    drafter: str = engine_options.drafter()
    max_tokens: int | None = option(
        "maximum number of tokens to generate per completion; default: 128, or the size of an "
        "image",
        default=None,
        decides=True,
        group=MAIN,
    )
    temperature: float = option(
        "sampling temperature; 0 always takes the most likely token",
        default=1.0,
        decides=True,
        group=MAIN,
    )
    batch_size: int = engine_options.batch_size()
    seed: int = option(
        "seed of the job; each row derives its own seed from it and from the row's id",
        default=0,
        decides=True,
        group=MAIN,
    )

    prompt_field: str | None = option(
        "input column with the prompt: a text, a list of chat messages, or the class of an image; "
        "default: prompt, or messages if there is no column prompt",
        default=None,
        decides=True,
        metavar="NAME",
        group=ROWS,
    )
    id_field: str = option(
        "input column that identifies a row; without it, the id is <file>:<row number>",
        default="id",
        decides=True,
        metavar="NAME",
        group=ROWS,
    )
    n: int = option(
        "number of completions per prompt; each becomes a row",
        default=1,
        decides=True,
        group=ROWS,
    )
    logprobs: int | None = option(
        "report each token's log-probability and those of the K most likely tokens (0 to 20)",
        default=None,
        decides=True,
        metavar="K",
        group=ROWS,
    )
    shard_rows: int = option(
        "number of input rows per output file; an interrupted job repeats unfinished files only",
        default=256,
        decides=True,
        group=ROWS,
    )
    resume: bool = option(
        "continue a job that was interrupted; --no-resume deletes its rows and starts over",
        default=True,
        group=ROWS,
    )
    summary: str | None = option(
        "file for the run's figures; default: _summary.json in the output folder",
        default=None,
        metavar="FILE.json",
        group=ROWS,
    )
    progress: bool = option("show a progress bar", default=True, group=ROWS)
    trace: str | None = option(
        "file that says where the time of the first 32 requests went, in all processes; Perfetto "
        "(ui.perfetto.dev) shows it",
        default=None,
        metavar="FILE.json",
        group=ROWS,
    )
    trace_ids: tuple[str, ...] = option(
        "trace the requests of the rows with these ids instead of the first ones",
        default=(),
        metavar="ID",
        group=ROWS,
    )

    top_p: float = option(
        "sample from the most likely tokens whose probabilities add up to this",
        default=1.0,
        decides=True,
        group=SAMPLING,
    )
    top_k: int = option(
        "sample from the K most likely tokens; 0: all",
        default=0,
        decides=True,
        metavar="K",
        group=SAMPLING,
    )
    min_p: float = option(
        "exclude tokens less likely than this fraction of the most likely one's probability",
        default=0.0,
        decides=True,
        group=SAMPLING,
    )
    presence_penalty: float = option(
        "subtracted from the logit of each token generated before (-2 to 2)",
        default=0.0,
        decides=True,
        group=SAMPLING,
    )
    frequency_penalty: float = option(
        "subtracted from a token's logit once per time it was generated (-2 to 2)",
        default=0.0,
        decides=True,
        group=SAMPLING,
    )
    repetition_penalty: float = option(
        "divides the logits of tokens in the prompt or generated before; 1: off",
        default=1.0,
        decides=True,
        group=SAMPLING,
    )
    noise: str = option(
        "map from a position's random numbers to its token; part of what a seed stands for",
        default=GUMBEL,
        decides=True,
        choices=MAPS,
        group=SAMPLING,
    )
    logit_bias: Mapping[int, float] = option(
        "numbers to add to the logits of single tokens, such as 42=-1.5; -inf excludes the token",
        factory=dict,
        decides=True,
        metavar="TOKEN=BIAS",
        group=SAMPLING,
    )

    min_tokens: int = option(
        "minimum number of tokens before a completion may end",
        default=0,
        decides=True,
        group=ENDS,
    )
    stop: tuple[str, ...] = option(
        "end a completion at any of these texts, which are cut off",
        default=(),
        decides=True,
        metavar="TEXT",
        group=ENDS,
    )
    stop_token_ids: tuple[int, ...] = option(
        "end a completion at any of these token ids",
        default=(),
        decides=True,
        metavar="TOKEN",
        group=ENDS,
    )
    ignore_eos: bool = option(
        "continue after the model's end-of-sequence token", default=False, decides=True, group=ENDS
    )

    draft_tokens: int | str = engine_options.draft_tokens()
    draft_width: int | str = engine_options.draft_width()
    draft_nodes: int | None = option(
        "score only the N most likely tokens of a tree of fixed size; default: all of them",
        default=None,
        group=DRAFTING,
    )
    verify: str = engine_options.verify()
    draft_actors: int = engine_options.draft_actors()

    decoder: str | None = option(
        f"how many of an image's tokens are decoded at once: {told_of(DECODERS)}; default: "
        f"{SEQUENTIAL}",
        default=None,
        choices=DECODERS,
        group=IMAGES,
    )
    window: int | None = option(
        f"number of tokens that a decoder other than {SEQUENTIAL}, or a student as the drafter, "
        f"guesses ahead; default: {WINDOW}",
        default=None,
        group=IMAGES,
    )
    coupling: str | None = option(
        f"how mc-sjd keeps a guess from one pass to the next; default: {DEFAULT_COUPLING}",
        default=None,
        choices=COUPLINGS,
        group=IMAGES,
    )
    start: str | None = option(
        "first guess of an image token: uniform (random), or that of its left neighbour or of the "
        f"one above; default: {DEFAULT_START}",
        default=None,
        choices=STARTS,
        group=IMAGES,
    )
    guidance: float | None = option(
        "scale of classifier-free guidance, 1: off; default: the target's generation_config.json "
        "(guidance_scale), else off",
        default=None,
        decides=True,
        metavar="SCALE",
        group=IMAGES,
    )
    student: str | None = option(
        "folder of a student, made by `paceline distill`, that makes the images instead of a "
        "target: in --steps passes each, of about the target's distribution",
        default=None,
        metavar="PATH",
        group=IMAGES,
    )
    steps: int = option("number of a student's passes per image", default=1, group=IMAGES)
    teacher: str | None = option(
        "folder of the target that the student was made for, to decode the --teacher-tokens",
        default=None,
        metavar="PATH",
        group=IMAGES,
    )
    teacher_tokens: str | None = option(
        "range of an image's tokens, from A to the one before B, that --teacher decodes one by one "
        "after the student has decided all of them; the student decides those from B on again: "
        "slower, and nearer to the target's distribution",
        default=None,
        metavar="A:B",
        group=IMAGES,
    )
    images_as: str | None = option(
        "bytes: PNGs in the rows; files: PNG files named by the rows; default: bytes",
        default=None,
        decides=True,
        choices=("bytes", "files"),
        group=IMAGES,
    )

    dtype: str = engine_options.dtype()
    arithmetic: str = engine_options.arithmetic()
    device: str = engine_options.device()
    threads: int | None = engine_options.threads()
    max_length: int | None = engine_options.max_length()
    memory: str | float | None = engine_options.memory()
    prefill_chunk: int = engine_options.prefill_chunk()
    tensor_parallel: int = engine_options.tensor_parallel()
    target_actors: int = engine_options.target_actors()
    max_target_actors: int | None = engine_options.max_target_actors()
    address: str | None = engine_options.address()

    def __post_init__(self) -> None:
        check_types(self)
        engine_options.check_engine(self)
        for name in ("input", "output", "prompt_field", "id_field"):
            require(getattr(self, name) != "", name, getattr(self, name), "a text, not empty")
        for name in ("n", "shard_rows"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(0 <= self.seed < 2**63, "seed", self.seed, "0 to 2**63 - 1")
        for name in ("draft_tokens", "draft_width"):
            value = getattr(self, name)
            ok = value == AUTO or (isinstance(value, int) and value >= 1)
            require(ok, name, value, "auto or a positive number")
        for name in ("window", "max_tokens", "draft_nodes"):
            value = getattr(self, name)
            require(value is None or value >= 1, name, value, "1 or more")
        if not self.guesses:
            told = "with decoder='sequential'" if self.decoder else "with drafter='none'"
            engine_options.check_drafts(self, told=told)
        ok = self.draft_actors == 0 or not self.decoder or drafter_entry(self.decoder).remote
        told = f"0 with decoder={self.decoder!r}: its guesses carry distributions"
        require(ok, "draft_actors", self.draft_actors, told)
        ok = self.draft_actors == 0 or drafter_entry(self.drafter).remote
        told = f"0 with drafter={self.drafter!r}: its guesses come from the target's last pass"
        require(ok, "draft_actors", self.draft_actors, told)
        guessing = tuple(name for name in DECODERS if name != SEQUENTIAL)
        owners = (("window", guessing), ("start", guessing), ("coupling", (COUPLED,)))
        for name, decoders in owners:
            ok = getattr(self, name) is None or self.decoder in decoders
            ok = ok or (name == "window" and drafter_entry(self.drafter).window)
            require(ok, name, getattr(self, name), f"only with decoder {' or '.join(decoders)}")
        parse_memory(self.memory)
        ok = not self.trace_ids or self.trace is not None
        require(ok, "trace_ids", self.trace_ids, "none without --trace")
        require(self.steps >= 1, "steps", self.steps, "1 or more")
        require(
            self.student is not None or self.steps == 1, "steps", self.steps, "only with --student"
        )
        for name, other in (("teacher", "teacher_tokens"), ("teacher_tokens", "teacher")):
            value, both = getattr(self, name), self.student is not None and getattr(self, other)
            told = f"only with --student and --{other.replace('_', '-')}"
            require(value is None or bool(both), name, value, told)
        self.sampling()

    @property
    def guesses(self) -> bool:
        """Whether anything is guessed ahead."""
        return self.drafter != NONE or self.decoder not in (None, SEQUENTIAL)

    def sampling(self) -> Sampling:
        """How each request's tokens are chosen."""
        values = same_named(self, Sampling)
        return Sampling(**{k: v for k, v in values.items() if k != "max_tokens" or v is not None})

    def engine(self) -> "EngineConfig":
        """What each target actor runs; folders of this machine by their full names."""
        from models.engine_config import EngineConfig

        values = same_named(self, EngineConfig)
        values["target"] = located(self.target)
        values["drafter"] = located_drafter(self.drafter)
        if self.decoder not in (None, SEQUENTIAL):
            values |= {"drafter": self.decoder, "draft_tokens": self.window or AUTO}
        elif drafter_entry(self.drafter).window:
            values |= {"draft_tokens": self.window or AUTO}
        return EngineConfig(**{k: v for k, v in values.items() if v is not None})
