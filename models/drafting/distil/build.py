"""Builds what a training of a drafter needs, on each worker: teacher, texts, network."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import torch
from torch import nn

from models.drafting.distil.draft_vocabulary import DraftVocabulary, frequent_ids
from models.drafting.distil.kind import Course, DrafterKind, Shape
from models.drafting.distil.networks.eagle import EagleNetwork
from models.drafting.distil.networks.eagle_start import continue_eagle, new_eagle
from models.drafting.distil.networks.hydra import HydraNetwork, new_hydra
from models.drafting.distil.networks.medusa import MedusaNetwork, continue_medusa, new_medusa
from models.drafting.distil.networks.small_image_model import (
    SmallImageModel,
    continue_image_model,
    new_image_model,
)
from models.drafting.distil.networks.small_model import SmallModel, continue_model, new_model
from models.drafting.distil.streamed import Stream, streamed_teacher, taps_of
from models.drafting.distil.teacher import Teaches, load_teacher
from models.drafting.distil.texts import Text, read_texts
from models.drafting.folder_kind import EAGLE, HYDRA, MEDUSA, MODEL, folder_kind
from models.drafting.heads.eagle_export import write_eagle
from models.drafting.heads.eagle_layouts import read_eagle
from models.drafting.heads.files import target_head
from models.drafting.heads.hydra_head import read_hydra, write_hydra
from models.drafting.heads.medusa_head import read_medusa, write_medusa
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.targets.decoder.config import (
    RASTER,
    DecoderConfig,
    is_known,
    parse_config,
    read_configs,
)
from models.training.engines.worker import Worker

# The command's names.
TRAINABLE = {"model": MODEL, "medusa": MEDUSA, "hydra": HYDRA, "eagle": EAGLE}
STEP = 64  # widths of new drafters are multiples of it, where the target is wide enough


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftLessons:
    """What a drafter is built of and taught with.

    `kind`: of TRAINABLE. `start`: the folder of a drafter to go on from; None: a new one. `files`:
    of texts, in order. `width`: of a new draft model or EAGLE-3 drafter, or of the embedding of new
    Hydra heads; None: from the target's. `draft_vocab`: how many tokens a new drafter can draft,
    the most frequent ones of the texts `first`, or of `files`; None: all. `guidance`: scale of the
    laws of an image target to learn, 1: off. `about`: what the export says of itself.
    """

    kind: str
    target: str
    files: tuple[str, ...]
    course: Course
    length: int
    seed: int
    start: str | None = None
    width: int | None = None
    draft_vocab: int | None = None
    first: tuple[str, ...] | None = None
    guidance: float = 1.0
    about: Mapping[str, object] = field(default_factory=dict)


def build_drafter(
    lessons: DraftLessons, worker: Worker, stream: Stream | None = None
) -> DrafterKind:
    """Everything before the first step; the same on every worker.

    `stream`: who holds the target; None: this process.

    Raises:
        UnsupportedCheckpoint: target, start or records cannot be used.
    """
    target, kept = Path(lessons.target), lessons.course.kept
    config = target_config(target)
    reading = partial(read_texts, length=lessons.length, num_ids=config.input_size)
    texts = reading(lessons.files)
    if len(texts) <= kept:
        told = f"{len(texts)} texts; {kept} are kept for exams, so more are needed"
        raise UnsupportedCheckpoint(told)
    first = texts if lessons.first is None else reading(lessons.first)
    network, shape = network_of(lessons, target, config, first[: len(first) - kept])
    network.to(worker.device)
    about = {"kind": lessons.kind, **lessons.about}
    teacher: Teaches
    if stream is None:
        teacher = load_teacher(target, taps_of(network), lessons.guidance, worker.device)
    else:
        teacher = streamed_teacher(
            stream,
            network,
            texts,
            kind=lessons.kind,
            kept=kept,
            worker=worker,
            width=config.width,
            guidance=lessons.guidance,
            vocabulary=vocabulary_of(network),
        )
    return DrafterKind(
        network,
        shape,
        teacher,
        texts,
        lessons.course,
        target=target,
        vocabulary=vocabulary_of(network),
        about=about,
        device=worker.device,
    )


def vocabulary_of(network: nn.Module) -> DraftVocabulary | None:
    """What a network can draft; None: everything."""
    ids = getattr(network, "ids", None)
    return None if ids is None else DraftVocabulary(ids)


def target_config(target: Path) -> DecoderConfig:
    """The target's sizes.

    Raises:
        UnsupportedCheckpoint: it is no model of the families that our decoder runs.
    """
    raw, generation = read_configs(target)
    config = parse_config(raw, generation) if is_known(raw) else None
    if config is None:
        told = (
            "drafters are trained for text targets of the kinds llama, mistral, qwen2 and qwen3, "
            f"and for image targets of the kind {RASTER}"
        )
        raise UnsupportedCheckpoint(f"target {str(target)!r}: {told}")
    return config


def network_of(
    lessons: DraftLessons, target: Path, config: DecoderConfig, texts: Sequence[Text] = ()
) -> tuple[nn.Module, Shape]:
    """What is trained, and how it is used; `texts` decide which tokens a new drafter can draft.

    Raises:
        UnsupportedCheckpoint: `start` holds another kind, or cannot be trained; or the target has
            no drafters of this kind.
    """
    if config.grid is not None and lessons.kind != "model":
        told = f"it generates images, whose drafters are of kind 'model', not {lessons.kind!r}"
        raise UnsupportedCheckpoint(f"target {str(target)!r}: {told}")
    start = None if lessons.start is None else Path(lessons.start)
    if start is not None and folder_kind(start) != TRAINABLE[lessons.kind]:
        told = f"a drafter of kind {lessons.kind!r} is needed, it holds {folder_kind(start)!r}"
        raise UnsupportedCheckpoint(f"start {str(start)!r}: {told}")
    ids = None if start is not None else _ids(lessons, config, texts)
    if lessons.kind == "model":
        model = _model(lessons, start, config) if config.grid is None else None
        return model or _image_model(lessons, start, target), ModelShape(_dtype(target))
    if lessons.kind == "medusa":
        return _medusa(lessons, start, target, ids), MedusaShape(_dtype(target))
    if lessons.kind == "hydra":
        return _hydra(lessons, start, target, ids), HydraShape(_dtype(target))
    return _eagle(lessons, start, target, config, ids), EagleShape(
        _dtype(target), target, lessons.course.depth
    )


def _ids(
    lessons: DraftLessons, config: DecoderConfig, texts: Sequence[Text]
) -> torch.Tensor | None:
    """The tokens that a new drafter can draft, the ends of texts among them; None: all."""
    count, size, ends = lessons.draft_vocab, config.vocab_size, config.eos_token_ids
    if count is None:
        return None
    if not len(ends) < count <= size:
        raise InvalidOption("draft_vocab", count, f"{len(ends) + 1} to the vocabulary's {size}")
    return frequent_ids(texts, count, vocab_size=size, always=ends)


def _dtype(target: Path) -> torch.dtype:
    """Of the target's matrices; the drafter is stored in it."""
    return target_head(target).dtype


