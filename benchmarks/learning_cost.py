"""What `paceline serve --learn` costs: a server with it beside one without.

    python -m benchmarks.learning_cost    # about 5 minutes on two cores

The two servers run all the time and are asked in turn, as in benchmarks/serving.py. The learning
one has two turns: while no training runs (its process is suspended), which is what recording costs,
and while one does. Each table has a round of training of its own, which outlasts it.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import tempfile
import time
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace

import psutil
from tqdm import tqdm

from benchmarks.serving import DRAFT, LEAST, PROMPTS, Measured, Server, ask_all, ours, started
from pipelines.serve.learning.lesson import COURSE
from pipelines.serve.learning.trainer import MODULE

TURNS, START_S = 5, 300.0
LOADED_S = 6.0  # on a core, after which a training has loaded its models: it trains
WITHOUT, IDLE, TRAINING = "without --learn", "--learn, no training", "--learn, training"


def main() -> None:
    """Measure and print a table for each concurrency."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--concurrency", type=int, nargs="+", default=(1, 4))
    parser.add_argument("--turns", type=int, default=TURNS)
    options = parser.parse_args()
    plain = ours(8141, DRAFT)
    with tempfile.TemporaryDirectory() as folder:
        learning = ours(8142, DRAFT)
        learning = replace(learning, command=(*learning.command, "--learn", folder))
        with started(plain), started(learning) as process:
            for concurrency in options.concurrency:
                table(concurrency, options.turns, plain, learning, process)


def table(
    concurrency: int,
    turns: int,
    plain: Server,
    learning: Server,
    process: "subprocess.Popen[bytes]",
) -> None:
    """The three with so many clients at once, in turn."""
    trainer = trained(learning, process)
    count = max(LEAST, 4 * concurrency)
    found = {name: Measured() for name in (WITHOUT, IDLE, TRAINING)}
    shares = list[float]()
    with tqdm(total=(turns + 1) * len(found), desc=f"{concurrency} clients", leave=False) as bar:
        for turn in range(turns + 1):  # the first one warms up
            for name, measured in found.items():
                server = plain if name == WITHOUT else learning
                if name == TRAINING:
                    with resumed(trainer) as share:
                        rate, firsts = asyncio.run(ask_all(server, count, concurrency))
                    shares += share
                else:
                    rate, firsts = asyncio.run(ask_all(server, count, concurrency))
                if turn:
                    measured.rates.append(rate)
                    measured.firsts += firsts
                bar.update()
    trainer.resume()
    psutil.wait_procs([trainer])  # the next table has a round of its own
    print(f"\n{concurrency} clients, {count} requests a turn, medians of {turns} turns; ", end="")
    print(f"the training had {statistics.median(shares):.2f} of a core\n")
    print(f"| | tokens/s | over {WITHOUT} | first token, ms |\n|---|---:|---:|---:|")
    for name, measured in found.items():
        print("|", " | ".join([name, *measured.cells(found[WITHOUT])]), "|", flush=True)


@contextmanager
def resumed(trainer: psutil.Process) -> Iterator[list[float]]:
    """Let it train in this turn; what it then had of a core is put into the list."""
    share, began, before = list[float](), time.monotonic(), cpu_s(trainer)
    trainer.resume()
    yield share
    assert trainer.is_running(), "the round has ended: take fewer turns"
    share.append((cpu_s(trainer) - before) / (time.monotonic() - began))
    trainer.suspend()


def cpu_s(process: psutil.Process) -> float:
    """On a core so far."""
    times = process.cpu_times()
    return float(times.user + times.system)


def trained(server: Server, process: "subprocess.Popen[bytes]") -> psutil.Process:
    """The training's process, suspended when it has loaded; asks as much as starts a round."""
    rows = [json.loads(line)["prompt"] for line in PROMPTS.read_text().splitlines()]
    deadline = time.monotonic() + START_S
    number = 0
    while (found := trainer_of(process)) is None:
        assert time.monotonic() < deadline, "no training has started"
        some = range(number, number + COURSE.every // 8)
        ask(server, [f"# {each}\n{rows[each % len(rows)]}" for each in some])  # held out by hash
        number += len(some)
    while cpu_s(found) < LOADED_S:
        time.sleep(0.2)
    found.suspend()
    return found


def trainer_of(process: "subprocess.Popen[bytes]") -> psutil.Process | None:
    """The command's child that trains, if there is one."""
    for child in psutil.Process(process.pid).children():
        with suppress(psutil.Error):
            if MODULE in child.cmdline():
                return child
    return None


def ask(server: Server, prompts: Sequence[str]) -> None:
    """Completions that are recorded."""
    told = {"model": server.model, "prompt": prompts, "max_tokens": 24, "temperature": 1.0}
    headers = {"content-type": "application/json"}
    url = f"{server.url}/v1/completions"
    urllib.request.urlopen(urllib.request.Request(url, json.dumps(told).encode(), headers)).close()


if __name__ == "__main__":
    main()
