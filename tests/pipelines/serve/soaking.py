"""Clients of all kinds, and what is done to the processes behind them meanwhile."""

import math
import os
import random
import re
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from itertools import pairwise, product
from pathlib import Path
from typing import Any

import openai
import psutil

Body = dict[str, Any]
Ask = tuple[str, int]  # a kind and a seed
SEEDS = range(1, 4)
STALL_S = 1.0
SERVERS = re.compile(r"ray::(ServeReplica|Manager|ProxyActor|ServeController)")
WEATHER: Body = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Oslo", "Bergen"]}, "days": {"type": "boolean"}},
            "required": ["city", "days"],
            "additionalProperties": False,
        },
    },
}
CHAT: Body = {"messages": [{"role": "user", "content": "Tell me of Bergen."}]}
TEXT: Body = {"prompt": "Once upon a time there was a cyclist", "max_tokens": 48}
KINDS: Mapping[str, Body] = {
    "greedy": TEXT | {"temperature": 0},
    "sampled": TEXT | {"temperature": 0.9, "top_p": 0.95},
    "penalties": TEXT | {"frequency_penalty": 0.7, "repetition_penalty": 1.2, "min_tokens": 20},
    "stop": TEXT | {"stop": ["e ", "qu"]},
    "grammar": TEXT | {"structured_outputs": {"regex": "([a-m]{1,3}[n-z]{2}[0-9]){9}"}},
    "two choices": TEXT | {"n": 2},
    "logprobs": TEXT | {"logprobs": 2},
    "prediction": TEXT | {"prediction": {"type": "content", "content": "there was a cyclist"}},
    "chat": CHAT | {"max_tokens": 48},
    "tools": CHAT | {"tools": [WEATHER], "tool_choice": "required", "max_tokens": 120},
}
LONG: Body = TEXT | {"max_tokens": 120, "ignore_eos": True, "n": 2}
ASKS: tuple[Ask, ...] = tuple(product(KINDS, SEEDS))


@dataclass(slots=True)
class Tallies:
    """What clients were told. `wrong`: answers that differ from the undisturbed ones."""

    asked: Counter[str] = field(default_factory=Counter)  # by kind
    completions: int = 0  # that came whole
    tokens: int = 0  # of these
    left: int = 0  # completions whose client went away
    wrong: list[str] = field(default_factory=list)
    slowest_s: float = 0.0
    gaps_s: list[float] = field(default_factory=list)  # from a stream's chunk to the next one

    def gap_ms(self, share: float) -> float:
        """That so large a share of the gaps does not exceed; 1.0: the longest one."""
        ordered = sorted(self.gaps_s)
        return 1e3 * ordered[max(0, math.ceil(share * len(ordered)) - 1)] if ordered else 0.0


@dataclass(slots=True)
class Choice:
    """What is compared: everything but ids and times."""

    text: str = ""
    call: str = ""
    reason: str | None = None
    logprobs: list[Any] = field(default_factory=list)

    def add(self, piece: Any) -> None:
        """A chunk's choice, or a whole answer's."""
        told = getattr(piece, "delta", None) or getattr(piece, "message", None)
        if told is None:
            self.text += piece.text
        else:
            self.text += told.content or ""
            for call in told.tool_calls or ():
                self.call += (call.function.name or "") + (call.function.arguments or "")
        self.reason = piece.finish_reason or self.reason
        if getattr(piece, "logprobs", None):
            self.logprobs += piece.logprobs.token_logprobs


