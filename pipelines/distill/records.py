"""The target's images, made by `paceline generate` on its pool: to learn from, and held out."""

import hashlib
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from cluster.storage import storage
from models.tokenizers.about import ImageTarget
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.folder import ABOUT
from pipelines.distill.students.config import StudentOptions
from pipelines.errors import InvalidInput, JobFailed
from pipelines.generate.config import GenerateConfig
from pipelines.generate.job import generate
from pipelines.inputs.digest import digests
from pipelines.output.manifest import FOLDER as MANIFEST

SHARD_ROWS = 512
LABEL = "label"


def make_records(
    config: StudentOptions | DrafterOptions,
    about: ImageTarget,
    folder: Path,
    *,
    rows: int,
    seed: int,
) -> dict[str, Any]:
    """`rows` images with classes in turn, as rows in `folder`; a repeated call continues.

    Raises:
        JobFailed: some images failed.
    """
    summary = generate(records_job(config, about, folder, rows=rows, seed=seed))
    if summary.rows_failed:
        told = f"{summary.rows_failed} of {rows} images failed; their rows say why"
        raise JobFailed(f"{folder}: {told}. The same command tries again")
    return {
        "rows": rows,
        "seconds": summary.seconds,
        "noise": summary.noise,
        "exactness": summary.exactness,
        "digest": digest_of(files_of(folder)),
    }


def records_job(
    config: StudentOptions | DrafterOptions,
    about: ImageTarget,
    folder: Path,
    *,
    rows: int,
    seed: int,
) -> GenerateConfig:
    """The job that makes records; writes its input, the classes, beside `folder`.

    Nothing but the job decides the bytes of its files: a shard that is run again, because an actor
    died or elsewhere, gives the same file.
    """
    classes = _input_of(folder)
    storage.publish(str(classes), _classes(rows, about.num_classes))
    return GenerateConfig(
        target=config.target,
        input=str(classes),
        output=str(folder),
        prompt_field=LABEL,
        seed=seed,
        batch_size=config.batch_size,
        target_actors=config.target_actors,
        guidance=config.guidance,
        shard_rows=SHARD_ROWS,
        device=config.device,
        address=config.address,
        progress=config.progress,
    )


def num_asked(folder: Path) -> int | None:
    """The number of images that the last job in `folder` was asked for; None: there was none."""
    classes = _input_of(folder)
    return num_rows([str(classes)]) if classes.exists() else None


def _input_of(folder: Path) -> Path:
    return folder.parent / "classes" / f"{folder.name}.parquet"


def files_of(source: str | Path) -> tuple[str, ...]:
    """The Parquet files of rows, in order.

    `source` is a file, a folder of files, or a folder with output folders of `generate`.

    Raises:
        InvalidInput: there are none, or `source` is the folder of a distillation.
    """
    path = Path(storage.normalize(str(source)))
    found = [path] if path.is_file() else sorted(path.glob("*.parquet"))
    if not found and (path / ABOUT).exists():
        told = f"give {path / 'records'}, or other rows of generate"
        raise InvalidInput(f"data={str(source)!r} is the folder of a distillation; {told}")
    found = found or [
        file for file in sorted(path.glob("*/*.parquet")) if (file.parent / MANIFEST).is_dir()
    ]
    if not found:
        told = "give rows of generate, or a folder of its output folders"
        raise InvalidInput(f"data={str(source)!r} holds no Parquet files of rows; {told}")
    return tuple(str(file) for file in found)


def num_rows(files: Sequence[str]) -> int:
    """Of Parquet files."""
    return sum(int(pq.read_metadata(file).num_rows) for file in files)


def digest_of(files: Sequence[str]) -> str:
    """Of the files' contents, in order."""
    return hashlib.blake2b("".join(digests(files)).encode(), digest_size=16).hexdigest()


def _classes(rows: int, num_classes: int) -> bytes:
    table = pa.table(
        {
            "id": pa.array([str(row) for row in range(rows)]),
            LABEL: pa.array([row % num_classes for row in range(rows)], pa.int32()),
        }
    )
    sink = pa.BufferOutputStream()
    pq.write_table(table, sink)
    return bytes(sink.getvalue())
