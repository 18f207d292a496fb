"""A split decoder with its ranks in threads of this process, over gloo as between processes."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from models.targets.split.follower import follow
from models.targets.split.group import Group
from models.targets.split.leader import LeadingDecoder
from models.targets.split.rank import RankDecoder, load_rank

PATIENCE = timedelta(seconds=60)


@contextmanager
def split(folder: Path, ranks: int, **options: object) -> Iterator[LeadingDecoder]:
    """The checkpoint as a target over `ranks` ranks; `options` of `load_rank`."""
    store, fixed = distributed.HashStore(), {"dtype": torch.float32, "device": torch.device("cpu")}
    failures: list[BaseException] = []

    def join(rank: int, make: type[RankDecoder]) -> RankDecoder:
        group = Group(distributed.ProcessGroupGloo(store, rank, ranks, PATIENCE))
        return load_rank(folder, group, make=make, **{**fixed, **options})

    def run(rank: int) -> None:
        try:
            decoder = join(rank, RankDecoder)
            followers[rank] = decoder
            follow(decoder)
        except BaseException as error:
            failures.append(error)

    followers: dict[int, RankDecoder] = {}
    threads = [threading.Thread(target=run, args=(rank,)) for rank in range(1, ranks)]
    for thread in threads:
        thread.start()
    leader = join(0, LeadingDecoder)
    leader.followers = followers
    yield leader
    leader.stop()
    for thread in threads:
        thread.join(timeout=30)
    assert not failures, failures
