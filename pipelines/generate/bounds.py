"""Options that no row could be run with: refused before anything is written or Ray starts.

Reads the checkpoints' configurations and tokenizers, no weights.
"""

from pathlib import Path
from typing import Protocol

from models.drafting.folder_kind import MODEL, folder_kind, refuse_pickles
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.registry import FLOW, GUMBEL, RULES, is_folder
from models.students.about import is_student
from models.targets.decoder.config import read_configs
from models.targets.image_tokens import same_images
from models.targets.limits import Limits, read_limits
from models.targets.vocabulary import same_size, same_vocabulary
from pipelines.generate.config import GenerateConfig


class Drafting(Protocol):
    """What a configuration says of target and drafter."""

    @property
    def target(self) -> str: ...
    @property
    def drafter(self) -> str: ...
    @property
    def max_length(self) -> int | None: ...


def check_bounds(config: GenerateConfig, limits: Limits) -> None:
    """Check tokens and lengths against the target's vocabulary and context.

    Raises:
        InvalidOption: names the option, its value and what the target accepts.
    """
    if limits.vocab_size is not None:
        _check_tokens(config, limits.vocab_size)
    _check_lengths(config, limits.context_length)
    _check_noise(config)
    if config.stop and not (Path(config.target) / "tokenizer.json").exists():
        told = f"only with a target that has a tokenizer.json, which {config.target!r} lacks"
        raise InvalidOption("stop", config.stop, told)


def check_drafter(config: Drafting, limits: Limits) -> None:
    """Check that the drafter is there, and that a draft model fits the target's `limits`.

    For students see pipelines/generate/student.py.

    Raises:
        InvalidOption: there is no such drafter.
        UnsupportedCheckpoint: the draft model does not fit.
    """
    if not is_folder(config.drafter) or is_student(config.drafter):
        return
    refuse_pickles(config.drafter)
    draft = read_limits(config.drafter)
    if folder_kind(config.drafter) == MODEL:
        same_images(config.target, config.drafter)
    same_vocabulary(config.target, config.drafter)
    if limits.vocab_size is not None and draft.vocab_size is not None:
        same_size(config.target, limits.vocab_size, config.drafter, draft.vocab_size)
    room = config.max_length or limits.context_length
    bounded = folder_kind(config.drafter) == MODEL  # others have no positions of their own
    if bounded and room and draft.context_length and draft.context_length < room:
        raise UnsupportedCheckpoint(
            f"draft {config.drafter!r} has a context of {draft.context_length} tokens; "
            f"{room} are needed: set max_length to at most that, or use a longer draft"
        )


def _check_tokens(config: GenerateConfig, vocab_size: int) -> None:
    """Tokens that options name must be in the vocabulary."""
    named = (("logit_bias", config.logit_bias), ("stop_token_ids", config.stop_token_ids))
    for name, tokens in named:
        for token in tokens:
            if not 0 <= token < vocab_size:
                told = f"token {token} is not in the target's vocabulary of 0 to {vocab_size - 1}"
                raise InvalidOption(name, getattr(config, name), told)


def _check_noise(config: GenerateConfig) -> None:
    """Rules with random numbers of their own leave a map nothing to decide.

    The flow map needs a codebook; a student, which has one, uses it without being told.
    """
    if config.noise == FLOW and read_configs(Path(config.target))[0].get("code_width") is None:
        told = f"{GUMBEL} with this target: {FLOW} needs a codebook, code_width in config.json"
        raise InvalidOption("noise", config.noise, told)
    rule = config.engine().rule
    if config.noise != GUMBEL and RULES[rule].sampled:
        raise InvalidOption("noise", config.noise, f"{GUMBEL} with {rule}: other maps need match")


def _check_lengths(config: GenerateConfig, context: int | None) -> None:
    """A prompt of one token and a completion must fit."""
    longest = config.max_length
    if longest is not None and (longest < 2 or (context and longest > context)):
        most = f" to the target's context of {context}" if context else " or more"
        raise InvalidOption("max_length", longest, f"2{most}")
    room, of = (longest, "max_length") if longest else (context, "the target's context")
    wanted = config.sampling().max_tokens
    if room and wanted >= room:
        told = f"at most {room - 1}: {of} is {room} tokens, those of the prompt included"
        raise InvalidOption("max_tokens", wanted, told)