class Clients:
    """Threads that ask without a pause until they are told to stop."""

    def __init__(self, url: str, expected: Mapping[Ask, Any] | None = None) -> None:
        self._url, self._expected = url, expected or {}
        self._lock, self._stopped = threading.Lock(), threading.Event()
        self.tallies = Tallies()

    def undisturbed(self) -> dict[Ask, Any]:
        """Every answer, one after the other."""
        with self._client() as client:
            return {ask: self._whole(client, ask) for ask in ASKS}

    def run(self, count: int, disturb: Callable[[], None]) -> None:
        """`count` clients, until `disturb` returns."""
        threads = [threading.Thread(target=self._loop, args=(i,)) for i in range(count)]
        for thread in threads:
            thread.start()
        try:
            disturb()
        finally:
            self._stopped.set()
            for thread in threads:
                thread.join()

    @property
    def num_answers(self) -> int:
        return sum(self.tallies.asked.values())

    def _client(self) -> openai.OpenAI:
        return openai.OpenAI(base_url=f"{self._url}/v1", api_key="none", max_retries=0, timeout=120)

    def _loop(self, number: int) -> None:
        chance = random.Random(number)
        with self._client() as client:
            while not self._stopped.is_set():
                began = time.monotonic()
                way = chance.choice(("whole", "streamed", "streamed", "leaves"))
                ask = chance.choice(ASKS)
                try:
                    self._once(client, ask, way)
                except openai.OpenAIError as error:
                    with self._lock:
                        self.tallies.wrong.append(f"{way} {ask}: {error!r}")
                with self._lock:
                    self.tallies.asked["leaves" if way == "leaves" else ask[0]] += 1
                    took = time.monotonic() - began
                    self.tallies.slowest_s = max(self.tallies.slowest_s, took)

    def _once(self, client: openai.OpenAI, ask: Ask, way: str) -> None:
        if way == "leaves":
            self._leave(client, ask[1])
            return
        found = (self._whole if way == "whole" else self._streamed)(client, ask)
        if found != self._expected[ask]:
            with self._lock:
                told = f"{way} {ask}: {found} is not {self._expected[ask]}"
                self.tallies.wrong.append(told)

    def _leave(self, client: openai.OpenAI, seed: int) -> None:
        """After the first chunk; the answer is so long that it cannot be complete by then."""
        with _create(client, LONG | {"seed": seed}, stream=True) as stream:
            next(iter(stream))
            with self._lock:
                self.tallies.left += LONG["n"]

    def _whole(self, client: openai.OpenAI, ask: Ask) -> Any:
        answer = _create(client, _body(ask))
        self._count(answer.usage, len(answer.choices))
        return [_choice([piece]) for piece in answer.choices]

    def _streamed(self, client: openai.OpenAI, ask: Ask) -> Any:
        options = {"stream": True, "stream_options": {"include_usage": True}}
        pieces: dict[int, list[Any]] = {}
        usage, came = None, list[float]()
        for chunk in _create(client, _body(ask), **options):
            came.append(time.monotonic())
            for piece in chunk.choices:
                pieces.setdefault(piece.index, []).append(piece)
            usage = chunk.usage or usage
        self._count(usage, len(pieces))
        with self._lock:
            self.tallies.gaps_s += [after - before for before, after in pairwise(came)]
        return [_choice(pieces[index]) for index in sorted(pieces)]

    def _count(self, usage: Any, completions: int) -> None:
        with self._lock:
            self.tallies.completions += completions
            self.tallies.tokens += usage.completion_tokens


def _body(ask: Ask) -> Body:
    return KINDS[ask[0]] | {"seed": ask[1]}


def _create(client: openai.OpenAI, body: Body, **more: Any) -> Any:
    """With the fields that OpenAI does not know in `extra_body`."""
    known = {"prompt", "messages", "max_tokens", "temperature", "stop", "n", "logprobs", "seed"}
    known |= {"tools", "tool_choice", "top_p", "frequency_penalty"}
    values: Body = {name: value for name, value in body.items() if name in known}
    extra = {name: value for name, value in body.items() if name not in known}
    make: Any = client.chat.completions if "messages" in body else client.completions
    return make.create(model="soaked", extra_body=extra, **values, **more)


def _choice(pieces: list[Any]) -> Choice:
    made = Choice()
    for piece in pieces:
        made.add(piece)
    return made


class Faults:
    """Kills and stalls of the processes behind a server; `processes`: their ids, by name."""

    def __init__(self, processes: Callable[[], Mapping[str, int]]) -> None:
        self._processes, self._chance = processes, random.Random(0)
        self.done: Counter[str] = Counter()

    def kill(self, role: str) -> bool:
        """One of a role, if there is one."""
        return self._signal(role, signal.SIGKILL, f"{role} killed")

    def stall(self, role: str) -> bool:
        """Stop one for a while."""
        return self._signal(role, signal.SIGSTOP, f"{role} stalled")

    def _signal(self, role: str, sent: signal.Signals, told: str) -> bool:
        found = sorted(p for name, p in self._processes().items() if name.startswith(role))
        if not found:
            return False
        pid = self._chance.choice(found)
        try:
            os.kill(pid, sent)
            if sent == signal.SIGSTOP:
                time.sleep(STALL_S)
                os.kill(pid, signal.SIGCONT)
        except ProcessLookupError:  # it died meanwhile, and is replaced
            return False
        self.done[told] += 1
        return True


def memory_mib(pids: Mapping[str, int]) -> dict[str, float]:
    """Resident memory of processes that are there."""
    return dict(_resident(pids))


def descriptors(pids: Mapping[str, int]) -> dict[tuple[str, int], int]:
    """Open files of processes that are there, by name and id."""
    found = {}
    for name, pid in pids.items():
        with suppress(OSError):
            found[name, pid] = sum(1 for _ in Path(f"/proc/{pid}/fd").iterdir())
    return found


def server_pids() -> dict[str, int]:
    """The server's own processes on this machine: ingress, manager, and those of Ray Serve."""
    found: dict[str, int] = {}
    for process in psutil.Process().children(recursive=True):
        with suppress(psutil.Error):
            title = SERVERS.match(" ".join(process.cmdline()))
            if title is not None:
                found[title[1]] = process.pid
    return found


def _resident(pids: Mapping[str, int]) -> Iterator[tuple[str, float]]:
    for name, pid in pids.items():
        try:
            pages = int(Path(f"/proc/{pid}/statm").read_text(encoding="ascii").split()[1])
            yield name, pages * os.sysconf("SC_PAGE_SIZE") / 2**20
        except OSError:
            continue
