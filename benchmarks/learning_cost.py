"""How much `--learn` slows a server while its drafter is trained.

    python -m benchmarks.learning_cost                     # about 5 minutes on two cores
    python -m benchmarks.learning_cost --concurrency 1 16  # some rows of the table

Two servers of the demo model and its draft model run all the time, one with `--learn`, and are
asked in turn by OpenAI's client. The learner gets requests of many prompts first, so that a round
of training begins; its process is suspended in the other server's turns. A round ends after about
46 s of CPU time, so turns after that measure no training: the last column tells how much there was.
"""

import argparse
import asyncio
import json
import statistics
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import replace

import openai
import psutil
from tqdm import tqdm

from benchmarks.serving import DRAFT, LEAST, PROMPTS, Measured, Server, ask_all, ours, started
from pipelines.serve.learning.lesson import COURSE
from pipelines.serve.learning.trainer import MODULE

TURNS, AT_ONCE, BEGINS_S = 4, 16, 120.0
PLAIN, LEARNS = "serve, draft model", "serve, draft model, --learn"


class Training:
    """The process that trains beside a server, if there is one now."""

    def __init__(self, server: int) -> None:
        """`server`: the process of the command."""
        self._server = psutil.Process(server)

    def process(self) -> psutil.Process | None:
        """Of the round that is under way."""
        for child in self._server.children(recursive=True):
            with suppress(psutil.Error):
                if MODULE in child.cmdline():
                    return child
        return None

    def cpu_s(self) -> float:
        """CPU time that it has used; 0 without one."""
        found = self.process()
        return 0.0 if found is None else sum(found.cpu_times()[:2])

    @contextmanager
    def suspended(self) -> Iterator[None]:
        """It does nothing within."""
        found = self.process()
        with suppress(psutil.Error):
            if found is not None:
                found.suspend()
        yield
        with suppress(psutil.Error):
            if found is not None:
                found.resume()


def main() -> None:
    """Measure and print a row for each concurrency."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--concurrency", type=int, nargs="+", default=(1, 4, 16))
    options = parser.parse_args()
    with ExitStack() as running:
        folder = running.enter_context(tempfile.TemporaryDirectory())
        plain, learns = ours(8134, DRAFT), ours(8135, DRAFT)
        learns = replace(learns, command=(*learns.command, "--learn", folder))
        running.enter_context(started(plain))
        training = Training(running.enter_context(started(learns)).pid)
        asyncio.run(fill(learns))
        wait_for(training)
        print("| clients | without | with --learn | | CPU time of the training |")
        print("|---:|---:|---:|---:|---:|")
        for concurrency in options.concurrency:
            print(row(concurrency, plain, learns, training), flush=True)


def row(concurrency: int, plain: Server, learns: Server, training: Training) -> str:
    """tokens/s of both servers in turn, and seconds that were trained beside the second."""
    found = {PLAIN: Measured(), LEARNS: Measured()}
    count, trained_s = max(LEAST, 2 * concurrency), 0.0
    for turn in tqdm(range(TURNS + 1), desc=f"{concurrency} clients", leave=False):
        with training.suspended():
            rate, _ = asyncio.run(ask_all(plain, count, concurrency))
        before = training.cpu_s()
        other, _ = asyncio.run(ask_all(learns, count, concurrency))
        if turn:  # the first one warms up
            found[PLAIN].rates.append(rate)
            found[LEARNS].rates.append(other)
            trained_s += max(0.0, training.cpu_s() - before)
    _, ratio, _ = found[LEARNS].cells(found[PLAIN])
    rates = [f"{statistics.median(each.rates):.0f}" for each in found.values()]
    return f"| {concurrency} | {rates[0]} | {rates[1]} | {ratio} | {trained_s:.0f} s |"


async def fill(server: Server) -> None:
    """Requests enough for a round, of prompts that differ, so that some are held out."""
    lines = PROMPTS.read_text(encoding="utf-8").splitlines()
    texts = [json.loads(line)["prompt"][:48] for line in lines]
    numbers = iter(range(COURSE.every + COURSE.every // 4))
    base = f"{server.url}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key="none", timeout=600) as client:

        async def ask_some() -> None:
            for number in numbers:
                await client.completions.create(
                    model=server.model,
                    prompt=f"{number}. {texts[number % len(texts)]}",
                    max_tokens=32,
                    temperature=float(number % 2),
                    extra_body=dict(server.extra),
                )

        await asyncio.gather(*(ask_some() for _ in range(AT_ONCE)))


def wait_for(training: Training) -> None:
    """Until it has begun."""
    deadline = time.monotonic() + BEGINS_S
    while training.cpu_s() == 0.0:
        if time.monotonic() > deadline:
            raise SystemExit(f"no training has begun after {BEGINS_S:.0f} s")
        time.sleep(0.5)


if __name__ == "__main__":
    main()
