"""The reading and encoding stages: Ray Data streams a plan's shards as tables of encoded rows.

One read task per shard; blocks come in any order and wait in the object store, within Ray Data's
memory limits, until the driver takes them. The tables are those of pipelines/rows.py.
"""

import logging
from collections.abc import Callable, Iterable, Iterator, Sequence

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Datasource, ReadTask
from ray.data.block import BlockMetadata

from pipelines.read import read_shard
from pipelines.rows import Encoder, encoded, text_prompts
from pipelines.shards import Shard

CPUS = 0.25  # of a task or an actor that mostly waits for others


class PromptSource(Datasource):
    """The shards of a plan that are still to be run."""

    def __init__(
        self,
        shards: Sequence[Shard],
        schema: pa.Schema,
        *,
        prompt_field: str,
        id_field: str,
        beside_driver: bool,
    ) -> None:
        """`beside_driver`: the files can only be read on the driver's node."""
        super().__init__()  # type: ignore[no-untyped-call]
        self._shards, self._schema = shards, schema
        self._prompt_field, self._id_field = prompt_field, id_field
        self._beside_driver = beside_driver

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
                _reader(shard, self._schema, self._prompt_field, self._id_field),
                BlockMetadata(
                    num_rows=shard.num_rows, size_bytes=None, input_files=None, exec_stats=None
                ),
            )
            for shard in self._shards
        ]


def _reader(
    shard: Shard, schema: pa.Schema, prompt_field: str, id_field: str
) -> Callable[[], Iterable[pa.Table]]:
    def read() -> Iterable[pa.Table]:
        rows = read_shard(shard, schema, prompt_field=prompt_field, id_field=id_field)
        yield text_prompts(rows, shard=shard.index, prompt_field=prompt_field)

    return read


class EncodePrompts:
    """Encodes blocks of rows; its encoder is made once, in the actor that runs it."""

    def __init__(self, make_encoder: Callable[[], Encoder]) -> None:
        self._encoder = make_encoder()

    def __call__(self, table: pa.Table) -> pa.Table:
        return encoded(table, self._encoder)


def stream(
    source: PromptSource, make_encoder: Callable[[], Encoder], *, actors: int = 1
) -> Iterator[pa.Table]:
    """Start reading and encoding; the tables as they become ready."""
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    data = ray.data.read_datasource(
        source, override_num_blocks=len(source.get_read_tasks(1)), num_cpus=CPUS
    ).map_batches(
        EncodePrompts,
        fn_constructor_args=(make_encoder,),
        batch_size=None,
        batch_format="pyarrow",
        num_cpus=CPUS,
        compute=ActorPoolStrategy(size=actors),
    )
    data.context.enable_progress_bars = False
    return iter(data.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1))
