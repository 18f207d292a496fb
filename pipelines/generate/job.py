"""`paceline generate`: a data set becomes requests, the target's results become rows.

files -> shards -> prompts -> token ids     Ray Data            pipelines/generate/rows/dataset.py
      -> requests -> results                target actors       actors/, pipelines/generate/drive.py
      -> texts or images -> output files    a writer actor      pipelines/generate/rows/writer.py
      -> committed                          here                pipelines/output/manifest.py

A small local job is read, encoded and written here: pipelines/generate/in_driver.py.
What differs between texts and images is in pipelines/modality/modality.py.
"""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, closing, contextmanager
from functools import partial
from typing import TYPE_CHECKING

import pyarrow as pa
import ray

from actors.errors import PoolFailed
from actors.pool.pool import TargetPool
from cluster.connect import connected
from cluster.errors import LeaseLost, StorageError
from cluster.placement.placement import gpus_each
from cluster.storage import storage
from models.errors import PacelineError
from models.registry import is_folder
from pipelines.checkpoints import with_local
from pipelines.engine_options import processes, reserved_cpus
from pipelines.errors import JobFailed
from pipelines.generate import in_driver
from pipelines.generate.config import GenerateConfig
from pipelines.generate.drive import Drive
from pipelines.generate.fingerprint import noise_of
from pipelines.generate.prepare import Prepared, prepare
from pipelines.generate.reporting.history import read_history, write_history
from pipelines.generate.reporting.progress import Progress
from pipelines.generate.reporting.summary import Summary, summarize
from pipelines.generate.reporting.trace_file import traced
from pipelines.generate.rows.remote_writer import RemoteWriter
from pipelines.generate.rows.writer import Writer, publish_all
from pipelines.generate.student import student_pool
from pipelines.inputs.prefetch import Prefetch
from pipelines.interruption import interrupted_with
from pipelines.modality.choose import modality_of
from pipelines.options import as_dict
from pipelines.output.failure import first_failure
from pipelines.output.manifest import claimed

if TYPE_CHECKING:
    from actors.pool.students import StudentPool

Writing = AbstractContextManager[Writer]

TOGETHER_S = 0.5  # that a result may wait for others: rows are only seen when a shard is done
SPARE_CPUS = 2  # logical CPUs of a private cluster for reading, encoding and writing


def generate(config: GenerateConfig) -> Summary:
    """Run a job to its end, or go on with it; writes the summary, too.

    Raises:
        PacelineError: what the user gave cannot work (these are ValueErrors), or JobFailed.
        StorageError: the input cannot be read or the output not be written.
    """
    began = time.monotonic()
    config = with_local(config)
    is_folder(config.drafter)  # refuses what is no drafter
    modality_of(config).codec()  # refuses a folder without a tokenizer
    with ExitStack() as held:
        job = prepare(config, claim=lambda url: held.enter_context(claimed(url)))
        summary = run(job, began=began) if job.todo else _summary(job)
        _write_beside(job, summary)
    return summary


def _write_beside(job: Prepared, summary: Summary) -> None:
    """What is written once all rows are: figures, and what the modality adds."""
    url = job.layout.url
    with _explained(job):
        job.layout.check()
        parts = [entry.file for _, entry in sorted(job.manifest.entries.items())]
        publish_all(url, job.layout.modality.beside(url, parts))
        place = job.config.summary or storage.join(url, "_summary.json")
        data = json.dumps(summary.as_dict(), indent=1).encode()
        storage.publish(storage.normalize(place), data)


def run(job: Prepared, *, began: float) -> Summary:
    """Run the shards that are not committed, or that hold rows to be tried again."""
    config = job.config
    min_cpus = processes(config) + SPARE_CPUS
    bar = Progress(
        rows=job.plan.num_rows * config.n,
        done=sum(entry.rows for entry in job.earlier),
        shown=config.progress,
    )
    tables, writer = _beside(job)
    bar.note("starting Ray")
    with (
        bar,
        interrupted_with(partial(_interrupted, job, bar)),
        _explained(job),
        connected(config.address, min_cpus=min_cpus),
        Prefetch(tables) as prompts,  # reads while the models load
        writer() as shards,
        bar.noted("loading the model"),
        _pool(config) as pool,
        traced(config) as traces,
    ):
        bar.begin("first tokens" if prompts.ready else "reading prompts")
        drive = Drive(job.job, pool, shards, job.manifest, on_results=bar.add, traces=traces)
        drive.run(prompts)
        first = drive.began or time.monotonic()
        _remember(job, pool, startup_seconds=first - began)
        return _summary(job, startup_seconds=first - began)


