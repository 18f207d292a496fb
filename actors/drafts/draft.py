"""A draft actor: one drafter that guesses for many targets, from messages alone.

A plain class; pools make it remote. It may die, be late or forget at any time: targets then go on
without it, and open their requests anew.
"""

import os
import time
from typing import Protocol, cast

import numpy as np
import torch

from actors.at_hand import at_hand
from actors.drafts.mirrors import Mirrors
from actors.messages import DraftAsk, DraftReply, Growth, Guess, SparseRows
from cluster import logs
from models.drafting.draft import Draft
from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.drafter import DraftContext, Drafter
from models.drafting.heads.eagle_drafter import EagleDrafter
from models.drafting.heads.heads_drafter import HeadsDrafter
from models.drafting.parallel.jacobi import JacobiDrafter
from models.drafting.reading import Reading, ReadingDrafter
from models.engine import build_drafter
from models.engine_config import EngineConfig
from models.errors import InvalidOption
from models.requests.sequence import Sequence
from models.sampling.maps import Maps
from models.sampling.noise import NoiseStore
from models.sampling.processing import Processor
from models.verify.round import RoundNoise

UNLIMITED = 1 << 40
CPU = torch.device("cpu")
WITH_MODELS = (ModelDrafter, EagleDrafter, HeadsDrafter)


class Model(Protocol):
    """What is asked of a drafter's model."""

    vocab_size: int
    context_length: int
    num_parameters: int
    device: torch.device


class DraftActor:
    """Owns a drafter and its copies of the targets' requests."""

    def __init__(self, name: str = "draft") -> None:
        self.name = name
        logs.set_up(name)
        self._drafter: Drafter | None = None
        self._read: dict[str, int] = {}  # positions whose states the drafter was told

    def start(self, config: EngineConfig, rows: int) -> dict[str, object]:
        """Load the drafter; it remembers `rows` requests of at most `config.max_length` tokens.

        Raises what loading raises: UnsupportedCheckpoint, OSError.
        """
        config = at_hand(config)
        if config.threads is not None:
            torch.set_num_threads(config.threads)
        drafter = build_drafter(config, None, config.max_length, rows=rows)
        assert drafter is not None, "a draft actor needs a drafter"
        self.serve(drafter, rows=rows, max_length=config.max_length)
        return self.describe()

    def serve(self, drafter: Drafter, *, rows: int, max_length: int | None = None) -> None:
        """Draft with this drafter, for requests of `max_length` tokens (None: all it can).

        Raises:
            InvalidOption: it reads the target's likeliest tokens, which messages do not carry.
        """
        if drafter.wants is not None and drafter.wants.top_k:
            told = "a drafter that reads no likeliest tokens of the target, or draft_actors=0"
            raise InvalidOption("drafter", drafter.name, told)
        self._drafter = drafter
        self._mirrors = Mirrors(rows, self._forget)
        self._noise: NoiseStore | None = None  # made for the first ask's vocabulary
        self._maps = Maps(drafter.model) if isinstance(drafter, ModelDrafter) else None
        self._max_length = max_length or self._context_length

    @property
    def _model(self) -> Model | None:
        return self._drafter.model if isinstance(self._drafter, WITH_MODELS) else None

    @property
    def _context_length(self) -> int:
        return UNLIMITED if self._model is None else self._model.context_length

    def describe(self) -> dict[str, object]:
        """What the drafter is."""
        assert self._drafter is not None, "start() comes first"
        model = self._model
        return {
            "name": self._drafter.name,
            "pid": os.getpid(),
            "max_width": self._drafter.max_width,
            "layers": () if self._drafter.wants is None else self._drafter.wants.layers,
            "by_choices": isinstance(self._drafter, JacobiDrafter),
            "max_length": self._max_length,
            "vocabulary": model and model.vocab_size,
            "parameters": model and model.num_parameters,
        }

    def ping(self) -> str:
        """Answers between drafts."""
        return self.name

    def draft(self, ask: DraftAsk) -> DraftReply:
        """Take in how requests have grown, and guess how they go on."""
        assert self._drafter is not None, "start() comes first"
        began, passes = time.perf_counter(), self._drafter.passes
        found, missing = self._mirrors.update(ask)
        found = [(g, s) for g, s in found if self._fits(ask, s)]
        guesses: tuple[Guess, ...] = ()
        if found:
            self._carry(found)
            self._tell(found)
            with torch.inference_mode():
                drafts = self._propose([s for _, s in found], ask)
            guesses = tuple(_guess(g, d) for (g, _), d in zip(found, drafts, strict=True))
        return DraftReply(
            guesses=guesses,
            missing=tuple(missing),
            passes=self._drafter.passes - passes,
            seconds=time.perf_counter() - began,
        )

    def _carry(self, found: list[tuple[Growth, Sequence]]) -> None:
        """Begin with what the targets would choose, where the drafter guesses by that."""
        if isinstance(self._drafter, JacobiDrafter):
            for growth, sequence in found:
                self._drafter.carry(sequence.id, growth.choices)

    def _tell(self, found: list[tuple[Growth, Sequence]]) -> None:
        """Hand over the target's states, where the drafter reads them."""
        if self._drafter is None or self._drafter.wants is None:
            return
        readings = []
        for growth, sequence in found:
            if growth.opening is not None:
                self._read[sequence.id] = 0
            if growth.states is not None:
                first, states = self._read[sequence.id], torch.from_numpy(growth.states)
                readings.append(Reading(sequence=sequence, first=first, states=states, top=None))
                self._read[sequence.id] += len(states)
        cast(ReadingDrafter, self._drafter).read(readings)

    def _forget(self, sequence: Sequence) -> None:
        assert self._drafter is not None
        self._drafter.forget(sequence.id)
        self._read.pop(sequence.id, None)
        if self._noise is not None:
            self._noise.forget(sequence.request.seed)

    def _fits(self, ask: DraftAsk, sequence: Sequence) -> bool:
        vocabulary = ask.vocab_size if self._model is None else self._model.vocab_size
        return ask.vocab_size == vocabulary and len(sequence.tokens) <= self._max_length

    def _propose(self, sequences: list[Sequence], ask: DraftAsk) -> list[Draft]:
        assert self._drafter is not None
        device = CPU if self._model is None else self._model.device
        if self._noise is None or self._noise.vocab_size != ask.vocab_size:
            self._noise = NoiseStore(ask.vocab_size, device)
        context = DraftContext(
            Processor(sequences, ask.vocab_size, device, self._maps),
            RoundNoise(sequences, self._noise),
            np.arange(len(sequences)),
            sampled=ask.sampled,
        )
        return self._drafter.propose(sequences, ask.shape, context)


def _guess(growth: Growth, draft: Draft) -> Guess:
    return Guess(
        id=growth.id,
        version=growth.version,
        tokens=draft.tokens,
        parents=draft.parents,
        probs=None if draft.probs is None else sparse(draft.probs),
    )


def sparse(probs: torch.Tensor) -> SparseRows:
    """[N, V] without its zeros."""
    rows, tokens = np.nonzero(dense := probs.cpu().numpy())
    return SparseRows(
        bounds=np.searchsorted(rows, np.arange(len(dense) + 1)),
        tokens=tokens.astype(np.int32),
        probs=dense[rows, tokens],
    )
