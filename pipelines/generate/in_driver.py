"""A small job on this machine: read, encoded and written in the driver.

Starting the processes that do this for large jobs takes longer than a small job does.
"""

from collections.abc import Iterator
from contextlib import contextmanager

import pyarrow as pa

from cluster.storage import storage
from pipelines.generate.prepare import Prepared
from pipelines.generate.rows.writer import LocalWriter, ShardWriter
from pipelines.inputs.read import read_shard
from pipelines.inputs.rows import encoded, prompt_rows
from pipelines.modality.modality import Codec

SMALL_BYTES, SMALL_ROWS = 4 * 2**20, 4096  # of the input's files; of the output


def is_small(job: Prepared) -> bool:
    """Whether reading, encoding and writing in the driver keeps no actor waiting."""
    urls = (storage.normalize(job.config.input), job.layout.url)
    size_bytes = sum(found.file.size_bytes for found in job.plan.surveys)
    rows = job.plan.num_rows * job.config.n
    small = size_bytes <= SMALL_BYTES and rows <= SMALL_ROWS
    return small and job.layout.modality.kind == "text" and all(map(storage.is_local, urls))


def tables(job: Prepared, codec: Codec) -> Iterator[pa.Table]:
    """The rows of the shards to be run, encoded; see pipelines/inputs/rows.py."""
    field, modality = job.prompt_field, job.layout.modality
    fields = {"prompt_field": field, "id_field": job.config.id_field}
    for shard in job.todo:
        rows = read_shard(shard, job.plan.schema, **fields)
        read = prompt_rows(rows, shard=shard.index, prompt_field=field, read=modality.prompt)
        yield encoded(read, codec)


@contextmanager
def writer(job: Prepared, codec: Codec) -> Iterator[LocalWriter]:
    """Writes shards as they are finished."""
    yield LocalWriter(ShardWriter(job.layout, codec))
