"""A run's folder: stages are done once, another run and foreign files are refused."""

import pytest

from models.errors import InvalidOption
from pipelines.distill.folder import RunFolder, open_path
from pipelines.errors import OutputRefused

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
    with pytest.raises(OutputRefused, match="records was 5, is 6"):
        folder.describe({**ABOUT, "decides": {"records": 6}})
    folder.clear()
    folder.describe({**ABOUT, "decides": {"records": 6}})


def test_clearing_removes_stages_and_their_files(tmp_path):
    folder = RunFolder(tmp_path, tell=lambda text: None)
    folder.describe(ABOUT)
    folder.stage("records", dict)
    (tmp_path / "records").mkdir()
    (tmp_path / "mine.txt").write_text("stays")
    folder.clear()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]


def test_foreign_files_and_other_storage_are_refused(tmp_path):
    (tmp_path / "mine.txt").write_text("x")
    with pytest.raises(OutputRefused, match=r"already contains 'mine\.txt'"):
        open_path(str(tmp_path))
    with pytest.raises(InvalidOption, match="a folder of a file system"):
        open_path("s3://bucket/run")
    assert open_path(str(tmp_path / "new")) == tmp_path / "new"
