"""Checkpoints on S3 are fetched once a node, verified, and used from the node's disk."""

import hashlib
import threading
from itertools import repeat
from pathlib import Path

import boto3
import pytest

from cluster.errors import StorageError
from cluster.storage import checkpoints, storage
from cluster.storage.checkpoints import Etag, fetched, present
from tests.flaky_s3 import FlakyS3

FILES = {
    "config.json": b'{"model_type": "llama"}',
    "model.safetensors": bytes(range(256)) * 4000,
    "tokenizer/config.json": b"{}",
}


@pytest.fixture
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(checkpoints.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def model(s3_bucket: str) -> str:
    for name, data in {**FILES, "training.bin": b"a pickle"}.items():
        storage.publish(f"{s3_bucket}/models/m/{name}", data)
    return f"{s3_bucket}/models/m"


def contents(folder: str) -> dict[str, bytes]:
    files = [path for path in Path(folder).rglob("*") if path.is_file()]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def test_a_checkpoint_arrives_without_pickles(model, cache):
    folder = fetched(f"{model}/")
    assert contents(folder) == FILES
    assert folder.startswith(f"{cache}/paceline-s3/{model.removeprefix('s3://')}@")


def test_it_is_fetched_once(model, cache, monkeypatch):
    first = fetched(model)
    monkeypatch.setattr(checkpoints, "_download", lambda *_: pytest.fail("fetched again"))
    assert fetched(model) == first == present(first)


def test_another_node_fetches_the_same_version(model, cache, monkeypatch, tmp_path):
    first = fetched(model)
    monkeypatch.setenv(checkpoints.CACHE, str(tmp_path / "other"))
    second = present(first)
    assert second.startswith(str(tmp_path / "other"))
    assert contents(second) == FILES
    storage.publish(f"{model}/config.json", b'{"model_type": "gpt2"}')
    monkeypatch.setenv(checkpoints.CACHE, str(tmp_path / "third"))
    with pytest.raises(StorageError, match="it has changed since this run began"):
        present(first)
    assert fetched(model) != first


def test_local_paths_stay():
    assert present("lookup") == fetched("lookup") == "lookup"


def test_what_is_no_checkpoint_is_refused(s3_bucket, cache):
    with pytest.raises(StorageError, match="holds no files of a checkpoint"):
        fetched(f"{s3_bucket}/nothing")


def test_a_name_that_leads_out_of_the_folder_is_refused(s3_bucket, cache, tmp_path):
    client = boto3.client("s3")
    client.put_object(Bucket=s3_bucket[5:], Key="m/../../../evil.json", Body=b"{}")
    with pytest.raises(StorageError, match="leads out of the folder"):
        fetched(f"{s3_bucket}/m")
    assert not list(tmp_path.rglob("evil.json"))


def test_damage_is_noticed(model, cache, monkeypatch):
    monkeypatch.setattr(storage, "open_input", lambda _: (cache.parent / "bad").open("rb"))
    (cache.parent / "bad").write_bytes(b"x" * len(FILES["config.json"]))
    with pytest.raises(StorageError, match=r"config.json: 23 bytes, digest \w+ arrived of 23, "):
        fetched(model)


@pytest.mark.parametrize("sizes", [(5 << 20, 100), (5 << 20, (5 << 20) + 7, 100)])
def test_objects_uploaded_in_parts_are_verified(s3_bucket, cache, sizes):
    client, key = boto3.client("s3"), "m/model.safetensors"
    upload = client.create_multipart_upload(Bucket=s3_bucket[5:], Key=key)["UploadId"]
    bodies = [bytes([65 + n]) * size for n, size in enumerate(sizes)]
    where = {"Bucket": s3_bucket[5:], "Key": key, "UploadId": upload}
    parts = [
        {"PartNumber": n, "ETag": client.upload_part(PartNumber=n, Body=body, **where)["ETag"]}
        for n, body in enumerate(bodies, start=1)
    ]
    client.complete_multipart_upload(MultipartUpload={"Parts": parts}, **where)
    assert contents(fetched(f"{s3_bucket}/m")) == {"model.safetensors": b"".join(bodies)}


@pytest.mark.parametrize("part_bytes", [None, 4, 5, 100])
def test_etags_do_not_depend_on_how_bytes_come(part_bytes):
    data = b"0123456789"
    values = set()
    for step in (1, 3, 10):
        etag = Etag(None if part_bytes is None else repeat(part_bytes))
        for at in range(0, len(data), step):
            etag.add(data[at : at + step])
        values.add(etag.value)
    if part_bytes is None:
        assert values == {hashlib.md5(data).hexdigest()}
    else:
        parts = [data[at : at + part_bytes] for at in range(0, len(data), part_bytes)]
        whole = hashlib.md5(b"".join(hashlib.md5(part).digest() for part in parts))
        assert values == {f"{whole.hexdigest()}-{len(parts)}"}


def test_several_processes_fetch_once(model, cache, monkeypatch):
    counts: list[str] = []
    download = checkpoints._download

    def counted(file: checkpoints.RemoteFile, target: Path) -> None:
        counts.append(file.name)
        download(file, target)

    monkeypatch.setattr(checkpoints, "_download", counted)
    threads = [threading.Thread(target=fetched, args=(model,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(counts) == sorted(FILES)


def test_a_flaky_service_is_asked_again(model, cache, s3_endpoint, monkeypatch):
    monkeypatch.setattr("cluster.storage.patience.FIRST_DELAY_S", 0.01)
    monkeypatch.setattr("cluster.storage.s3.ANSWER_S", 0.5)
    flaky = FlakyS3(s3_endpoint, rate=0.3, seed=1)
    monkeypatch.setenv("AWS_ENDPOINT_URL", flaky.url)
    assert contents(fetched(model)) == FILES
    assert flaky.count > 3
    flaky.stop()
