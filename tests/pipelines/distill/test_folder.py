"""A run's folder: stages are done once, another run and foreign files are refused."""

from types import SimpleNamespace

import pytest

from cluster.storage import storage
from models.training.checkpoint import states
from pipelines.distill.folder import RunFolder, mirror_of, open_path
from pipelines.errors import OutputRefused
from pipelines.output.manifest import claimed

ABOUT = {"decides": {"records": 5}, "config": {}, "versions": {}}


def test_a_stage_is_done_once(tmp_path):
    told, done = [], []

    def work():
        done.append(1)
        return {"rows": 3}

    for _ in range(2):
        folder = RunFolder(tmp_path, tell=told.append)
        assert folder.stage("records", work) == {"rows": 3}
    assert (len(done), told) == (1, ["records ...", "records: done before"])


def test_a_stage_that_fails_is_not_committed(tmp_path):
    folder = RunFolder(tmp_path, tell=lambda text: None)
    with pytest.raises(ZeroDivisionError):
        folder.stage("train", lambda: {"x": 1 / 0})
    assert folder.stage("train", lambda: {"x": 1}) == {"x": 1}


def test_another_run_is_refused(tmp_path):
    folder = RunFolder(tmp_path, tell=lambda text: None)
    folder.describe(ABOUT)
    folder.describe({**ABOUT, "config": {"progress": False}})
    folder.stage("records", dict)
    with pytest.raises(OutputRefused, match="records was 5, is 6"):
        folder.describe({**ABOUT, "decides": {"records": 6}})
    folder.clear()
    folder.describe({**ABOUT, "decides": {"records": 6}})


def test_a_run_that_has_made_nothing_is_in_nobodys_way(tmp_path):
    folder = RunFolder(tmp_path, tell=lambda text: None)
    folder.describe(ABOUT)
    folder.describe({**ABOUT, "decides": {"records": 6}})
    write(folder, "records/_manifest/job.json", "{}")
    folder.describe({**ABOUT, "decides": {"records": 7}})
    write(folder, "records/_manifest/00000.json", "{}")  # rows of a stage that is not done yet
    with pytest.raises(OutputRefused, match="records was 7, is 8"):
        folder.describe({**ABOUT, "decides": {"records": 8}})


def test_another_evaluation_keeps_records_and_training(tmp_path):
    told = []
    folder = RunFolder(tmp_path, tell=told.append)
    about = {**ABOUT, "decides": {"records": 5, "beside": ["a"]}, "judging": ["beside"]}
    folder.describe(about)
    for name in ("records", "records-2", "train", "evaluate", "export", "report"):
        folder.stage(name, dict)
    kept = {"records/r", "train/t", "export/e", "held-out/h"}
    for name in (*kept, "samples/s", "evaluation/e", "report.html"):
        write(folder, name, "x")
    folder.describe({**about, "decides": {"records": 5, "beside": ["b"]}})
    assert told[-1] == "another evaluation: beside was ['a'], is ['b']"
    assert list(folder.seconds()) == ["records", "records-2", "train"]
    files = {p.relative_to(tmp_path).as_posix() for p in tmp_path.rglob("*") if p.is_file()}
    assert {name for name in files if not name.startswith("_")} == {*kept, "run.json"}
    both = {**about, "decides": {"records": 6, "beside": ["a"]}}
    with pytest.raises(OutputRefused, match="another run: records was 5, is 6; beside was"):
        folder.describe(both)


def test_another_evaluation_of_a_run_on_s3(tmp_path, s3_bucket, monkeypatch):
    output = f"{s3_bucket}/run"
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path))
    about = {**ABOUT, "decides": {"records": 5, "steps": "1"}, "judging": ["steps"]}
    with claimed(output) as ticket:
        folder = opened(output, ticket)
        folder.describe(about)
        for name in ("records", "train", "evaluate"):
            folder.stage(name, lambda: {"file": write(folder, "evaluation/e", "1")})
    with claimed(output) as ticket:
        folder = opened(output, ticket)
        folder.describe({**about, "decides": {"records": 5, "steps": "2"}})
        names = {info.name for info in storage.list_files(output)}
        assert names & {"_stages/train.json", "_stages/evaluate.json", "evaluation/e"} == {
            "_stages/train.json"
        }
        assert folder.stage("evaluate", lambda: {"steps": 2}) == {"steps": 2}


