"""The reading and encoding stages: Ray Data streams a plan's shards as tables of encoded rows.

One read task per shard; blocks come in any order and wait in the object store, within Ray Data's
memory limits, until the driver takes them. The tables are those of pipelines/inputs/rows.py.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import cache

import pyarrow as pa
import ray
from ray.data import DataContext, Datasource, ReadTask, TaskPoolStrategy
from ray.data.block import BlockMetadata

from cluster.placement.placement import selector
from pipelines.inputs.read import read_shard
from pipelines.inputs.rows import encoded, prompt_rows
from pipelines.inputs.shards import Shard
from pipelines.modality.modality import Codec, Modality

CPUS = 0.0  # reserved by a task: model actors may have reserved all that there are


class PromptSource(Datasource):
    """The shards of a plan that are still to be run."""

    def __init__(
        self,
        shards: Sequence[Shard],
        schema: pa.Schema,
        modality: Modality,
        *,
        prompt_field: str,
        id_field: str,
        beside_driver: bool,
    ) -> None:
        """`beside_driver`: the files can only be read on the driver's node."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._shards, self._schema, self._modality = shards, schema, modality
        self._prompt_field, self._id_field = prompt_field, id_field
        self._beside_driver = beside_driver

    @property
    def num_shards(self) -> int:
        """The number of read tasks."""
        return len(self._shards)

    @property
    def supports_distributed_reads(self) -> bool:
        """Whether any node will do."""
        return not self._beside_driver

    def estimate_inmemory_data_size(self) -> int | None:
        """Not known before reading."""
        return None

    def get_read_tasks(
        self,
        parallelism: int,
        per_task_row_limit: int | None = None,
        data_context: DataContext | None = None,
    ) -> list[ReadTask]:
        """One task per shard, whatever the parallelism."""
        return [
            ReadTask(
                _reader(shard, self._schema, self._modality, self._prompt_field, self._id_field),
                BlockMetadata(
                    num_rows=shard.num_rows, size_bytes=None, input_files=None, exec_stats=None
                ),
            )
            for shard in self._shards
        ]


def _reader(
    shard: Shard, schema: pa.Schema, modality: Modality, prompt_field: str, id_field: str
) -> Callable[[], Iterable[pa.Table]]:
    def read() -> Iterable[pa.Table]:
        rows = read_shard(shard, schema, prompt_field=prompt_field, id_field=id_field)
        yield prompt_rows(rows, shard=shard.index, prompt_field=prompt_field, read=modality.prompt)

    return read


@cache
def codec_of(modality: Modality) -> Codec:
    """The checkpoint's tokenizer, once per process."""
    return modality.codec()


def encode(table: pa.Table, modality: Modality) -> pa.Table:
    """A block of rows with token ids for prompts."""
    return encoded(table, codec_of(modality))


def stream(source: PromptSource, modality: Modality, *, tasks: int = 2) -> Iterator[pa.Table]:
    """Start reading and encoding, `tasks` shards at a time; the tables as they become ready.

    Both run in one task: what was read goes on to the tokenizer without a copy in between.
    """
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    at_once = TaskPoolStrategy(size=min(tasks, source.num_shards))
    labels = (selector("data") or None) if source.supports_distributed_reads else None
    data = ray.data.read_datasource(
        source,
        override_num_blocks=source.num_shards,
        num_cpus=CPUS,
        compute=at_once,
        label_selector=labels,
    ).map_batches(
        encode,
        fn_kwargs={"modality": modality},
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=CPUS,
        compute=at_once,
        label_selector=labels,
    )
    data.context.enable_progress_bars = False
    return iter(data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1))
