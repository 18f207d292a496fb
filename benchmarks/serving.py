"""`paceline serve` beside the bare token loop and beside `transformers serve`.

    python -m benchmarks.serving                     # about 6 minutes on two cores
    python -m benchmarks.serving --concurrency 1 16  # some rows of the tables
    python -m benchmarks.serving --no-transformers   # which needs `pip install accelerate`

The servers run all the time and are asked in turn by OpenAI's client, streamed. The same prompts,
greedy, completions of 64 tokens for all; the bare loop has as many rows as there are clients.
`transformers serve` with continuous batching keeps a core busy while it has nothing to do, so it is
suspended during the turns of the others.
"""

import argparse
import asyncio
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import openai
from tqdm import tqdm

from models.engine import EngineConfig, build_loop
from models.loop.token_loop import TokenLoop
from models.requests.request import Sampling
from pipelines.generate.rows.prompts import read_prompts, requests

ROOT = Path(__file__).parents[1]
TARGET, DRAFT = (str(ROOT / "examples" / "models" / name) for name in ("text-target", "text-draft"))
PROMPTS = ROOT / "examples" / "prompts.jsonl"
TOKENS, LEAST, TURNS, START_S = 64, 24, 3, 180.0
THREADS = len(os.sched_getaffinity(0))
CONCURRENCY = (1, 4, 16, 64)


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """`extra`: fields that only this server has; `busy`: it uses a core while it has no request."""

    port: int
    model: str
    command: tuple[str, ...]
    extra: Mapping[str, Any] = field(default_factory=dict)
    busy: bool = False

    @property
    def url(self) -> str:
        """Where it listens."""
        return f"http://127.0.0.1:{self.port}"


@dataclass(slots=True)
class Measured:
    """Of one contestant: tokens/s of each turn, and milliseconds until each first token."""

    rates: list[float] = field(default_factory=list)
    firsts: list[float] = field(default_factory=list)

    def cells(self, over: "Measured") -> list[str]:
        """tokens/s, over another contestant's in the same turns, and the median first token."""
        ratios = [own / other for own, other in zip(self.rates, over.rates, strict=True)]
        first = f"{statistics.median(self.firsts):.0f}" if self.firsts else "–"
        return [f"{statistics.median(self.rates):.0f}", f"{statistics.median(ratios):.2f}×", first]


def ours(port: int, drafter: str) -> Server:
    """`paceline serve`."""
    told = {"target": TARGET, "drafter": drafter, "port": port, "batch-size": 64}
    options = [word for name, value in told.items() for word in (f"--{name}", str(value))]
    command = (sys.executable, "-m", "pipelines.cli", "serve", *options)
    extra = {"ignore_eos": True}
    return Server(port=port, model="text-target", command=command, extra=extra)


def peer(port: int) -> Server:
    """`transformers serve` in its faster mode for many clients."""
    program = str(Path(sys.executable).with_name("transformers"))
    options = ("--continuous-batching", "--device", "cpu", "--port", str(port))
    return Server(port=port, model=TARGET, command=(program, "serve", TARGET, *options), busy=True)


