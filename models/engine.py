"""From an EngineConfig to a running token loop: the one place where the parts are chosen."""

from pathlib import Path
from typing import Protocol, cast

import torch
from tokenizers import Tokenizer

from models.drafting.draft import NOTHING, Shape
from models.drafting.drafter import Drafter
from models.drafting.hints import MOST as HINT_TOKENS
from models.drafting.parallel.decoders import WINDOW
from models.drafting.sizing.controller import Controller
from models.drafting.sizing.sizing import FixedSize, Sizing
from models.engine_config import EngineConfig as EngineConfig
from models.errors import InvalidOption
from models.loop.groups import need_plain
from models.loop.token_loop import TokenLoop
from models.memory.budget import budget_bytes, memory_for, parse_memory, pool_entries
from models.registry import NONE, drafter_entry, is_folder, load
from models.requests.admission import Advice
from models.requests.grammar import load_grammars
from models.requests.output_text import Decode
from models.schedules.feed import GroupTarget
from models.targets.guided import guide
from models.targets.load import DTYPES, load_target
from models.targets.target import Target

MAX_SCRATCH = 72  # nodes of one request's round, root included, that `auto` may use
LAG = 2  # rounds, one of each half of the batch, until drafts from elsewhere have a new shape


class Build(Protocol):
    """How the registry's drafters are made."""

    def __call__(
        self,
        config: EngineConfig,
        target: Target | None,
        *,
        rows: int,
        max_length: int | None,
        scratch: int,
        budget: int | None,
    ) -> Drafter | None:
        """A drafter for at most `rows` requests at once.

        `target`: what it drafts for; None: it is not in this process. `max_length`: of a request;
        None: as long as the drafter can. `scratch`: cache entries beyond it that a round may need.
        `budget`: bytes of its cache and the target's together; None: as the configuration says.
        """


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
    budget = budget_bytes(config.memory, target.device.type)
    made = drafter
    if made is None:
        made = build_drafter(config, target, max_length, budget=budget)
    scratch = _scratch(config) + _group_scratch(target)
    if target.schedule.in_order and has_tokenizer(config.target):
        scratch = max(scratch, 1 + HINT_TOKENS)
    per_entry = target.bytes_per_entry + (0 if made is None else made.bytes_per_entry)
    entries = pool_entries(
        budget,
        per_entry,
        rows=config.batch_size,
        longest=max_length + scratch,
    )
    fitting = _fitting(config, max_length, entries - scratch, scratch, per_entry)
    return TokenLoop(
        target,
        made,
        _sizing(config, made, lag=0 if drafter is None else LAG),
        rows=config.batch_size,
        max_length=fitting,
        scratch=scratch,
        entries=entries,
        verify=config.rule,
        prefill_chunk=config.prefill_chunk,
        decode=text_decoder(config.target),
        grammars=lambda: load_grammars(config.target, target.vocab_size, target.eos_token_ids),
        name=config.target,
        advise=_memory_advice(max_length, fitting, scratch, per_entry),
    )


def load_engine_target(config: EngineConfig) -> Target:
    """The target that the configuration names, whole in this process."""
    assert config.tensor_parallel == 1, "actors/ranks.py loads a target that is split"
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
    budget: int | None = None,
) -> Drafter | None:
    """The drafter that the configuration names; `target` (if at hand) is what it must fit.

    `max_length`: of a request; None: as long as the draft's context. `budget`: bytes of its cache
    and the target's together; None: as the configuration says.
    """
    build: Build = load(drafter_entry(config.drafter).where)
    rows, scratch = rows or config.batch_size, _scratch(config)
    return build(config, target, rows=rows, max_length=max_length, scratch=scratch, budget=budget)


def change_drafter(loop: TokenLoop, config: EngineConfig) -> None:
    """Let a loop that runs go on with another drafter; all else of `config` is as it was built.

    Raises:
        InvalidOption: there is no such drafter, it does not fit the target or into memory, or the
            loop began without a drafter, and so without room for drafts.
    """
    old = loop.drafter
    if old is None or config.drafter == NONE:
        raise InvalidOption("drafter", config.drafter, "a drafter, in a loop that began with one")
    is_folder(config.drafter)  # refuses what is no drafter
    made = build_drafter(config, loop.target, loop.max_length)
    assert made is not None
    if isinstance(parse_memory(config.memory), int) and made.bytes_per_entry > old.bytes_per_entry:
        most = f"a drafter with at most {old.bytes_per_entry} bytes of KV cache a token"
        raise InvalidOption("drafter", config.drafter, f"{most}: memory is {config.memory}")
    loop.change_drafter(made, _sizing(config, made, lag=0))


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


def _fitting(config: EngineConfig, max_length: int, room: int, scratch: int, per_entry: int) -> int:
    """The most tokens of a request that fits into the cache alone, which has `room` for so many.

    Raises:
        InvalidOption: it is less than `config.max_length`, or too little for any request.
    """
    wanted = config.max_length or 2
    if room < wanted:
        least = memory_for(wanted + scratch, per_entry)
        told = f"{least} or more: the KV cache has room for {max(room, 0)} tokens"
        told += f"; {wanted} are needed"
        raise InvalidOption("memory", config.memory, told)
    return min(max_length, room)


def _memory_advice(max_length: int, fitting: int, scratch: int, per_entry: int) -> Advice:
    """What would make room for a request that is longer than `fitting` tokens."""

    def advise(tokens: int) -> str:
        if tokens > max_length or fitting == max_length:
            return ""
        wanted = memory_for(tokens + scratch, per_entry)
        return f" into the KV cache's memory; for this request, set --memory to {wanted} or more"

    return advise


def _fixed_shape(config: EngineConfig) -> Shape | None:
    """The shape if the user fixed the number of tokens; a width left open is then a chain."""
    if config.draft_tokens == "auto":
        return Shape(depth=WINDOW) if drafter_entry(config.drafter).window else None
    width = 1 if config.draft_width == "auto" else int(config.draft_width)
    return Shape(depth=int(config.draft_tokens), width=width, nodes=config.draft_nodes or 0)


def _scratch(config: EngineConfig) -> int:
    """Cache entries beyond max_length that a round may need."""
    shape = _fixed_shape(config)
    if config.drafter == NONE:
        return 1
    return MAX_SCRATCH if shape is None else shape.depth * max(shape.width, 1) + 1


def _group_scratch(target: Target) -> int:
    return 0 if target.schedule.in_order else cast(GroupTarget, target).scratch


def _sizing(config: EngineConfig, drafter: Drafter | None, *, lag: int) -> Sizing:
    if drafter is None:
        return FixedSize(NOTHING)
    shape = _fixed_shape(config)
    if shape is not None:
        return FixedSize(shape)
    width, free = min(config.max_width, drafter.max_width), drafter_entry(config.drafter).free
    return Controller(max_width=width, free=free, lag=lag)


def has_tokenizer(folder: str) -> bool:
    """Whether a checkpoint is of a text model with a tokenizer."""
    return (Path(folder) / "tokenizer.json").exists()


def text_decoder(folder: str) -> Decode | None:
    """The checkpoint's own decoding of token ids, if it has a tokenizer.json."""
    if not has_tokenizer(folder):
        return None
    tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
    return lambda tokens: str(tokenizer.decode(tokens))
