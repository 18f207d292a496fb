"""Everything at once: clients of all kinds, and processes that die or stall behind them.

`make soak` runs it for ten minutes on the demo model; by default it is short, on a tiny one.
"""

import json
import os
import sys
import time
import urllib.request
from collections.abc import Iterator
from typing import Any

import pytest
import ray
from prometheus_client.parser import text_string_to_metric_families

from pipelines.serve.config import ServeConfig
from tests.pipelines.serve.soaking import (
    LONG,
    Clients,
    Faults,
    descriptors,
    memory_mib,
    server_pids,
)
from tests.ports import free_port

SECONDS = float(os.environ.get("SOAK", "0"))
CLIENTS, BETWEEN = 6, 12  # answers between two faults, in the short run
FAULTS = (("draft", "kill"), ("target", "stall"), ("target", "kill"))
GROWTH_MIB = 1.0  # a minute, after the first quarter
SHARES = {"p50": 0.5, "p95": 0.95, "longest": 1.0}
MORE_FILES = 5  # open in a process at the end than at the beginning: connections that close late

pytestmark = [pytest.mark.ray, pytest.mark.timeout(2 * SECONDS + 300)]


@pytest.fixture
def soaked(
    ray_cluster: None, served_target: str, demo_target: str, checkpoints: dict[str, str]
) -> Iterator[Any]:
    """Two targets that share a draft actor."""
    from pipelines.serve.server import serving

    models = (demo_target, "examples/models/text-draft")
    target, drafter = models if SECONDS else (served_target, checkpoints["draft"])
    config = ServeConfig(
        target=target,
        drafter=drafter,
        draft_actors=1,
        target_actors=2,
        model_name="soaked",
        batch_size=4,
        device="cpu",
        threads=1,
        port=free_port(),
    )
    with serving(config) as running:
        yield running


class Watch:
    """What a server says of itself."""

    def __init__(self, server: Any) -> None:
        self._url, self._manager = server.url, server.models[0].manager

    def processes(self) -> dict[str, int]:
        counts = ray.get(self._manager.counts.remote())
        return {name: pid for name, pid in counts.items() if name != "unfinished"}

    def metrics(self) -> dict[str, float]:
        """Summed over labels."""
        values: dict[str, float] = {}
        with urllib.request.urlopen(f"{self._url}/metrics") as answer:
            families = text_string_to_metric_families(answer.read().decode())
        for each in (sample for family in families for sample in family.samples):
            name = each.name.removeprefix("paceline_")
            reason = each.labels.get("reason", "")
            for key in {name, f"{name} {reason}".strip()}:
                values[key] = values.get(key, 0.0) + each.value
        return values

    def idle(self) -> dict[str, float]:
        """The metrics, once nothing runs or waits."""
        deadline = time.monotonic() + 60
        while True:
            found = self.metrics()
            if not found["num_requests_running"] + found["num_requests_waiting"]:
                return found
            assert time.monotonic() < deadline, found
            time.sleep(0.1)


def disturb(clients: Clients, faults: Faults, watch: Watch, memory: list[Any]) -> None:
    """Faults one after the other, each after some answers, until one of them has been felt.

    Or for as long as was asked.
    """
    began, turn, least = time.monotonic(), 0, len(FAULTS)

    def unhurt(turn: int) -> bool:
        """Whether no fault has hit an actor while it had sent a part of an answer."""
        return turn < 10 * least and not watch.metrics()["resumed_requests_total"]

    while (time.monotonic() - began < SECONDS) if SECONDS else turn < least or unhurt(turn):
        role, way = FAULTS[turn % len(FAULTS)]
        getattr(faults, way)(role)
        turn += 1
        before, paused = clients.num_answers, time.monotonic()
        while clients.num_answers < before + BETWEEN or time.monotonic() - paused < SECONDS / 150:
            time.sleep(0.05)
        pids = server_pids() | watch.processes()
        memory.append((time.monotonic() - began, memory_mib(pids)))