def _model(lessons: DraftLessons, start: Path | None, config: DecoderConfig) -> SmallModel:
    if start is None:
        width = lessons.width or _share(config.width, 3, 8)
        return new_model(config, width=width, seed=lessons.seed)
    model = continue_model(start)
    if model.inner.config.vocab_size != config.vocab_size:
        told = f"a vocabulary of {model.inner.config.vocab_size}, the target of {config.vocab_size}"
        raise UnsupportedCheckpoint(f"start {str(start)!r} has {told}")
    return model


def _image_model(lessons: DraftLessons, start: Path | None, target: Path) -> SmallImageModel:
    if start is None:
        return new_image_model(target, width=lessons.width, seed=lessons.seed)
    return continue_image_model(start, target)


def _medusa(
    lessons: DraftLessons, start: Path | None, target: Path, ids: torch.Tensor | None
) -> MedusaNetwork:
    if start is None:
        return new_medusa(target_head(target), num_heads=lessons.course.depth, ids=ids)
    stored = read_medusa(start, target)
    if not stored.config.shared:
        told = "heads under the target's own output matrix can be trained"
        raise UnsupportedCheckpoint(f"start {str(start)!r}: {told}")
    _check_depth(stored.config.num_heads, lessons)
    return continue_medusa(stored, target_head(target))


