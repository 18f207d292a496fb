"""`--states stream`: the target in actors of its own, and a window that fits the object store."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from actors.teacher import TeacherConfig
from actors.teachers import store_room, teachers
from cluster.placement import Demand, selector
from cluster.roles import ROLES
from models.drafting.distil.build import (
    DraftLessons,
    network_of,
    target_config,
    vocabulary_of,
)
from models.drafting.distil.kind import EXAM_BATCH
from models.drafting.distil.reading import need_of
from models.drafting.distil.streamed import Stream, taps_of
from models.errors import InvalidOption
from pipelines.distill.deepspeed_file import PARTS
from pipelines.distill.drafters.config import DrafterOptions
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
    target = Path(lessons.target)
    sizes = target_config(target)
    network, _ = network_of(lessons, target, sizes)
    taps = taps_of(network)
    some = vocabulary_of(network)
    need = need_of(lessons.kind, len(taps), some=some is not None)
    columns = sizes.vocab_size if some is None else len(some.ids) + 1

    def num_bytes(texts: int, vocab_size: int) -> int:
        tokens = texts * config.text_length
        return need.num_bytes(tokens=tokens, width=sizes.width, vocab_size=vocab_size)

    step_bytes = num_bytes(-(-config.train_batch // config.workers), columns)
    exam_bytes = num_bytes(EXAM_BATCH, sizes.vocab_size)
    room = store_room()
    window = fitting(config, step_bytes, exam_bytes, room)
    tell(
        f"states     {window} steps ahead, at most {step_bytes / 2**20:.1f} MiB each for every "
        f"worker; {room / 2**20:.0f} MiB of the object store may be used"
    )
    told = TeacherConfig(
        target=config.target,
        taps=taps,
        need=need,
        guidance=lessons.guidance,
        threads=threads_of(config),
    )
    workers = Demand(
        name="trainer",
        count=config.workers,
        each={"CPU": ROLES["trainer"].num_cpus},
        labels=selector("trainer"),
    )
    with teachers(told, actors=config.target_actors, beside=workers) as readers:
        yield Stream(
            readers=readers,
            plan=plan_of(config),
            until=until,
            window=window,
            accumulate=(deepspeed_of(config) or {}).get(PARTS, 1),
        )


def fitting(config: DrafterOptions, step_bytes: int, exam_bytes: int, room: int) -> int:
    """The steps ahead of each worker: those asked for, or as many of WINDOW as `room` holds.

    Besides them, a part of one exam may be under way.

    Raises:
        InvalidOption: they do not fit.
    """
    most = (room - exam_bytes) // step_bytes // config.workers
    if most < 1:
        needed = config.workers * step_bytes + exam_bytes
        told = (
            f"{config.workers} workers need {needed / 2**20:.0f} MiB in "
            f"the object store, {room / 2**20:.0f} MiB of it may be used: a smaller train_batch or "
            "length, or a larger object store (ray start --object-store-memory)"
        )
        raise InvalidOption("states", config.states, told)
    if config.window is not None and config.window > most:
        told = f"at most {most}, by the object store, {step_bytes / 2**20:.0f} MiB a step"
        raise InvalidOption("window", config.window, told)
    return config.window or min(WINDOW, most)
