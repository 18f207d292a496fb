"""From a typed configuration to a running token loop: the one place where the parts are chosen."""

from dataclasses import dataclass
from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer

from models.config import is_known, parse_config, read_configs
from models.controller import Controller
from models.costs import PassCost, measure
from models.decoders import (
    DEFAULT_COUPLING,
    DEFAULT_START,
    RULE_OF,
    WINDOW,
    check_decoder,
)
from models.draft import NOTHING, Shape
from models.drafters import Drafter, LookupDrafter, ModelDrafter
from models.drafters.jacobi import JacobiDrafter
from models.drafters.window import Start
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.exactness import ARITHMETICS, STEADY
from models.feed import GroupTarget
from models.groups import need_plain
from models.guided import guide
from models.load import load_target
from models.loop import TokenLoop
from models.request import VERIFY_RULES, require
from models.sequence import Decode
from models.sizing import FixedSize, Sizing
from models.target import Target
from models.vocabulary import same_vocabulary

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
CHAINS = ("none", "lookup", *RULE_OF)  # all other drafters are folders of models
MAX_SCRATCH = 72  # nodes of one request's round, root included, that `auto` may use


@dataclass(frozen=True, slots=True, kw_only=True)
class EngineConfig:
    """One target, one drafter, and how they run together.

    `drafter`: "none", "lookup", a checkpoint's folder, or a parallel decoder, "jacobi", "sjd" or
    "mc-sjd". `draft_tokens`: tokens ahead, or "auto"; a parallel decoder's window.
    `draft_width`: guesses for each of them, or "auto"; more than 1 only with a draft model and
    `match`. `draft_nodes`: how many of such a tree's guesses are scored, the likeliest (None: all).
    `max_length`: tokens a request may have, prompt and completion (None: the target's context);
    with `batch_size` it fixes the cache's memory. `threads`: torch threads (None: as is).
    `coupling`: of mc-sjd, "maximal" or "gumbel". `start`: a parallel decoder's first guess of a
    position, "uniform", "left" or "above". `verify`: sjd and mc-sjd go with `rejection`.
    `arithmetic`: "steady": a token has the same bits in every batch and draft, and on every x86 CPU
    with AVX2; "fast": whatever is fastest on the device. Where sums may round differently, results
    are labelled so.
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
    prefill_chunk: int = 256
    threads: int | None = None
    arithmetic: str = STEADY
    guidance: float = 1.0
    coupling: str = DEFAULT_COUPLING
    start: str = DEFAULT_START

    def __post_init__(self) -> None:
        require(self.verify in VERIFY_RULES, "verify", self.verify, f"one of {VERIFY_RULES}")
        require(self.dtype in DTYPES, "dtype", self.dtype, f"one of {tuple(DTYPES)}")
        devices = ("auto", "cpu", "cuda")
        require(self.device in devices, "device", self.device, f"one of {devices}")
        known = f"one of {ARITHMETICS}"
        require(self.arithmetic in ARITHMETICS, "arithmetic", self.arithmetic, known)
        require(self.batch_size >= 1, "batch_size", self.batch_size, "1 or more")
        require(0 <= self.guidance <= 100, "guidance", self.guidance, "0 to 100; 1 is off")
        require(self.prefill_chunk >= 1, "prefill_chunk", self.prefill_chunk, "1 or more")
        for name, most in (("draft_tokens", 64), ("draft_width", ModelDrafter.max_width)):
            value = getattr(self, name)
            ok = value == "auto" or (isinstance(value, int) and 1 <= value <= most)
            require(ok, name, value, f'"auto" or 1 to {most}')
        check_decoder(self.drafter, self.verify, self.coupling, self.start)
        if self.draft_width not in ("auto", 1):
            rule = "1 with this verify rule: trees need match"
            require(self.rule == "match", "draft_width", self.draft_width, rule)
            rule = "1 with this drafter: only a draft model grows trees"
            require(self.drafter not in CHAINS, "draft_width", self.draft_width, rule)
        if self.draft_nodes is not None:
            self._check_nodes(self.draft_nodes)

    def _check_nodes(self, nodes: int) -> None:
        """Of trees of a fixed size only: others have no guesses to leave out."""
        told = "only with numbers for draft_tokens and draft_width, a width above 1"
        tokens, width = self.draft_tokens, self.draft_width
        ok = isinstance(tokens, int) and isinstance(width, int) and width > 1
        require(ok, "draft_nodes", nodes, told)
        most = int(tokens) * int(width)
        require(1 <= nodes <= most, "draft_nodes", nodes, f"1 to {most}, all guesses of the tree")

    @property
    def rule(self) -> str:
        """The verify rule that is in force."""
        return RULE_OF.get(self.drafter, self.verify)

    @property
    def max_width(self) -> int:
        """The widest tree that the rule and the drafter allow."""
        if self.rule != "match" or self.drafter in CHAINS:
            return 1
        return ModelDrafter.max_width if self.draft_width == "auto" else int(self.draft_width)


def build_loop(
    config: EngineConfig, *, target: Target | None = None, drafter: Drafter | None = None
) -> TokenLoop:
    """Load the models and allocate the caches.

    `target`: `config.target` as it was loaded before, in this dtype and on this device; several
    loops may share it. `drafter`: use this one (one that lives elsewhere, say) instead of building
    `config.drafter`.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    if target is None:
        target = load_engine_target(config)
    target = guide(target, config.guidance)
    if not target.schedule.in_order:
        need_plain(config.drafter, config.rule)
    max_length = _max_length(config, target)
    made = drafter if drafter is not None else build_drafter(config, target, max_length)
    return TokenLoop(
        target,
        made,
        _sizing(config, target, made),
        rows=config.batch_size,
        max_length=max_length,
        scratch=_scratch(config) + _group_scratch(target),
        verify=config.rule,
        prefill_chunk=config.prefill_chunk,
        decode=text_decoder(config.target),
        name=config.target,
    )