def _hydra(
    lessons: DraftLessons, start: Path | None, target: Path, ids: torch.Tensor | None
) -> HydraNetwork:
    if start is None:
        head = target_head(target)
        embedded = lessons.width or _share(head.shape[1], 3, 8)
        return new_hydra(head, num_heads=lessons.course.depth, embedded=embedded, ids=ids)
    stored = read_hydra(start, target)
    _check_depth(stored.config.num_heads, lessons)
    return HydraNetwork(stored.config, stored.tensors, stored.output, stored.ids)


def _check_depth(heads: int, lessons: DraftLessons) -> None:
    if heads != lessons.course.depth:
        told = f"{heads} heads: set depth to that"
        raise UnsupportedCheckpoint(f"start {lessons.start!r} has {told}")


def _eagle(
    lessons: DraftLessons,
    start: Path | None,
    target: Path,
    config: DecoderConfig,
    ids: torch.Tensor | None,
) -> EagleNetwork:
    depth = lessons.course.depth
    if start is None:
        width = lessons.width or _share(config.width, 1, 2)
        return new_eagle(target, config, width=width, depth=depth, seed=lessons.seed, ids=ids)
    stored = read_eagle(start, target)
    layer = stored.config.layer
    if layer.qk_norm or layer.qkv_bias or layer.mlp_bias:
        told = "drafters with a Llama layer without biases can be trained"
        raise UnsupportedCheckpoint(f"start {str(start)!r}: {told}")
    return continue_eagle(stored, target, depth=depth)


def _share(width: int, part: int, of: int) -> int:
    """A part of a width, rounded down to a multiple of STEP where it is larger."""
    found = width * part // of
    return found // STEP * STEP if found > STEP else max(2, found // 2 * 2)


@dataclass(frozen=True, slots=True)
class ModelShape:
    """A draft model: index i predicts token i + 1."""

    dtype: torch.dtype
    first = 1

    def save(self, model: nn.Module, folder: Path) -> None:
        """In Hugging Face layout, or as an image model of our decoder."""
        assert isinstance(model, SmallModel | SmallImageModel)
        model.save(folder, self.dtype)


@dataclass(frozen=True, slots=True)
class MedusaShape:
    """Medusa heads: index i predicts tokens from i + 2 on."""

    dtype: torch.dtype
    first = 2

    def save(self, model: nn.Module, folder: Path) -> None:
        """With vLLM's names."""
        assert isinstance(model, MedusaNetwork)
        write_medusa(model.stored(self.dtype), folder)


@dataclass(frozen=True, slots=True)
class HydraShape:
    """Hydra heads: index i, with the tokens after it, predicts tokens from i + 2 on."""

    dtype: torch.dtype
    first = 2

    def save(self, model: nn.Module, folder: Path) -> None:
        """In our own layout."""
        assert isinstance(model, HydraNetwork)
        write_hydra(model.stored(self.dtype), folder)


@dataclass(frozen=True, slots=True)
class EagleShape:
    """An EAGLE-3 drafter: index i, with token i + 1, predicts tokens from i + 2 on."""

    dtype: torch.dtype
    target: Path
    depth: int
    first = 2

    def save(self, model: nn.Module, folder: Path) -> None:
        """In the layout of speculators."""
        assert isinstance(model, EagleNetwork)
        write_eagle(
            model.stored(self.dtype),
            folder,
            layout="speculators",
            target=self.target,
            draft_tokens=self.depth,
        )
