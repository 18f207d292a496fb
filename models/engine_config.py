"""How one target and its drafter run together: what `build_loop` is told. Loads no torch."""

from dataclasses import dataclass

from models.drafting.parallel.decoders import DEFAULT_COUPLING, DEFAULT_START, check_decoder
from models.exactness import ARITHMETICS, STEADY
from models.memory.budget import parse_memory
from models.registry import FOLDER, RULES, drafter_entry
from models.requests.request import require

DTYPE_NAMES = ("float32", "bfloat16", "float16")
MAX_WIDTH = FOLDER.max_width  # of a draft model's tree, as models/compute/x86/csrc/kernels.h has it


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """One target, one drafter, and how they run together.

    `drafter`: "none", "lookup", the folder of a draft model, of an EAGLE-3 drafter or of Medusa
    heads, or a parallel decoder, "jacobi", "sjd" or
    "mc-sjd". `draft_tokens`: tokens ahead, or "auto"; a parallel decoder's window.
    `draft_width`: guesses for each of them, or "auto"; more than 1 only with a drafter in a
    folder and `match`. `draft_nodes`: how many of such a tree's guesses are scored, the likeliest
    (None: all).
    `max_length`: tokens a request may have, prompt and completion (None: the target's context);
    a limit that lowers what the caches need. `memory`: for the KV caches of target and draft
    model, "8GiB" or a share of the free memory such as 0.5 (None: half of it; pools divide a
    share by the actors on a node); less where
    `batch_size` requests of `max_length` tokens need less. `threads`: torch threads (None: as is).
    `coupling`: of mc-sjd, "maximal" or "gumbel". `start`: a parallel decoder's first guess of a
    position, "uniform", "left" or "above". `verify`: sjd and mc-sjd go with `rejection`.
    `arithmetic`: "steady": a token has the same bits in every batch and draft, and on every x86 CPU
    with AVX2; "fast": whatever is fastest on the device. Where sums may round differently, results
    are labelled so.
    `tensor_parallel`: processes that hold the target together, each a part of it.
    `guidance`: classifier-free guidance's scale, for targets that read conditions; 1: off.
    """

    target: str
    drafter: str = "none"
    draft_tokens: str | int = "auto"
    draft_width: str | int = "auto"
    draft_nodes: int | None = None
    verify: str = "match"
    dtype: str = "float32"
    device: str = "auto"
    batch_size: int = 8
    max_length: int | None = None
    memory: str | float | None = None
    prefill_chunk: int = 256
    threads: int | None = None
    arithmetic: str = STEADY
    guidance: float = 1.0
    coupling: str = DEFAULT_COUPLING
    start: str = DEFAULT_START
    tensor_parallel: int = 1

    def __post_init__(self) -> None:
        require(self.verify in RULES, "verify", self.verify, f"one of {tuple(RULES)}")
        require(self.dtype in DTYPE_NAMES, "dtype", self.dtype, f"one of {DTYPE_NAMES}")
        devices = ("auto", "cpu", "cuda")
        require(self.device in devices, "device", self.device, f"one of {devices}")
        known = f"one of {ARITHMETICS}"
        require(self.arithmetic in ARITHMETICS, "arithmetic", self.arithmetic, known)
        for name in ("batch_size", "tensor_parallel"):
            require(getattr(self, name) >= 1, name, getattr(self, name), "1 or more")
        require(0 <= self.guidance <= 100, "guidance", self.guidance, "0 to 100; 1 is off")
        require(self.prefill_chunk >= 1, "prefill_chunk", self.prefill_chunk, "1 or more")
        parse_memory(self.memory)
        for name, most in (("draft_tokens", 64), ("draft_width", MAX_WIDTH)):
            value = getattr(self, name)
            ok = value == "auto" or (isinstance(value, int) and 1 <= value <= most)
            require(ok, name, value, f'"auto" or 1 to {most}')
        check_decoder(self.drafter, self.verify, self.coupling, self.start)
        if self.draft_width not in ("auto", 1):
            rule = "1 with this verify rule: trees need match"
            require(not RULES[self.rule].sampled, "draft_width", self.draft_width, rule)
            rule = "1 with this drafter: only a drafter in a folder grows trees"
            wide = drafter_entry(self.drafter).max_width > 1
            require(wide, "draft_width", self.draft_width, rule)
        if self.draft_nodes is not None:
            self._check_nodes(self.draft_nodes)

    def _check_nodes(self, nodes: int) -> None:
        """Of trees of a fixed size only: others have no guesses to leave out."""
        told = "set only with a number for draft_tokens and a number above 1 for draft_width"
        tokens, width = self.draft_tokens, self.draft_width
        ok = isinstance(tokens, int) and isinstance(width, int) and width > 1
        require(ok, "draft_nodes", nodes, told)
        most = int(tokens) * int(width)
        require(1 <= nodes <= most, "draft_nodes", nodes, f"1 to {most}, all guesses of the tree")

    @property
    def rule(self) -> str:
        """The verify rule that is in force."""
        return drafter_entry(self.drafter).rule or self.verify

    @property
    def max_width(self) -> int:
        """The widest tree that the rule and the drafter allow."""
        most = 1 if RULES[self.rule].sampled else drafter_entry(self.drafter).max_width
        return most if self.draft_width == "auto" else min(most, int(self.draft_width))