def test_every_answer_is_the_undisturbed_one(soaked: Any) -> None:
    watch, faults, memory = Watch(soaked), Faults(lambda: watch.processes()), []
    expected = Clients(soaked.url).undisturbed()
    before, files = watch.idle(), descriptors(server_pids())
    clients = Clients(soaked.url, expected)
    clients.run(CLIENTS, lambda: disturb(clients, faults, watch, memory))
    after = watch.idle()
    later = descriptors(server_pids())
    more = {name: later[name, pid] - n for (name, pid), n in files.items() if (name, pid) in later}
    counted = {name: after[name] - before[name] for name in after}
    show(clients, faults, counted, memory)
    sys.stdout.write(f"\nfile descriptors more at the end: {more}\n")
    told = clients.tallies
    assert told.wrong == []
    assert after["kv_cache_usage_perc"] == 0
    assert max(more.values()) <= MORE_FILES
    assert ray.get(soaked.models[0].manager.counts.remote())["unfinished"] == 0
    assert counted["request_errors_total error"] == counted["request_errors_total rejected"] == 0
    whole, cut = counted["request_success_total"], counted["request_errors_total cancelled"]
    assert whole + cut == told.completions + told.left
    late = whole - told.completions  # complete before the server knew that their clients had left
    assert late >= 0
    assert counted["generation_tokens_total"] == told.tokens + late * LONG["max_tokens"]
    killed = faults.done["target killed"]
    assert counted["target_actor_deaths_total"] == killed > 0
    assert counted["resumed_requests_total"] > 0
    assert faults.done["draft killed"] > 0 < faults.done["target stalled"]
    if SECONDS >= 120:
        assert growth(memory) <= GROWTH_MIB


def growth(memory: list[tuple[float, dict[str, float]]]) -> float:
    """The most MiB a minute that a process has gained, from the first quarter to the end."""
    ended, last = memory[-1]
    quarter = max(60.0, ended / 4)
    most = 0.0
    for name, size in last.items():
        early = [sizes[name] for at, sizes in memory if at <= quarter and name in sizes]
        if early:
            most = max(most, 60 * (size - max(early)) / (ended - quarter))
    return most


def over_time(memory: list[tuple[float, dict[str, float]]]) -> str:
    """MiB of each process that lived for two minutes or more, once a minute."""
    ages: dict[str, list[float]] = {}
    for at, sizes in memory:
        for name in sizes:
            ages.setdefault(name, []).append(at)
    names = [name for name, seen in ages.items() if seen[-1] - seen[0] >= 120]
    lines = ["minute  " + "  ".join(names)]
    for minute in range(int(memory[-1][0] // 60) + 1):
        sizes = next(sizes for at, sizes in memory if at >= 60 * minute)
        cells = [f"{sizes[n]:{len(n)}.1f}" if n in sizes else " " * len(n) for n in names]
        lines.append(f"{minute:6}  " + "  ".join(cells))
    return "\n".join(lines)


def show(clients: Clients, faults: Faults, counted: dict[str, float], memory: list[Any]) -> None:
    """The table that `make soak` prints."""
    told = clients.tallies
    lines = {
        **{f"answers: {kind}": number for kind, number in sorted(told.asked.items())},
        **dict(sorted(faults.done.items())),
        "completions, as clients count": told.completions,
        "completions, as the server counts": counted["request_success_total"],
        "completions that clients left": told.left,
        "completions that the server cancelled": counted["request_errors_total cancelled"],
        "tokens, as clients count": told.tokens,
        "tokens, as the server counts": counted["generation_tokens_total"],
        "completions continued elsewhere": counted["resumed_requests_total"],
        "tokens replayed": counted["replayed_tokens_total"],
        "slowest answer, s": round(told.slowest_s, 1),
        "pauses within a stream": len(told.gaps_s),
        **{f"pause, {name}, ms": round(told.gap_ms(share)) for name, share in SHARES.items()},
        "wrong answers": len(told.wrong),
        "growth of a process, MiB a minute": round(growth(memory), 2),
    }
    width = max(map(len, lines))
    table = "\n".join(f"{name:{width}}  {value:g}" for name, value in lines.items())
    sys.stdout.write(f"\n{table}\n\n{over_time(memory)}\n")
    for each in told.wrong[:5]:
        sys.stdout.write(json.dumps(each)[:600] + "\n")
