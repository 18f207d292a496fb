"""A client of streams: when its connection is cut, it goes on from the id of the last event."""

import http.client
import json
import threading
import time
from collections.abc import Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from typing import Any

AGAIN_S = 0.1
Body = dict[str, Any]


@dataclass(slots=True)
class Heard:
    """What came of one stream. `cuts`: connections that ended before it did."""

    texts: dict[int, str] = field(default_factory=dict)  # by choice
    reasons: dict[int, str] = field(default_factory=dict)
    last: str = ""
    cuts: int = 0
    ended: bool = False

    def add(self, line: str) -> None:
        """A line of the stream. Raises ValueError for an event that is an error."""
        name, _, value = line.partition(": ")
        if name == "id":
            self.last = value
        elif name == "data" and value == "[DONE]":
            self.ended = True
        elif name == "data":
            chunk = json.loads(value)
            if "error" in chunk:
                raise ValueError(value)
            for choice in chunk["choices"]:
                i = choice["index"]
                self.texts[i] = self.texts.get(i, "") + choice["text"]
                if choice["finish_reason"]:
                    self.reasons[i] = choice["finish_reason"]


class Follower:
    """Asks for streams in a thread, one after the other; `wrong`: what differed, or failed."""

    def __init__(self, port: int, bodies: Mapping[str, Body], expected: Mapping[str, Any]) -> None:
        self._port, self._bodies, self._expected = port, bodies, expected
        self._stopped = threading.Event()
        self.wrong: list[str] = []
        self.answers = self.cuts = self.events = 0
        self.slowest_s = 0.0  # between two lines, or from the ask to the first
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._stopped.set()
        self._thread.join()

    def whole(self, body: Body) -> Any:
        """What a stream says in all; None if this client was stopped before it could go on.

        Raises ValueError for a request that is refused.
        """
        heard, heard_at = Heard(), time.monotonic()
        while not heard.ended:
            if self._stopped.is_set():
                return None
            try:
                for line in self._lines(body, heard.last):
                    heard.add(line)
                    self.events += 1
                    now = time.monotonic()
                    self.slowest_s, heard_at = max(self.slowest_s, now - heard_at), now
            except (OSError, http.client.HTTPException):
                pass
            if not heard.ended:
                heard.cuts += 1
                time.sleep(AGAIN_S)
        self.cuts += bool(heard.cuts)
        return heard.texts, heard.reasons

    def _run(self) -> None:
        while not self._stopped.is_set():
            for name, body in self._bodies.items():
                try:
                    found = self.whole(body)
                    if found is None:
                        return
                    if found != self._expected[name]:
                        self.wrong.append(f"{name}: {found} is not {self._expected[name]}")
                except Exception as error:
                    self.wrong.append(f"{name}: {error!r}")
                    return
                self.answers += 1

    def _lines(self, body: Body, last: str) -> Iterator[str]:
        headers = {"content-type": "application/json"} | ({"last-event-id": last} if last else {})
        with closing(http.client.HTTPConnection("127.0.0.1", self._port, timeout=60)) as line:
            line.request("POST", "/v1/completions", json.dumps(body | {"stream": True}), headers)
            answer = line.getresponse()
            if answer.status != 200:
                raise refusal(answer)
            for each in answer:
                yield each.decode().rstrip("\n")


def refusal(answer: http.client.HTTPResponse) -> Exception:
    """ValueError where the server refuses the request, another for what may pass.

    Ray Serve's proxy answers 404, in plain text, until it knows where the server is.
    """
    told = f"{answer.status}: {answer.read().decode()}"
    is_json = answer.headers.get_content_type() == "application/json"
    if 400 <= answer.status < 500 and (answer.status != 404 or is_json):
        return ValueError(told)
    return http.client.HTTPException(told)


@dataclass(frozen=True, slots=True)
class Opened:
    """Streams that have begun, and what each says when nothing disturbs it; by name."""

    expected: dict[str, Any]
    clients: dict[str, Follower]
    _streams: "dict[str, Future[Any]]"

    def found(self) -> dict[str, Any]:
        """What they have said, once they have ended."""
        return {name: each.result() for name, each in self._streams.items()}

    @property
    def running(self) -> bool:
        """Whether none has ended."""
        return not any(each.done() for each in self._streams.values())


@contextmanager
def opened(port: int, bodies: Mapping[str, Body]) -> Iterator[Opened]:
    """A stream of each body, asked for at once."""
    clients = {name: Follower(port, {}, {}) for name in bodies}
    with ThreadPoolExecutor(len(bodies)) as threads:
        asked = Follower(port, {}, {}).whole
        expected = dict(zip(bodies, threads.map(asked, bodies.values()), strict=True))
        streams = {name: threads.submit(clients[name].whole, bodies[name]) for name in bodies}
        while not all(each.events for each in clients.values()):
            time.sleep(0.01)
        yield Opened(expected, clients, streams)
