"""A run on S3: fetched whole, copied in an order that never shows half of it, by one writer."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from cluster.errors import LeaseLost, StorageError
from cluster.storage import mirror as module
from cluster.storage import storage
from cluster.storage.mirror import Mirror


def held() -> None:
    """The lease is held."""


def mirror(folder: Path, url: str, **options: object) -> Mirror:
    fixed = {"commits": lambda name: name.endswith("done.json"), "check": held}
    return Mirror(folder, url, **{**fixed, "skipped": ("lease", "a/notes", "b/*/lease"), **options})


def write(folder: Path, name: str, text: str) -> None:
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_text(text)


def names(url: str) -> list[str]:
    return [info.name for info in storage.list_files(url)]


@pytest.fixture
def run(s3_bucket: str) -> str:
    return f"{s3_bucket}/run"


def test_a_folder_arrives_and_is_fetched(tmp_path: Path, run: str) -> None:
    first = mirror(tmp_path / "first", run)
    first.pull()
    for name in (
        "a/x.bin",
        "a/done.json",
        "a/half.new/x",
        "a/.hidden",
        "a/notes/n",
        "lease/l",
        "b/2/lease/l",
    ):
        write(tmp_path / "first", name, name)
    first.push()
    assert names(run) == ["a/done.json", "a/x.bin"]
    write(tmp_path / "second", "stale", "of another run")
    mirror(tmp_path / "second", run).pull()
    found = sorted(p for p in (tmp_path / "second").rglob("*") if p.is_file())
    assert [p.relative_to(tmp_path / "second").as_posix() for p in found] == [
        "a/done.json",
        "a/x.bin",
    ]
    assert [p.read_text() for p in found] == ["a/done.json", "a/x.bin"]


def test_only_changes_are_copied_and_commits_come_last(
    tmp_path: Path, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[str] = []

    def noting(what: str) -> None:
        inner = getattr(storage, what)

        def noted(*arguments: object) -> None:
            calls.append(f"{what} {str(arguments[-1]).removeprefix(run + '/')}")
            inner(*arguments)

        monkeypatch.setattr(storage, what, noted)

    noting("upload")
    noting("remove")
    made = mirror(tmp_path, run)
    for name in ("1/done.json", "1/x", "2/done.json", "2/x"):
        write(tmp_path, name, name)
    made.push()
    assert calls == ["upload 1/x", "upload 2/x", "upload 1/done.json", "upload 2/done.json"]
    calls.clear()
    (tmp_path / "1" / "x").unlink()
    (tmp_path / "1" / "done.json").unlink()
    write(tmp_path, "2/x", "longer than before")
    made.push()
    assert calls == ["remove 1/done.json", "remove 1/x", "upload 2/x"]
    assert names(run) == ["2/done.json", "2/x"]


def test_a_file_is_created_once(tmp_path: Path, run: str) -> None:
    mirror(tmp_path, run).create("stage.json", b"1")
    with pytest.raises(StorageError, match="another run has written it"):
        mirror(tmp_path, run).create("stage.json", b"2")


def test_nothing_is_written_without_the_lease(tmp_path: Path, run: str) -> None:
    def lost() -> None:
        raise LeaseLost("another run took it over")

    write(tmp_path, "x", "x")
    made = mirror(tmp_path, run, check=lost)
    for act in (made.push, lambda: made.create("y", b"")):
        with pytest.raises(LeaseLost):
            act()
    assert names(run) == []


def test_names_that_lead_out_are_not_fetched(
    tmp_path: Path, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    storage.publish(f"{run}/a/b", b"x")
    listed = storage.list_files(run)
    for name in ("a/../../../evil", "/evil"):
        found = [replace(info, name=name) for info in listed]
        monkeypatch.setattr(storage, "list_files", lambda url, found=found: found)
        with pytest.raises(StorageError, match="leads out of the folder"):
            mirror(tmp_path / "run", run).pull()


def test_changes_are_copied_while_work_goes_on(
    tmp_path: Path, run: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "EVERY_S", 0.01)
    made, copied = mirror(tmp_path, run), threading.Event()
    push = made.push

    def noted() -> None:
        push()
        copied.set()

    monkeypatch.setattr(made, "push", noted)
    write(tmp_path, "x", "x")
    with made.following():
        assert copied.wait(timeout=30)
    assert names(run) == ["x"]
