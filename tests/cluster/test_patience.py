"""An S3 server that goes away and comes back, or is overloaded for a while."""

import errno
import logging
import socket
import threading
import time
from collections.abc import Iterator
from typing import Any

import boto3
import pytest
from moto.server import ThreadedMotoServer

from cluster import patience, storage
from cluster.errors import StorageError

BUCKET = "s3://patience"


class Server:
    """An S3 server that can be stopped and started, at one address, with what it held before."""

    def __init__(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.start()

    def start(self) -> None:
        self._running = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._running.start()

    def stop(self) -> None:
        self._running.stop()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    made = Server()
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"http://127.0.0.1:{made.port}")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    boto3.client("s3").create_bucket(Bucket=BUCKET.removeprefix("s3://"))
    yield made
    made.stop()


def test_a_server_that_is_down_for_a_while_is_waited_for(
    server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    storage.publish(f"{BUCKET}/before", b"1")
    server.stop()
    down_s, began = 3.0, time.monotonic()
    threading.Timer(down_s, server.start).start()
    with caplog.at_level(logging.WARNING, "cluster.patience"):
        assert storage.create(f"{BUCKET}/entry", b"2")
    assert down_s <= time.monotonic() - began < down_s + patience.LONGEST_DELAY_S + 5
    assert "cannot write s3://patience/entry" in caplog.text
    assert "trying again" in caplog.text
    assert storage.read_bytes(f"{BUCKET}/entry") == b"2"
    assert [info.name for info in storage.list_files(BUCKET)] == ["before", "entry"]


def test_patience_ends(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 1.0)
    server.stop()
    began = time.monotonic()
    with pytest.raises(StorageError, match="cannot write s3://patience/x"):
        storage.publish(f"{BUCKET}/x", b"")
    assert 1 <= time.monotonic() - began < 10
    server.start()


def test_an_overloaded_server_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    answers = iter([_answer(503, "SlowDown"), OSError(errno.EBUSY, "busy"), _answer(500, "x")])
    waits: list[float] = []
    monkeypatch.setattr(time, "sleep", waits.append)

    def call() -> str:
        for error in answers:
            raise error
        return "done"

    assert patience.patiently(call, "try") == "done"
    assert len(waits) == 3
    assert 0.125 <= waits[0] <= 0.25
    assert 0.5 <= waits[2] <= 1.0


@pytest.mark.parametrize(
    "error", [PermissionError("no"), FileNotFoundError("no"), FileExistsError("no")]
)
def test_a_refusal_is_final(error: Exception) -> None:
    calls = []

    def call() -> None:
        calls.append(1)
        raise error

    with pytest.raises(type(error)):
        patience.patiently(call, "try")
    assert len(calls) == 1


def test_a_write_whose_answer_was_lost_counts(
    server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The condition of the repeated call no longer holds, because of the first one."""
    from cluster import s3

    client = s3.client()
    call_s3, lost = client.call_s3, []

    def lossy(method: str, **kwargs: Any) -> Any:
        answer = call_s3(method, **kwargs)
        if method == "put_object" and not lost:
            lost.append(answer)
            raise ConnectionResetError("answer lost")
        return answer

    monkeypatch.setattr(client, "call_s3", lossy)
    assert storage.create(f"{BUCKET}/lost", b"mine")
    assert lost
    assert not storage.create(f"{BUCKET}/lost", b"theirs")
    lost.clear()
    assert storage.swap(f"{BUCKET}/lost", b"mine", b"next")
    assert lost
    assert not storage.swap(f"{BUCKET}/lost", b"mine", b"more")


def _answer(status: int, code: str) -> Exception:
    from botocore.exceptions import ClientError

    found = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(found, "PutObject")  # type: ignore[arg-type]
