"""The address that a server prints is the one that it answers at, whoever's host that is."""

import socket
from collections.abc import Iterator
from typing import Any

import pytest

from cluster import head
from cluster.errors import CannotConnect
from cluster.head import head_address, is_here
from models.errors import InvalidOption
from pipelines.serve import server
from pipelines.serve.address import address_of
from pipelines.serve.check import check
from pipelines.serve.config import ServeConfig

TARGET = "examples/models/text-target"
ELSEWHERE = "192.0.2.7"  # of the range for documentation: no machine has it
CLUSTER = "ray://192.0.2.7:10001"


def config(**options: Any) -> ServeConfig:
    keys = {} if "host" not in options else {"api_key_file": "keys"}
    return ServeConfig(target=TARGET, **options, **keys)


@pytest.mark.parametrize(
    ("host", "here", "there"),
    [
        ("0.0.0.0", "http://0.0.0.0:8000", f"http://{ELSEWHERE}:8000"),
        ("::", "http://[::]:8000", f"http://{ELSEWHERE}:8000"),
        ("10.0.0.1", "http://10.0.0.1:8000", "http://10.0.0.1:8000"),
    ],
)
def test_the_head_node_s_host_is_told(host: str, here: str, there: str) -> None:
    assert address_of(config(host=host), None).url == here
    found = address_of(config(host=host), ELSEWHERE)
    assert (found.url, found.note) == (there, "")


def test_a_loopback_address_is_the_head_node_s_own() -> None:
    assert address_of(config(), None).note == ""
    assert f"on the cluster's head node {ELSEWHERE}" in address_of(config(), ELSEWHERE).note


def test_the_head_node_is_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    worker = {"Alive": True, "Resources": {"CPU": 1.0}, "NodeManagerAddress": "192.0.2.1"}
    lost = {**worker, "Alive": False, "Resources": {head.HEAD: 1.0}}
    nodes = [worker, lost, {**lost, "Alive": True, "NodeManagerAddress": ELSEWHERE}]
    monkeypatch.setattr(head.ray, "nodes", lambda: nodes)
    assert head_address() == ELSEWHERE
    nodes.pop()
    with pytest.raises(CannotConnect, match="names no head node"):
        head_address()


def test_which_addresses_are_here() -> None:
    assert is_here("127.0.0.1")
    assert not is_here(ELSEWHERE)


@pytest.fixture
def taken() -> Iterator[int]:
    """A port that somebody listens on here."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        held.listen()
        yield held.getsockname()[1]


def test_a_port_is_tried_where_the_server_listens(
    taken: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    given = config(port=taken, address=CLUSTER)
    check([given])  # of a cluster that nobody has asked yet
    monkeypatch.setattr(server, "head_address", lambda: ELSEWHERE)
    assert ELSEWHERE in server._address(given).note
    monkeypatch.setattr(server, "head_address", lambda: "127.0.0.1")
    with pytest.raises(InvalidOption, match="a free one"):
        server._address(given)
    with pytest.raises(InvalidOption, match="a free one"):
        check([config(port=taken)])
