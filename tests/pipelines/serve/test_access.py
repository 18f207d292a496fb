"""Who may use the server, and what the configuration refuses."""

import hashlib
from types import SimpleNamespace

import pytest

from models.errors import InvalidOption
from pipelines.check.serve_rules import _open
from pipelines.options import from_mapping
from pipelines.serve.api_error import ApiError
from pipelines.serve.application import build
from pipelines.serve.check import check
from pipelines.serve.config import ServeConfig
from pipelines.serve.door.access import (
    check_access,
    check_content,
    read_key_hashes,
    read_marked_hashes,
)

TARGET = "examples/models/text-target"
KEYS = (hashlib.sha256(b"secret").hexdigest(), hashlib.sha256(b"other").hexdigest())


def status(headers, keys=()) -> int:
    try:
        check_access(headers, keys)
    except ApiError as error:
        return error.status
    return 200


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        ({"host": "127.0.0.1:8000"}, 200),
        ({"host": "localhost"}, 200),
        ({"host": "[::1]:8000"}, 200),
        ({"host": "localhost:8000", "origin": "http://localhost:3000"}, 200),
        ({"host": "evil.example:8000"}, 403),
        ({"host": "localhost.evil.example"}, 403),
        ({"host": "[broken"}, 403),
        ({}, 403),
        ({"host": "localhost", "origin": "https://evil.example"}, 403),
        ({"host": "localhost", "origin": "null"}, 403),
    ],
)
def test_without_keys_host_and_origin_name_this_machine(headers, expected) -> None:
    assert status(headers) == expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ("Bearer secret", 200),
        ("bearer other", 200),
        ("Bearer wrong", 401),
        ("Basic secret", 401),
        ("Bearer", 401),
        (f"Bearer {KEYS[0]}", 401),
        ("", 401),
    ],
)
def test_with_keys_one_of_them_is_needed(given, expected) -> None:
    headers = {"host": "anything", "authorization": given}
    assert status(headers, KEYS) == expected


def test_a_key_may_come_as_anthropic_s_clients_send_it() -> None:
    assert status({"x-api-key": "secret"}, KEYS) == 200
    assert status({"x-api-key": "wrong"}, KEYS) == 401
    assert status({"x-api-key": "secret", "authorization": "Bearer wrong"}, KEYS) == 401


def test_bodies_say_that_they_are_json() -> None:
    check_content({"content-type": "application/json; charset=utf-8"})
    with pytest.raises(ApiError, match="application/json is needed"):
        check_content({"content-type": "text/plain"})


def test_the_key_file_holds_hashes(tmp_path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEYS[0]}  -\n\n{KEYS[1].upper()}\n")
    assert read_key_hashes(str(file)) == KEYS
    for text in ("secret\n", ""):
        file.write_text(text)
        with pytest.raises(InvalidOption, match="SHA-256"):
            read_key_hashes(str(file))
    with pytest.raises(InvalidOption, match="cannot be read"):
        read_key_hashes(str(tmp_path / "none"))


def test_a_key_s_line_says_what_else_it_may_do(tmp_path) -> None:
    file = tmp_path / "keys"
    file.write_text(f"{KEYS[0]}  - priority\n{KEYS[1]}  - admin\n")
    assert read_key_hashes(str(file)) == KEYS
    assert read_marked_hashes(str(file), "priority") == KEYS[:1]
    assert read_marked_hashes(str(file), "admin") == KEYS[1:]


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "example.org"])
def test_other_machines_need_keys(host) -> None:
    with pytest.raises(InvalidOption, match="api-key-file"):
        ServeConfig(target="x", host=host)
    ServeConfig(target="x", host=host, api_key_file="keys.txt")


@pytest.mark.parametrize(
    "options",
    [
        {"port": 0},
        {"batch_size": 0},
        {"max_queued": -1},
        {"draft_actors": 1},
        {"draft_tokens": 4},
        {"draft_width": 1},
        {"verify": "guess"},
        {"model_name": ""},
        {"prot": 8000},
    ],
)
def test_options_that_cannot_be_used_are_refused(options) -> None:
    with pytest.raises(InvalidOption):
        from_mapping(ServeConfig, {"target": "x", **options})


def test_an_empty_key_opens_nothing(tmp_path) -> None:
    empty = hashlib.sha256(b"").hexdigest()
    file = tmp_path / "keys.txt"
    file.write_text(f"{KEYS[0]}\n{empty}  -\n")
    with pytest.raises(InvalidOption, match="of an empty KEY"):
        read_key_hashes(str(file))
    assert status({"authorization": "Bearer "}, (empty,)) == 401


def test_a_file_of_keys_is_read_before_anything_starts(tmp_path) -> None:
    config = ServeConfig(target=TARGET, host="0.0.0.0", api_key_file=str(tmp_path / "keys.txt"))
    with pytest.raises(InvalidOption, match=r"api_key_file='.*keys.txt' .* cannot be read"):
        check([config])


def test_an_application_listens_for_all_with_keys_only(tmp_path) -> None:
    with pytest.raises(InvalidOption, match="an address of this machine alone"):
        build({"target": TARGET})
    open_to_all = {"http_options": {"host": "0.0.0.0"}, "applications": [{"args": {"host": "::1"}}]}
    for given, problems in ((open_to_all, 1), (open_to_all | {"http_options": {"host": "::1"}}, 0)):
        assert len(list(_open(SimpleNamespace(data=given)))) == problems  # type: ignore[arg-type]
