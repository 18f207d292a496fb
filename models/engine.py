"""From an EngineConfig to a running token loop: the one place where the parts are chosen."""

from pathlib import Path
from typing import cast

import torch
from tokenizers import Tokenizer

from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import NOTHING, Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.drafter import Drafter
from models.drafting.parallel.decoders import RULE_OF, WINDOW
from models.drafting.parallel.jacobi import JacobiDrafter
from models.drafting.parallel.window import Start
from models.drafting.sizing.controller import Controller
from models.drafting.sizing.sizing import FixedSize, Sizing
from models.engine_config import CHAINS
from models.engine_config import EngineConfig as EngineConfig
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.loop.groups import need_plain
from models.loop.token_loop import TokenLoop
from models.requests.output_text import Decode
from models.schedules.feed import GroupTarget
from models.targets.decoder.config import is_known, parse_config, read_configs
from models.targets.guided import guide
from models.targets.load import load_target
from models.targets.target import Target
from models.targets.vocabulary import same_vocabulary

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
MAX_SCRATCH = 72  # nodes of one request's round, root included, that `auto` may use
LAG = 2  # rounds, one of each half of the batch, until drafts from elsewhere have a new shape


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
        _sizing(config, made, lag=0 if drafter is None else LAG),
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


def _sizing(config: EngineConfig, drafter: Drafter | None, *, lag: int) -> Sizing:
    if drafter is None:
        return FixedSize(NOTHING)
    shape = _fixed_shape(config)
    if shape is not None:
        return FixedSize(shape)
    return Controller(
        max_width=min(config.max_width, drafter.max_width), free=config.drafter in CHAINS, lag=lag
    )


def text_decoder(folder: str) -> Decode | None:
    """The checkpoint's own decoding of token ids, if it has a tokenizer.json."""
    file = Path(folder) / "tokenizer.json"
    if not file.exists():
        return None
    tokenizer = Tokenizer.from_file(str(file))
    return lambda tokens: str(tokenizer.decode(tokens))