def load_engine_target(config: EngineConfig) -> Target:
    """The target that the configuration names."""
    return load_target(
        config.target,
        dtype=DTYPES[config.dtype],
        device=config.device,
        arithmetic=config.arithmetic,
        rows=config.batch_size,
    )


def build_drafter(
    config: EngineConfig,
    target: Target | None,
    max_length: int | None,
    *,
    rows: int | None = None,
) -> Drafter | None:
    """The drafter that the configuration names; `target` (if at hand) is what it must fit.

    `max_length`: of a request; None: as long as the draft's context.
    """
    if config.drafter == "none":
        return None
    if config.drafter == "lookup":
        return LookupDrafter()
    if config.drafter in RULE_OF:
        return _parallel(config)
    model = load_target(config.drafter, dtype=DTYPES[config.dtype], device=config.device)
    if not model.schedule.in_order:
        raise UnsupportedCheckpoint(
            f"draft {config.drafter!r} decides its tokens in groups; it cannot guess the next one"
        )
    same_vocabulary(config.target, config.drafter)
    if target is not None and model.vocab_size != target.vocab_size:
        raise UnsupportedCheckpoint(
            f"draft {config.drafter!r} has a vocabulary of {model.vocab_size} tokens, "
            f"target {config.target!r} of {target.vocab_size}: they must be the same"
        )
    max_length = max_length or model.context_length
    if model.context_length < max_length:
        raise UnsupportedCheckpoint(
            f"draft {config.drafter!r} has a context of {model.context_length} tokens; "
            f"{max_length} are needed: set max_length to at most that, or use a longer draft"
        )
    return ModelDrafter(
        model,
        rows=rows or config.batch_size,
        capacity=max_length + _scratch(config),
        name=config.drafter,
    )


def _parallel(config: EngineConfig) -> JacobiDrafter:
    row_length = _row_length(config.target)
    if config.start == "above" and row_length is None:
        told = "left or uniform: the target's tokens form no grid"
        raise InvalidOption("start", config.start, told)
    how = {"jacobi": "shared", "sjd": "fresh"}.get(config.drafter, config.coupling)
    return JacobiDrafter(how, Start(rule=config.start, row_length=row_length or 1))


def _row_length(folder: str | Path) -> int | None:
    """Places in a row of an image target's grid; None: its tokens form none."""
    raw, generation = read_configs(Path(folder))
    config = parse_config(raw, generation) if is_known(raw) else None
    return None if config is None or config.grid is None else config.rotary.row_length


def _max_length(config: EngineConfig, target: Target) -> int:
    if config.max_length is None:
        return target.context_length
    size = target.schedule.num_positions
    if size is not None and config.max_length <= size:
        raise InvalidOption("max_length", config.max_length, f"{size + 1}: a class and its tokens")
    if not 2 <= config.max_length <= target.context_length:
        accepted = f"2 to the target's context of {target.context_length}"
        raise InvalidOption("max_length", config.max_length, accepted)
    return config.max_length


def _fixed_shape(config: EngineConfig) -> Shape | None:
    """The shape if the user fixed the number of tokens; a width left open is then a chain."""
    if config.draft_tokens == "auto":
        return Shape(depth=WINDOW) if config.drafter in RULE_OF else None
    width = 1 if config.draft_width == "auto" else int(config.draft_width)
    return Shape(depth=int(config.draft_tokens), width=width, nodes=config.draft_nodes or 0)


def _scratch(config: EngineConfig) -> int:
    """Cache entries beyond max_length that a round may need."""
    shape = _fixed_shape(config)
    if config.drafter == "none":
        return 1
    return MAX_SCRATCH if shape is None else shape.depth * max(shape.width, 1) + 1


def _group_scratch(target: Target) -> int:
    return 0 if target.schedule.in_order else cast(GroupTarget, target).scratch


def _sizing(config: EngineConfig, target: Target, drafter: Drafter | None) -> Sizing:
    if drafter is None:
        return FixedSize(NOTHING)
    shape = _fixed_shape(config)
    if shape is not None:
        return FixedSize(shape)
    cost: PassCost | None
    if isinstance(drafter, ModelDrafter):
        cost = measure(drafter.model)
    else:
        cost = getattr(drafter, "cost", None)  # a remote one was told
    return Controller(measure(target), cost, max_width=min(config.max_width, drafter.max_width))


def text_decoder(folder: str) -> Decode | None:
    """The checkpoint's own decoding of token ids, if it has a tokenizer.json."""
    file = Path(folder) / "tokenizer.json"
    if not file.exists():
        return None
    tokenizer = Tokenizer.from_file(str(file))
    return lambda tokens: str(tokenizer.decode(tokens))
