import os
import pickle
import threading
from pathlib import Path

import pytest

from cluster.errors import StorageError
from cluster.storage import disk, storage


@pytest.fixture(params=["local", "file", "s3"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "s3":
        bucket: str = request.getfixturevalue("s3_bucket")
        return storage.normalize(bucket + "/some/folder/")
    prefix = "file://" if request.param == "file" else ""
    return storage.normalize(f"{prefix}{tmp_path}/some/folder")


def test_a_published_file_is_there_whole(folder: str) -> None:
    url = storage.join(folder, "a", "b.txt")
    assert storage.file_size(url) is None
    storage.publish(url, b"first")
    storage.publish(url, b"second one")
    assert storage.read_bytes(url) == b"second one"
    assert storage.file_size(url) == 10
    assert storage.file_size(folder) is None
    with storage.open_input(url) as file:
        file.seek(7)
        assert file.read() == b"one"


def test_create_never_replaces(folder: str) -> None:
    url = storage.join(folder, "entry.json")
    assert storage.create(url, b"mine")
    assert not storage.create(url, b"theirs")
    assert storage.read_bytes(url) == b"mine"


def test_of_many_creators_one_wins(folder: str) -> None:
    url, won = storage.join(folder, "entry.json"), []

    def race(name: bytes) -> None:
        if storage.create(url, name):
            won.append(name)

    threads = [threading.Thread(target=race, args=(bytes([65 + i]) * 100,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert won == [storage.read_bytes(url)]


def test_files_are_listed_in_the_order_of_their_names(folder: str) -> None:
    assert storage.list_files(folder) == []
    for name in ("b.txt", "a/z.txt", "c.txt"):
        storage.publish(storage.join(folder, name), name.encode())
    found = storage.list_files(folder)
    assert [info.name for info in found] == ["a/z.txt", "b.txt", "c.txt"]
    assert [info.size_bytes for info in found] == [7, 5, 5]
    assert storage.read_bytes(found[0].url) == b"a/z.txt"
    storage.remove(found[0].url)
    storage.remove(found[0].url)
    assert [info.name for info in storage.list_files(folder)] == ["b.txt", "c.txt"]


def test_what_is_missing_is_named(folder: str) -> None:
    url = storage.join(folder, "nothing.txt")
    with pytest.raises(StorageError, match=r"cannot read .*nothing\.txt: it does not exist"):
        storage.read_bytes(url)


def test_a_missing_bucket_is_named(s3_bucket: str) -> None:
    with pytest.raises(StorageError, match="cannot write s3://no-such-bucket-here/x"):
        storage.publish("s3://no-such-bucket-here/x", b"")


def test_a_folder_in_the_way_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(StorageError, match=r"cannot write .*file/x"):
        storage.publish(str(tmp_path / "file" / "x"), b"")


@pytest.mark.parametrize("name", ["x", "new/folder/x"])
def test_what_could_be_written_is_told_without_writing(tmp_path: Path, name: str) -> None:
    storage.check_writable(str(tmp_path / name))
    assert not list(tmp_path.iterdir())
    (tmp_path / "file").write_text("not a folder")
    for folder in (tmp_path / "file", Path("/proc")):  # where not even root may make a file
        with pytest.raises(StorageError, match=f"cannot write {folder / name}: "):
            storage.check_writable(str(folder / name))


def test_killed_writers_leave_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / f".part.parquet.0123{disk.TEMPORARY}").write_bytes(b"half")
    storage.publish(str(tmp_path / "part.parquet"), b"whole")
    storage.remove_leftovers(str(tmp_path))
    assert os.listdir(tmp_path) == ["part.parquet"]  # noqa: PTH208


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("gs://bucket/x", "gs:// is not supported; give a local path, file:///folder or s3://"),
        ("s3://", "no bucket is named"),
        ("", "it is empty"),
    ],
)
def test_urls_that_cannot_work_are_refused(url: str, message: str) -> None:
    with pytest.raises(StorageError, match=message):
        storage.normalize(url)


def test_urls_have_one_spelling(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    assert storage.normalize("x/y") == str(tmp_path / "x/y")
    assert storage.normalize("file:///x/y") == "/x/y"
    assert storage.normalize("s3://bucket/key/") == "s3://bucket/key"


def test_errors_survive_a_process_boundary() -> None:
    error = pickle.loads(pickle.dumps(StorageError("read", "s3://b/x", "gone")))
    assert str(error) == "cannot read s3://b/x: gone"
    assert error.url == "s3://b/x"