def _remember(job: Prepared, pool: "TargetPool | StudentPool", *, startup_seconds: float) -> None:
    """Add this run's figures to those of the job."""
    job.layout.check()
    before = read_history(job.layout.url)
    history = before.and_then(
        pool.figures(), startup_seconds=startup_seconds, engine=dict(pool.describe())
    )
    write_history(job.layout.url, history)


def _pool(config: GenerateConfig) -> "TargetPool | StudentPool":
    if config.student is not None:
        return student_pool(config)
    ranks = config.tensor_parallel
    gpus = gpus_each(actors=processes(config), device=config.device, whole=ranks > 1)
    return TargetPool.start(
        config.engine(),
        target_actors=config.target_actors,
        max_target_actors=config.max_target_actors,
        draft_actors=config.draft_actors,
        num_cpus=reserved_cpus(config),
        num_gpus=gpus,
        draft_gpus=gpus,
        together_s=TOGETHER_S,
    )


def _beside(job: Prepared) -> tuple[Iterator[pa.Table], Callable[[], Writing]]:
    """What brings the rows of the shards to be run, encoded, and what makes their writer."""
    make_codec = job.layout.modality.codec
    if in_driver.is_small(job):
        codec = make_codec()
        return in_driver.tables(job, codec), partial(in_driver.writer, job, codec)
    return _tables(job), lambda: closing(RemoteWriter(job.layout, make_codec))


def _tables(job: Prepared) -> Iterator[pa.Table]:
    """By Ray Data, which takes long to import."""
    from pipelines.generate.rows.dataset import PromptSource, stream

    source = PromptSource(
        job.todo,
        job.plan.schema,
        job.layout.modality,
        prompt_field=job.prompt_field,
        id_field=job.config.id_field,
        beside_driver=storage.is_local(storage.normalize(job.config.input)),
    )
    yield from stream(source, job.layout.modality)


def _summary(job: Prepared, *, startup_seconds: float = 0.0) -> Summary:
    url, entries = job.layout.url, job.manifest.entries.values()
    return summarize(
        entries,
        earlier=job.earlier,
        earlier_seconds=job.earlier_seconds,
        history=read_history(url),
        startup_seconds=startup_seconds,
        output=url,
        kind=job.layout.modality.kind,
        noise=noise_of(job.config),
        first_error=first_failure(url, entries, id_field=job.config.id_field),
        config=as_dict(job.config),
    )


@contextmanager
def _explained(job: Prepared) -> Iterator[None]:
    """Whatever stops a running job, as an error that says what is safe."""
    try:
        yield
    except (StorageError, LeaseLost, PoolFailed, ray.exceptions.RayError) as error:
        cause = cause_of(error)
        if isinstance(cause, PacelineError) and isinstance(cause, ValueError):
            raise cause from error
        done, whole = len(job.manifest.settled), len(job.plan.shards)
        reason = str(cause).strip().splitlines() or [type(cause).__name__]
        raise JobFailed(
            f"the job stopped: {reason[0].rstrip('.')}. {done} of {whole} shards are committed; "
            "the same command goes on with the others"
        ) from error


def _interrupted(job: Prepared, bar: Progress) -> str:
    """What a user who stops a running job is told."""
    bar.close()
    done, whole = len(job.manifest.settled), len(job.plan.shards)
    return f"interrupted: {done} of {whole} shards are committed; the same command goes on"


def cause_of(error: BaseException) -> BaseException:
    """What went wrong in the first place, if it happened in a task or an actor."""
    while isinstance(error, ray.exceptions.RayTaskError) and isinstance(error.cause, Exception):
        error = error.cause
    return error
