"""The processes beside a target actor that hold its target with it: started, led and watched.

The target actor is rank 0, owns the other ranks' actors, and is placed with them in one placement
group. If one of them ends, the target actor fails, and its pool replaces it with new ranks. So it
does if one gets no process: the group has room for it, which somebody else must have been given
(cluster/processes/leftovers.py), and the end of the group ends all that it holds.
"""

import logging
import os
import shutil
import tempfile
import threading
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import ray
from ray.exceptions import RayError, RayTaskError
from ray.util import get_current_placement_group

from actors.at_hand import at_hand
from actors.errors import RankLost
from actors.pool.members import death_of
from cluster import logs
from cluster.placement.placed import has_process
from cluster.placement.ranks import placed_in
from models.engine_config import EngineConfig
from models.errors import PacelineError

if TYPE_CHECKING:  # loads torch
    from models.targets.target import Target

CPU, GPU = "CPU", "GPU"
FOREVER_S = 10.0 * 365 * 24 * 3600
PLACED_S = 60.0  # in which Ray starts a process for a rank, in room that its group holds
Part = TypeVar("Part")
log = logging.getLogger(__name__)


class RankActor:
    """Holds one part of a target and scores what the first rank scores. `Ranks` makes it remote."""

    def pid(self) -> int:
        """Its process."""
        return os.getpid()

    def follow(self, config: EngineConfig, meeting: str, rank: int, name: str) -> None:
        """Load the part and follow the first rank, until that ends; `name`: of this one, for logs.

        Raises what loading raises.
        """
        logs.set_up(name)
        from models.targets.split.load import load_following

        follow = part_of(at_hand(config), Path(meeting), rank, load_following)
        log.info("%s is ready", name, extra={"target": config.target})
        follow()


def part_of(config: EngineConfig, meeting: Path, rank: int, load: Callable[..., Part]) -> Part:
    """What `load` makes of this process's part of the target, once all ranks have theirs."""
    import torch

    from models.targets.load import DTYPES, pick_device
    from models.targets.split.group import join

    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = pick_device(config.device)
    group = join(meeting, rank, config.tensor_parallel, device)
    made = load(
        Path(config.target),
        group,
        dtype=DTYPES[config.dtype],
        device=device,
        arithmetic=config.arithmetic,
    )
    group.meet()
    return made


class Ranks:
    """The ranks 1 and up of the target of this process, which is rank 0."""

    def __init__(
        self, config: EngineConfig, *, name: str, on_lost: Callable[[Exception], None]
    ) -> None:
        """Start their actors; `on_lost` is called, in a thread of its own, when one has ended."""
        self._config, self._name, self._on_lost = config, name, on_lost
        self._folder = Path(tempfile.mkdtemp(prefix="paceline-ranks-"))
        ranks = range(1, config.tensor_parallel)
        self._actors = [self._start(rank) for rank in ranks]
        self._pids = [actor.pid.remote() for actor in self._actors]
        meeting = str(self._meeting)
        told = [
            actor.follow.remote(config, meeting, rank, f"{name}-rank-{rank}")
            for rank, actor in self._ranked()
        ]
        self._runs = dict(zip(told, ranks, strict=True))
        threading.Thread(target=self._watch, daemon=True, name="ranks").start()

    def lead(self) -> "Target":
        """The target, once all ranks have loaded their parts. Raises what loading raises."""
        from models.targets.split.load import load_leading

        made = part_of(self._config, self._meeting, 0, load_leading)
        if made.device.type == "cpu":  # NCCL goes on using the file
            shutil.rmtree(self._folder, ignore_errors=True)
        return made

    def pids(self) -> list[int]:
        """Their processes, by rank."""
        return list(ray.get(self._pids))

    def lost(self, timeout_s: float) -> Exception | None:
        """Why a rank has ended, if one does within `timeout_s`."""
        done, _ = ray.wait(list(self._runs), num_returns=1, timeout=timeout_s)
        return self._end_of(done[0]) if done else None

    @property
    def _meeting(self) -> Path:
        return self._folder / "meeting"

    def _ranked(self) -> list[tuple[int, Any]]:
        return list(enumerate(self._actors, 1))

    def _start(self, rank: int) -> Any:
        """An actor in this process's placement group, with the resources of its bundle there."""
        group = get_current_placement_group()
        assert group is not None, "the pool places a target actor with ranks in a group"
        each = dict(group.bundle_specs[rank])
        return (
            ray.remote(RankActor)
            .options(
                num_cpus=each.pop(CPU, 0),
                num_gpus=each.pop(GPU, 0),
                resources=each or None,
                max_restarts=0,
                **placed_in(group, rank),
            )
            .remote()
        )

    def _watch(self) -> None:
        found = self.lost(PLACED_S) or self._without_process() or self.lost(FOREVER_S)
        if found is not None:
            self._on_lost(found)

    def _without_process(self) -> Exception | None:
        """That a rank has no process. Waits while the cluster's server does not answer."""
        for pid, (rank, actor) in zip(self._pids, self._ranked(), strict=True):
            if ray.wait([pid], timeout=0)[0]:
                continue
            try:
                placed = has_process(actor)
            except Exception as error:  # of many kinds: the cluster has gone
                log.info("cannot see whether rank %d has a process: %s", rank, error)
                continue
            if not placed:
                told = f"found no place for {PLACED_S:.0f} s in its target's group"
                return RankLost(f"{self._name}, rank {rank}: {told}")
        return None

    def _end_of(self, run: Any) -> Exception:
        who = f"{self._name}, rank {self._runs[run]}"
        try:
            ray.get(run)
        except RayTaskError as error:
            if isinstance(error.cause, PacelineError) and isinstance(error.cause, ValueError):
                return error.cause  # the checkpoint, or an option
            return RankLost(f"{who}: {death_of(error).reason}")
        except RayError as error:
            return RankLost(f"{who}: {death_of(error).reason}")
        return RankLost(f"{who}: it has ended")
