"""Writes shards in an actor of its own, so that the driver never waits for files."""

from collections.abc import Callable
from typing import Any

import ray

from cluster import logs
from cluster.connect import beside_driver
from cluster.placement.placement import selector
from cluster.storage.storage import is_local
from pipelines.generate.rows.writer import FinishedShard, Layout, ShardWriter, parquet_bytes
from pipelines.modality.modality import Codec
from pipelines.output.manifest import Entry


class WriterActor:
    """A shard writer whose codec is made in its own process."""

    def __init__(self, layout: Layout, make_codec: Callable[[], Codec]) -> None:
        logs.set_up("writer")
        self._writer = ShardWriter(layout, make_codec())
        parquet_bytes(layout.schema.empty_table())  # loads what pyarrow loads when first used

    def write(self, shard: FinishedShard) -> Entry:
        """See ShardWriter."""
        return self._writer.write(shard)


class RemoteWriter:
    """The driver's side. Writing a shard again gives the same file, so a lost call is repeated."""

    def __init__(self, layout: Layout, make_codec: Callable[[], Codec]) -> None:
        where: dict[str, Any] = (
            {"scheduling_strategy": beside_driver()}
            if is_local(layout.url)
            else {"label_selector": selector("data") or None}
        )
        actor = ray.remote(WriterActor).options(
            num_cpus=0, max_restarts=-1, max_task_retries=3, **where
        )
        self._actor: Any = actor.remote(layout, make_codec)
        self._calls: list[ray.ObjectRef[Entry]] = []

    @property
    def pending(self) -> int:
        """Shards handed in whose entries were not handed out."""
        return len(self._calls)

    def begin(self, shard: FinishedShard) -> None:
        """Have it written."""
        self._calls.append(self._actor.write.remote(shard))

    def finished(self, *, wait: bool) -> list[Entry]:
        """Entries of shards that are written since the last call; `wait` for at least one."""
        if not self._calls:
            return []
        count = 1 if wait else len(self._calls)
        done, self._calls = ray.wait(self._calls, num_returns=count, timeout=None if wait else 0)
        return list(ray.get(done))

    def close(self) -> None:
        """End the actor."""
        ray.kill(self._actor)