def main() -> None:
    """Measure and print a table for each concurrency."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--concurrency", type=int, nargs="+", default=CONCURRENCY)
    parser.add_argument("--no-transformers", action="store_true")
    options = parser.parse_args()
    servers = {"serve, plain": ours(8131, "none"), "serve, draft model": ours(8132, DRAFT)}
    if not options.no_transformers:
        servers["transformers serve, continuous batching"] = peer(8133)
    with ExitStack() as running:
        processes = {
            name: running.enter_context(started(server)) for name, server in servers.items()
        }
        turns = {
            name: suspended(processes[name]) if server.busy else nullcontext
            for name, server in servers.items()
        }
        for concurrency in options.concurrency:
            table(concurrency, servers, turns)


Turn = Callable[[], AbstractContextManager[None]]


def table(concurrency: int, servers: Mapping[str, Server], turns: Mapping[str, Turn]) -> None:
    """All contestants with so many clients at once, in turn."""
    count = max(LEAST, 2 * concurrency)
    loops = {"bare loop, plain": "none", "bare loop, draft model": DRAFT}
    made = {name: loop_of(drafter, concurrency) for name, drafter in loops.items()}
    found = {name: Measured() for name in (*made, *servers)}
    with tqdm(total=(TURNS + 1) * len(found), desc=f"{concurrency} clients", leave=False) as bar:
        for turn in range(TURNS + 1):  # the first one warms up
            for name, measured in found.items():
                if name in made:
                    rate, firsts = run_loop(made[name], count, alone=concurrency == 1)
                else:
                    with turns[name]():
                        rate, firsts = asyncio.run(ask_all(servers[name], count, concurrency))
                if turn:
                    measured.rates.append(rate)
                    measured.firsts += firsts
                bar.update()
    print(f"\n{concurrency} clients, {count} requests a turn, medians of {TURNS} turns\n")
    print("| | tokens/s | over the bare loop, plain | first token, ms |\n|---|---:|---:|---:|")
    for name, measured in found.items():
        print("|", " | ".join([name, *measured.cells(found["bare loop, plain"])]), "|", flush=True)


# --- the bare loop -----------------------------------------------------------------------------


def loop_of(drafter: str, rows: int) -> TokenLoop:
    """The token loop alone, with a row for each client."""
    config = EngineConfig(target=TARGET, drafter=drafter, batch_size=rows, threads=THREADS)
    return build_loop(config)


def run_loop(loop: TokenLoop, count: int, *, alone: bool) -> tuple[float, list[float]]:
    """tokens/s; `alone`: one request after the other, and each first token's milliseconds."""
    sampling = Sampling(max_tokens=TOKENS, temperature=0.0, ignore_eos=True)
    prompts = read_prompts(str(PROMPTS), checkpoint=TARGET, count=count)
    made = requests(prompts, sampling, seed=1, at_least=count)[:count]
    asked = [replace(request, stream=True) for request in made]
    began, tokens, firsts = time.perf_counter(), 0, list[float]()
    for group in [[each] for each in asked] if alone else [asked]:
        submitted = time.perf_counter()
        for request in group:
            loop.submit(request)
        while loop.num_unfinished:
            tokens += sum(len(result.tokens) for result in loop.step())
            if loop.take_updates() and alone and len(firsts) < len(asked):
                firsts.append(1e3 * (time.perf_counter() - submitted))
    return tokens / (time.perf_counter() - began), firsts


# --- servers -----------------------------------------------------------------------------------


def suspended(process: "subprocess.Popen[bytes]") -> Turn:
    """Suspend it from now on, but for its turns."""

    @contextmanager
    def turn() -> Iterator[None]:
        process.send_signal(signal.SIGCONT)
        yield
        process.send_signal(signal.SIGSTOP)

    process.send_signal(signal.SIGSTOP)
    return turn


@contextmanager
def started(server: Server) -> Iterator["subprocess.Popen[bytes]"]:
    """Start it and wait until it answers; stop it at the end."""
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(server.command, stdout=log, stderr=log, cwd=ROOT)
        try:
            wait_for(server, process)
            yield process
        finally:
            process.send_signal(signal.SIGCONT)
            process.send_signal(signal.SIGINT)
            try:
                process.wait(timeout=20)
            except subprocess.TimeoutExpired:
                process.kill()


def wait_for(server: Server, process: "subprocess.Popen[bytes]") -> None:
    """Until it has made a token."""
    body = {"model": server.model, "prompt": "a", "max_tokens": 1}
    headers = {"content-type": "application/json"}
    asked = urllib.request.Request(
        f"{server.url}/v1/completions", json.dumps(body).encode(), headers
    )
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            urllib.request.urlopen(asked, timeout=START_S).close()
            return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(0.5)
    sys.exit(f"{' '.join(server.command)} did not start")


async def ask_all(server: Server, count: int, concurrency: int) -> tuple[float, list[float]]:
    """tokens/s and each first token's milliseconds, of so many clients."""
    rows = [json.loads(line)["prompt"] for line in PROMPTS.read_text().splitlines()]
    texts = iter([rows[i % len(rows)] for i in range(count)])
    base = f"{server.url}/v1"
    async with openai.AsyncOpenAI(base_url=base, api_key="none", timeout=600) as client:
        began = time.perf_counter()
        clients = (ask_some(client, server, texts) for _ in range(concurrency))
        told = await asyncio.gather(*clients)
    tokens = sum(count for count, _ in told)
    firsts = [first for _, some in told for first in some]
    return tokens / (time.perf_counter() - began), firsts


async def ask_some(
    client: openai.AsyncOpenAI, server: Server, texts: Iterator[str]
) -> tuple[int, list[float]]:
    """One client: one request after the other."""
    tokens, firsts = 0, list[float]()
    for text in texts:
        began, first, pieces, usage = time.perf_counter(), 0.0, 0, None
        stream = await client.completions.create(
            model=server.model,
            prompt=text,
            max_tokens=TOKENS,
            temperature=0.0,
            stream=True,
            stream_options={"include_usage": True},
            extra_body=dict(server.extra),
        )
        async for chunk in stream:
            usage = chunk.usage or usage
            if chunk.choices:
                first = first or 1e3 * (time.perf_counter() - began)
                pieces += chunk.choices[0].finish_reason is None
        tokens += usage.completion_tokens if usage else pieces  # transformers tells one by one
        firsts.append(first)
    return tokens, firsts


if __name__ == "__main__":
    main()
