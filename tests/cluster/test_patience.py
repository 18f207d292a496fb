"""An S3 server that goes away and comes back, is overloaded for a while, or gives no answers."""

import errno
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest

from cluster.errors import StorageError
from cluster.storage import patience, storage
from tests.flaky_s3 import FlakyS3
from tests.s3_server import Server


def test_a_server_that_is_down_for_a_while_is_waited_for(
    s3_server: Server, caplog: pytest.LogCaptureFixture
) -> None:
    storage.publish(f"s3://{s3_server.bucket}/before", b"1")
    s3_server.stop()
    down_s, began = 3.0, time.monotonic()
    threading.Timer(down_s, s3_server.start).start()
    with caplog.at_level(logging.WARNING, "cluster.storage.patience"):
        assert storage.create(f"s3://{s3_server.bucket}/entry", b"2")
    assert down_s <= time.monotonic() - began < down_s + patience.LONGEST_DELAY_S + 5
    assert f"cannot write s3://{s3_server.bucket}/entry" in caplog.text
    assert "trying again" in caplog.text
    assert storage.read_bytes(f"s3://{s3_server.bucket}/entry") == b"2"
    assert [info.name for info in storage.list_files(f"s3://{s3_server.bucket}")] == [
        "before",
        "entry",
    ]


def test_patience_ends(s3_server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patience, "PATIENCE_S", 1.0)
    s3_server.stop()
    began = time.monotonic()
    with pytest.raises(StorageError, match=r"cannot write s3://interrupted-[^/]*/x"):
        storage.publish(f"s3://{s3_server.bucket}/x", b"")
    assert 1 <= time.monotonic() - began < 10
    s3_server.start()


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
    s3_server: Server, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The condition of the repeated call no longer holds, because of the first one."""
    from cluster.storage import s3

    client = s3.client()
    call_s3, lost = client.call_s3, []

    def lossy(method: str, **kwargs: Any) -> Any:
        answer = call_s3(method, **kwargs)
        if method == "put_object" and not lost:
            lost.append(answer)
            raise ConnectionResetError("answer lost")
        return answer

    monkeypatch.setattr(client, "call_s3", lossy)
    assert storage.create(f"s3://{s3_server.bucket}/lost", b"mine")
    assert lost
    assert not storage.create(f"s3://{s3_server.bucket}/lost", b"theirs")
    lost.clear()
    assert storage.swap(f"s3://{s3_server.bucket}/lost", b"mine", b"next")
    assert lost
    assert not storage.swap(f"s3://{s3_server.bucket}/lost", b"mine", b"more")


@pytest.fixture
def silent(
    s3_bucket: str, s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, request: Any
) -> Iterator[FlakyS3]:
    """Loses so many of the answers of the server of `s3_bucket`."""
    monkeypatch.setattr("cluster.storage.s3.ANSWER_S", 0.5)
    flaky = FlakyS3(s3_endpoint, rate=request.param, seed=0, faults=("silent",))
    monkeypatch.setenv("AWS_ENDPOINT_URL", flaky.url)
    yield flaky
    flaky.stop()


@pytest.mark.parametrize("silent", [0.4], indirect=True)
def test_a_request_without_an_answer_is_made_again(
    s3_bucket: str, silent: FlakyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(patience, "FIRST_DELAY_S", 0.01)
    url = f"{s3_bucket}/entry"
    assert storage.create(url, b"mine")
    assert not storage.create(url, b"theirs")
    assert storage.swap(url, b"mine", b"next")
    assert storage.read_bytes(url) == b"next"
    assert [info.name for info in storage.list_files(s3_bucket)] == ["entry"]
    assert silent.count > 2


@pytest.mark.parametrize("silent", [1.0], indirect=True)
def test_silence_is_awaited_once_for_each_try(
    s3_bucket: str, silent: FlakyS3, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or else a lease expires within one call."""
    monkeypatch.setattr(patience, "PATIENCE_S", 0.0)
    with pytest.raises(StorageError, match=r"cannot read s3://bucket-[^/]*/x: Read timeout"):
        storage.read_bytes(f"{s3_bucket}/x")
    assert silent.count == 1


def _answer(status: int, code: str) -> Exception:
    from botocore.exceptions import ClientError

    found = {"Error": {"Code": code}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return ClientError(found, "PutObject")  # type: ignore[arg-type]
