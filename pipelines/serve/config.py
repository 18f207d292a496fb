"""What a server is told: one field per option, the same in YAML, Python and the shell."""

from dataclasses import dataclass
from pathlib import Path

from cluster.storage.checkpoints import is_remote
from models.engine_config import EngineConfig
from models.errors import InvalidOption
from models.exactness import STEADY
from models.registry import NONE
from models.requests.request import require
from pipelines import engine_options
from pipelines.engine_options import MAIN, located, located_drafter, same_named
from pipelines.options import check_types, option
from pipelines.serve.door.access import is_loopback

HTTP = "HTTP and limits"
# Options that all models of a server share.
OF_SERVER = (
    "host",
    "port",
    "api_key_file",
    "max_per_key",
    "max_seconds",
    "max_body_bytes",
    "drain_seconds",
    "ingresses",
    "address",
)
# What a student does without.
OF_TARGETS = (
    "drafter",
    "learn",
    "draft_tokens",
    "draft_width",
    "draft_actors",
    "verify",
    "dtype",
    "arithmetic",
    "max_length",
    "memory",
    "prefill_chunk",
    "tensor_parallel",
    "max_target_actors",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """A model and its server. Several models are several of these, see models.py."""

    target: str = option("folder of the target model to serve", metavar="PATH", group=MAIN)
    student: str | None = option(
        "folder of a student, made by `paceline distill`, that makes the images instead of the "
        "target, which may then be left out",
        default=None,
        metavar="PATH",
        group=MAIN,
    )
    steps: int = option(
        "number of a student's passes per image, of requests that do not say",
        default=1,
        group=MAIN,
    )
    drafter: str = engine_options.drafter()
    learn: str | None = option(
        "folder for a drafter that the server trains on its own answers while it runs; requests "
        "are stored there, as token ids; see docs/serve.md",
        default=None,
        metavar="FOLDER",
        group=MAIN,
    )
    host: str = option(
        "address to listen on; one that other machines can reach needs --api-key-file",
        default="127.0.0.1",
        group=MAIN,
    )
    port: int = option("port to listen on", default=8000, group=MAIN)
    model_name: str | None = option(
        "what clients call the model; default: the name of its folder",
        default=None,
        metavar="NAME",
        group=MAIN,
    )
    batch_size: int = engine_options.batch_size()
    api_key_file: str | None = option(
        "file with the SHA-256 of each API key, one per line: printf %s KEY | sha256sum; a key "
        "with the word priority behind it may send requests before others, one with the word admin "
        "may change the drafter",
        default=None,
        metavar="FILE",
        group=HTTP,
    )
    max_queued: int = option(
        "number of completions that may wait; further requests get status 429",
        default=256,
        group=HTTP,
    )
    max_per_key: int = option(
        "number of completions that one API key may have at once; 0: no limit; status 429",
        default=0,
        group=HTTP,
    )
    max_seconds: float = option(
        "time that a request may take, from its arrival; 0: no limit; status 504",
        default=0.0,
        group=HTTP,
    )
    max_body_bytes: int = option(
        "maximum size of a request's body; larger ones get status 413",
        default=4 * 2**20,
        group=HTTP,
    )
    drain_seconds: float = option(
        "time that answers may take to end after SIGTERM, while new requests get status 503; "
        "0: none; Ctrl-C stops the server at once",
        default=20.0,
        group=HTTP,
    )
    ingresses: int = option(
        "number of processes that answer HTTP: if one dies, the others go on at once",
        default=1,
        group=HTTP,
    )
    draft_tokens: int | str = engine_options.draft_tokens()
    draft_width: int | str = engine_options.draft_width()
    verify: str = engine_options.verify()
    draft_actors: int = engine_options.draft_actors()
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
        for name in ("host", "model_name"):
            require(getattr(self, name) != "", name, getattr(self, name), "a text, not empty")
        require(self.max_body_bytes >= 1, "max_body_bytes", self.max_body_bytes, "1 or more")
        for name in ("max_queued", "max_per_key", "max_seconds", "drain_seconds"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        require(1 <= self.ingresses <= 64, "ingresses", self.ingresses, "1 to 64")
        told = "0 with more than one of --ingresses, which do not count for each other"
        ok = self.ingresses == 1 or self.max_per_key == 0
        require(ok, "max_per_key", self.max_per_key, told)
        if self.drafter == NONE and self.student is None:
            engine_options.check_drafts(self, told="with drafter='none'")
        require(0 < self.port < 2**16, "port", self.port, "1 to 65535")
        require(self.student != "", "student", self.student, "a text, not empty")
        require(self.steps >= 1, "steps", self.steps, "1 or more")
        require(
            self.student is not None or self.steps == 1, "steps", self.steps, "only with --student"
        )
        if self.student is not None:
            self._refuse_unused()
        if self.learn is not None:
            self._refuse_unlearnable(self.learn)
        if not is_loopback(self.host) and self.api_key_file is None:
            told = "localhost, 127.0.0.1 or ::1; other addresses need --api-key-file"
            raise InvalidOption("host", self.host, told)
        self.engine()

    def _refuse_unused(self) -> None:
        """Raise InvalidOption for what has no meaning, or cannot be honoured, with a student."""
        for name in OF_TARGETS:
            value, default = getattr(self, name), self.__dataclass_fields__[name].default
            require(value == default, name, value, f"only {default!r} with a student")
        require(self.device != "cuda", "device", self.device, "auto or cpu with a student")

    def _refuse_unlearnable(self, learn: str) -> None:
        """Raise InvalidOption for what cannot be honoured while the drafter is trained."""
        require(learn != "" and not is_remote(learn), "learn", learn, "a folder of this machine")
        told = "match with --learn: with other rules the tokens depend on the drafter"
        require(self.verify == "match", "verify", self.verify, told)
        told = f"{STEADY} with --learn: drafts may change how fast sums are rounded"
        require(self.arithmetic == STEADY, "arithmetic", self.arithmetic, told)
        told = "0 with --learn: draft actors keep the drafter that they began with"
        require(self.draft_actors == 0, "draft_actors", self.draft_actors, told)
        told = "none with --learn, which trains on this machine"
        require(self.address is None, "address", self.address, told)

    @property
    def checkpoint(self) -> str:
        """The folder of the model that answers."""
        return self.student or self.target

    @property
    def name(self) -> str:
        """What clients call the model."""
        return self.model_name or Path(self.checkpoint).absolute().name

    def engine(self) -> EngineConfig:
        """What each target actor runs; folders of this machine by their full names."""
        values = same_named(self, EngineConfig)
        values |= {"target": located(self.target), "drafter": located_drafter(self.drafter)}
        return EngineConfig(**values)
