"""What a server is told: one field per option, the same in YAML, Python and the shell."""

from dataclasses import dataclass
from pathlib import Path

from models.engine_config import EngineConfig
from models.errors import InvalidOption
from models.exactness import ARITHMETICS, STEADY
from models.registry import RULES
from models.requests.request import require
from pipelines.generate.config import AUTO, DRAFTING, HARDWARE, MAIN
from pipelines.options import check_types, option
from pipelines.serve.access import is_loopback

HTTP = "HTTP and limits"
OF_ENGINE = (
    "drafter",
    "draft_tokens",
    "draft_width",
    "verify",
    "dtype",
    "device",
    "batch_size",
    "max_length",
    "prefill_chunk",
    "threads",
    "arithmetic",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServeConfig:
    """A server of one model."""

    target: str = option("folder of the target model to serve", metavar="PATH", group=MAIN)
    drafter: str = option(
        "what proposes tokens for the target to check: none, lookup (copies from the text so far) "
        "or the folder of a small draft model; it changes no token",
        default="none",
        metavar="none|lookup|PATH",
        group=MAIN,
    )
    host: str = option(
        "address to listen on; one that other machines can reach needs --api-key-file",
        default="127.0.0.1",
        group=MAIN,
    )
    port: int = option("port to listen on", default=8000, group=MAIN)
    model_name: str | None = option(
        "what clients call the model; default: the name of the target's folder",
        default=None,
        metavar="NAME",
        group=MAIN,
    )
    batch_size: int = option(
        "number of completions each target actor works on at once", default=8, group=MAIN
    )
    api_key_file: str | None = option(
        "file with the SHA-256 of each API key, one per line: printf %s KEY | sha256sum",
        default=None,
        metavar="FILE",
        group=HTTP,
    )
    max_queued: int = option(
        "number of completions that may wait; further requests get status 429",
        default=256,
        group=HTTP,
    )
    max_body_bytes: int = option(
        "maximum size of a request's body; larger ones get status 413",
        default=4 * 2**20,
        group=HTTP,
    )
    draft_tokens: int | str = option(
        "number of tokens to propose per round (1 to 64); auto: chosen every round by measured "
        "cost and acceptance",
        default=AUTO,
        metavar="auto|N",
        group=DRAFTING,
    )
    draft_width: int | str = option(
        "number of alternatives for each proposed token (1 to 8): 1 is a chain, more a tree",
        default=AUTO,
        metavar="auto|N",
        group=DRAFTING,
    )
    verify: str = option(
        "how the target accepts proposed tokens: match gives the same tokens as without a "
        "drafter, rejection and block the same distribution",
        default="match",
        choices=tuple(RULES),
        group=DRAFTING,
    )
    draft_actors: int = option(
        "number of separate drafter processes, shared by all targets; 0: each target runs its own "
        "drafter",
        default=0,
        group=DRAFTING,
    )
    dtype: str = option(
        "type of weights and cache",
        default="float32",
        choices=("float32", "bfloat16", "float16"),
        group=HARDWARE,
    )
    arithmetic: str = option(
        "steady: a token's scores have the same bits in every batch and draft; fast: whatever is "
        "fastest on the device",
        default=STEADY,
        choices=ARITHMETICS,
        group=HARDWARE,
    )
    device: str = option(
        "device to run the models on; auto: a GPU if there is one",
        default=AUTO,
        choices=(AUTO, "cpu", "cuda"),
        group=HARDWARE,
    )
    threads: int | None = option(
        "number of CPU threads of each model process; default: all cores, shared equally",
        default=None,
        group=HARDWARE,
    )
    max_length: int | None = option(
        "maximum number of tokens of a prompt and its completion together, which bounds the "
        "cache's memory; default: the target's context length",
        default=None,
        group=HARDWARE,
    )
    prefill_chunk: int = option(
        "number of prompt tokens to read per pass", default=256, group=HARDWARE
    )
    target_actors: int = option("number of copies of the target", default=1, group=HARDWARE)
    address: str | None = option(
        "Ray cluster to run on (auto or HOST:6379); default: a private one on this machine",
        default=None,
        group=HARDWARE,
    )

    def __post_init__(self) -> None:
        check_types(self)
        for name in ("target", "drafter", "host", "model_name"):
            require(getattr(self, name) != "", name, getattr(self, name), "a text, not empty")
        for name in ("batch_size", "target_actors", "max_body_bytes", "prefill_chunk"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        for name in ("max_queued", "draft_actors"):
            require(getattr(self, name) >= 0, name, getattr(self, name), "0 or more")
        ok = self.drafter != "none" or self.draft_actors == 0
        require(ok, "draft_actors", self.draft_actors, "0 with drafter='none'")
        require(self.threads is None or self.threads >= 1, "threads", self.threads, "1 or more")
        require(0 < self.port < 2**16, "port", self.port, "1 to 65535")
        if not is_loopback(self.host) and self.api_key_file is None:
            told = "localhost, 127.0.0.1 or ::1; other addresses need --api-key-file"
            raise InvalidOption("host", self.host, told)
        self.engine()

    @property
    def name(self) -> str:
        """What clients call the model."""
        return self.model_name or Path(self.target).absolute().name

    def engine(self) -> EngineConfig:
        """What each target actor runs; folders of this machine by their full names."""
        values = {name: getattr(self, name) for name in OF_ENGINE}
        if Path(self.drafter).is_dir() and self.drafter not in ("none", "lookup"):
            values["drafter"] = str(Path(self.drafter).absolute())
        return EngineConfig(target=str(Path(self.target).absolute()), **values)