def test_clearing_removes_stages_and_their_files(tmp_path):
    folder = RunFolder(tmp_path, tell=lambda text: None)
    folder.describe(ABOUT)
    folder.stage("records", dict)
    (tmp_path / "records").mkdir()
    (tmp_path / "mine.txt").write_text("stays")
    folder.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_foreign_files_are_refused(tmp_path, s3_bucket):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OutputRefused, match=r"already contains 'mine\.txt'"):
        open_path(str(tmp_path))
    storage.publish(f"{s3_bucket}/run/mine/a.txt", b"x")
    with pytest.raises(OutputRefused, match="already contains 'mine'"):
        open_path(f"{s3_bucket}/run")
    assert open_path(str(tmp_path / "new")) == tmp_path / "new"


def opened(output, ticket):
    """A run's folder as a command opens it, and its place on this machine."""
    mirror = mirror_of(output, ticket)
    mirror.pull()
    return RunFolder(open_path(output), tell=lambda text: None, mirror=mirror)


def write(folder, name, text):
    (folder.path / name).parent.mkdir(parents=True, exist_ok=True)
    (folder.path / name).write_text(text)
    return str(folder.path / name)


def test_no_lease_of_a_dead_run_is_copied(tmp_path, s3_bucket, monkeypatch):
    output = f"{s3_bucket}/run"
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path))
    with claimed(output) as ticket:
        folder = opened(output, ticket)
        for name in ("_manifest/lease.json", "_manifest/job.json", "part-0.parquet"):
            write(folder, f"records/{name}", "x")
        write(folder, "train/ray/notes", "x")
        folder.describe(ABOUT)
        names = {info.name for info in storage.list_files(output)}
    rows = {"records/_manifest/job.json", "records/part-0.parquet"}
    assert names == {"run.json", "_manifest/lease.json", *rows}


def test_another_machine_goes_on_with_a_run_on_s3(tmp_path, s3_bucket, monkeypatch):
    """Stages are there with their files, under the names that they have on the other machine."""
    output = f"{s3_bucket}/run"
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path / "first"))
    with claimed(output) as ticket:
        folder = opened(output, ticket)
        folder.describe(ABOUT)
        told = folder.stage("records", lambda: {"files": [write(folder, "records/r", "rows")]})
        write(folder, "train/step-00000075/state.json", "{}")
        folder._mirror.push()  # as it does every 20 seconds
        with pytest.raises(ZeroDivisionError):
            folder.stage("train", lambda: {"x": write(folder, "train/t", "half") and 1 / 0})
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path / "second"))
    with claimed(output) as ticket:
        folder = opened(output, ticket)
        folder.describe(ABOUT)
        found = folder.stage("records", lambda: pytest.fail("it was committed"))
        assert found["files"] == [str(folder.path / "records" / "r")] != told["files"]
        assert (folder.path / "records" / "r").read_text() == "rows"
        assert [place.name for place in states(folder.path / "train")] == ["step-00000075"]
        assert not (folder.path / "train" / "t").exists()
        assert list(folder.seconds()) == ["records"]
        folder.clear()
    assert not storage.list_files(output)


def test_seconds_of_stages_within_another_count_once(tmp_path, monkeypatch):
    now = [0.0]
    monkeypatch.setattr("pipelines.distill.folder.time", SimpleNamespace(monotonic=lambda: now[0]))
    folder = RunFolder(tmp_path, tell=lambda text: None)

    def takes(seconds):
        now[0] += seconds
        return {}

    def train():
        for number in (2, 3):
            takes(10.0)
            folder.stage(f"records-{number}", lambda: takes(4.0))
        return takes(1.0)

    folder.stage("records", lambda: takes(5.0))
    folder.stage("train", train)
    folder.stage("evaluate", lambda: takes(2.0))
    assert folder.seconds() == {
        "records": 5.0,
        "records-2": 4.0,
        "records-3": 4.0,
        "train": 21.0,
        "evaluate": 2.0,
    }
