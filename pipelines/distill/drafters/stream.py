"""`--states stream`: the target in actors of its own, and a window that fits the object store."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from actors.teacher import TeacherConfig
from actors.teachers import store_room, teachers
from cluster.placement.placement import selector
from models.drafting.distil.build import (
    DraftLessons,
    network_of,
    target_config,
    vocabulary_of,
)
from models.drafting.distil.kind import EXAM_BATCH
from models.drafting.distil.reading import Need, need_of
from models.drafting.distil.streamed import Stream, taps_of
from models.errors import InvalidOption
from models.targets.decoder.config import DecoderConfig
from pipelines.distill.deepspeed_file import PARTS
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.drafters.texts import written_at_most
from pipelines.distill.places import TRAINER, teacher_gpus, training
from pipelines.distill.stages import deepspeed_of, plan_of, threads_of

WINDOW = 4  # steps, where they fit


@contextmanager
def streaming(
    config: DrafterOptions, lessons: DraftLessons, tell: Callable[[str], None], *, until: int
) -> Iterator[Stream]:
    """Start the teacher actors, and say how many steps are asked ahead.

    Raises:
        InvalidOption: so many steps do not fit in the object store.
        PoolFailed: the actors cannot start.
    """
    network, sizes = _network(lessons)
    told = TeacherConfig(
        target=config.target,
        taps=taps_of(network),
        need=_need(lessons, network),
        guidance=lessons.guidance,
        threads=threads_of(config),
        device=config.device,
        num_gpus=teacher_gpus(config, device=config.device),
    )
    workers = training(config, device=config.device, labels=selector(TRAINER))
    loads = loads_of(config, lessons, network, sizes)
    with teachers(told, actors=config.target_actors, beside=workers) as readers:
        room = store_room()
        assert room is not None, "the teachers' nodes are there"
        window = fitting(config, loads, room)
        tell(
            f"states     {window} steps ahead, at most {loads.step / 2**20:.1f} MiB each for every "
            f"worker; {room / 2**20:.0f} MiB of the object store may be used"
        )
        yield Stream(
            readers=readers,
            plan=plan_of(config),
            until=until,
            window=window,
            accumulate=(deepspeed_of(config) or {}).get(PARTS, 1),
        )


def require_store(config: DrafterOptions, lessons: DraftLessons) -> None:
    """Refuse what will not fit, before hours are spent on records; nothing while it is unknown.

    Raises:
        InvalidOption: a step does not fit in the object store, or not as many as are asked for.
    """
    if (room := store_room()) is not None:
        fitting(config, loads_of(config, lessons, *_network(lessons)), room)


@dataclass(frozen=True, slots=True, kw_only=True)
class Loads:
    """Bytes in the object store, at most: of a worker's part of a step, of a part of an exam."""

    step: int
    exam: int


def loads_of(
    config: DrafterOptions, lessons: DraftLessons, network: nn.Module, sizes: DecoderConfig
) -> Loads:
    """What the texts of a run may need: distributions are sent for tokens that the target wrote.

    A text of an exam is that of a record, or its prompt with what the target writes in the loop.
    """
    need, some = _need(lessons, network), vocabulary_of(network)
    length, written = config.text_length, most_written(config, images=sizes.grid is not None)
    texts = -(-config.train_batch // config.workers)
    return Loads(
        step=need.num_bytes(
            tokens=texts * length,
            written=texts * written,
            width=sizes.width,
            vocab_size=sizes.vocab_size if some is None else len(some.ids) + 1,
        ),
        exam=need.num_bytes(
            tokens=EXAM_BATCH * max(length, length // 2 + config.exam_length),
            written=EXAM_BATCH * max(written, config.exam_length),
            width=sizes.width,
            vocab_size=sizes.vocab_size,
        ),
    )


def most_written(config: DrafterOptions, *, images: bool) -> int:
    """The tokens of a text that the target wrote, at most; see `make_rows` of own records."""
    length = config.text_length
    if images or config.data is not None:
        return length - 1  # at least one is the prompt
    return written_at_most(length)


def _network(lessons: DraftLessons) -> tuple[nn.Module, DecoderConfig]:
    target = Path(lessons.target)
    sizes = target_config(target)
    return network_of(lessons, target, sizes)[0], sizes


def _need(lessons: DraftLessons, network: nn.Module) -> Need:
    some = vocabulary_of(network) is not None
    return need_of(lessons.kind, len(taps_of(network)), some=some)


def fitting(config: DrafterOptions, loads: Loads, room: int) -> int:
    """The steps ahead of each worker: those asked for, or as many of WINDOW as `room` holds.

    Besides them, a part of one exam may be under way.

    Raises:
        InvalidOption: they do not fit.
    """
    most = (room - loads.exam) // loads.step // config.workers
    if most < 1:
        needed = config.workers * loads.step + loads.exam
        told = (
            f"{config.workers} workers need {needed / 2**20:.0f} MiB in the object store, "
            f"{room / 2**20:.0f} MiB of it may be used: a larger object store (ray start "
            "--object-store-memory); otherwise a smaller train_batch or length in a new output, "
            f"with --data {config.output}/records instead of making records again"
        )
        raise InvalidOption("states", config.states, told)
    if config.window is not None and config.window > most:
        told = f"at most {most}, by the object store, {loads.step / 2**20:.0f} MiB a step"
        raise InvalidOption("window", config.window, told)
    return config.window or min(WINDOW, most)
