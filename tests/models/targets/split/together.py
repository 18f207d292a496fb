"""A split target with its ranks in threads of this process, over gloo as between processes."""

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path

import torch
from torch import distributed

from models.targets.decoder.config import eos_token_ids, read_configs
from models.targets.split.adapted import AdaptedRank, LeadingAdapted
from models.targets.split.adapted_parts import load_part
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


def groups_of(ranks: int) -> list[Group]:
    """The ends of a group, each of which waits for the others when it is made."""
    store = distributed.HashStore()
    with ThreadPoolExecutor(ranks) as threads:
        made = threads.map(
            lambda rank: Group(distributed.ProcessGroupGloo(store, rank, ranks, PATIENCE)),
            range(ranks),
        )
        return list(made)


@contextmanager
def split_adapted(folder: Path, ranks: int = 2) -> Iterator[LeadingAdapted]:
    """A checkpoint that transformers runs, as a target over `ranks` ranks.

    Loads one part after the other: threads cannot load with transformers at the same time.
    """
    raw, generation = read_configs(folder)
    ends = eos_token_ids(raw, generation)
    groups = groups_of(ranks)
    parts = [load_part(folder, raw, group, dtype=torch.float32) for group in groups]

    def of(rank: int, make: type[AdaptedRank]) -> AdaptedRank:
        model, count = parts[rank]
        return make(model, groups[rank], num_parameters=count, eos_token_ids=ends)

    with ThreadPoolExecutor(ranks) as threads:
        others = [
            threads.submit(lambda rank=rank: of(rank, AdaptedRank).follow())
            for rank in range(1, ranks)
        ]
        leader = of(0, LeadingAdapted)
        leader.parts = [model for model, _ in parts]
        yield leader
        leader.stop()
        for other in others:
            other.result(timeout=30)
