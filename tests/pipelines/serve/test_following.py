"""The client of the tests of faults: what is refused ends it, and what may pass is asked again."""

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any

import pytest

from tests.pipelines.serve.following import Follower

BODY = {"prompt": "a"}
STREAM = b'id: 1\ndata: {"choices": [{"index": 0, "text": "b", "finish_reason": "stop"}]}\n\n'
WHOLE = ({0: "b"}, {0: "stop"})
Answer = tuple[int, str, bytes]
GOOD: Answer = (200, "text/event-stream", STREAM + b"data: [DONE]\n\n")
LATER: Answer = (503, "application/json", b'{"error": "later"}')
NO_ROUTE: Answer = (404, "text/plain", b"not found")
REFUSED: Answer = (400, "application/json", b'{"error": "no"}')


class Server(HTTPServer):
    """Gives these answers in turn, and the last one for ever."""

    def __init__(self, *answers: Answer) -> None:
        self.answers, self.asked = list(answers), threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        left = self.server.answers
        status, kind, body = left.pop(0) if len(left) > 1 else left[0]
        self.send_response(status)
        self.send_header("content-type", kind)
        self.end_headers()
        self.wfile.write(body)
        self.server.asked.set()

    def log_message(self, *told: Any) -> None:
        pass


@pytest.fixture
def server(request: pytest.FixtureRequest) -> Iterator[Server]:
    with Server(*request.param) as made:
        thread = threading.Thread(target=made.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield made
        made.shutdown()
        thread.join()


@pytest.mark.parametrize("server", [(LATER, NO_ROUTE, GOOD)], indirect=True)
def test_what_may_pass_is_asked_again(server: Server) -> None:
    client = Follower(server.server_port, {}, {})
    assert client.whole(BODY) == WHOLE
    assert client.cuts == 1


@pytest.mark.parametrize("server", [(REFUSED,)], indirect=True)
def test_a_refused_request_is_told(server: Server) -> None:
    client = Follower(server.server_port, {"x": BODY}, {"x": WHOLE})
    with pytest.raises(ValueError, match=r'400: \{"error": "no"\}'):
        client.whole(BODY)
    client.start()
    client._thread.join(10)
    assert len(client.wrong) == 1


@pytest.mark.parametrize("server", [(LATER,)], indirect=True)
def test_it_can_be_stopped_while_nothing_is_served(server: Server) -> None:
    client = Follower(server.server_port, {"x": BODY}, {"x": WHOLE})
    client.start()
    assert server.asked.wait(10)
    client.stop()
    assert (client.wrong, client.answers) == ([], 0)
