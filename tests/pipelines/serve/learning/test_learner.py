"""Rounds, with a trainer that only says what it found: what a server keeps and goes on from."""

from pathlib import Path
from typing import Any

import pytest

from actors.messages import Learning, Row
from models.errors import InvalidOption
from pipelines.serve.learning.decision import Decision
from pipelines.serve.learning.learner import Learner, Pupil
from pipelines.serve.learning.lesson import Course, read_lesson
from pipelines.serve.learning.verdict import DRAFTER, write_verdict

PUPIL = Pupil(target="/t", target_digest="T", drafter="/first", drafter_digest="D", depth=4)
COURSE = Course(every=3)


class Told:
    """A trainer whose verdict is set by the test; None: it still trains."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.found, self.stopped = folder, None, False
        self.lesson = read_lesson(folder)

    def verdict(self) -> Any:
        if isinstance(self.found, Exception):
            raise self.found
        return self.found

    def stop(self) -> None:
        self.stopped = True

    def finds(self, present: float, new: float) -> None:
        self.found = Decision(present=present, new=new, error=0.01, held_out=9)
        (self.folder / DRAFTER).mkdir()
        (self.folder / "train").mkdir()
        (self.folder / "texts.parquet").write_text("what clients sent")
        write_verdict(self.folder, self.found)


class Server:
    """A served model that records what it is told."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.drafters: list[str] = []
        self.shown = Learning()
        self.refuses = False

    def answers(self, count: int) -> None:
        self.rows += [Row(prompt=(1,), tokens=(2,), seed=3, temperature=1.0)] * count

    def take_rows(self) -> list[Row]:
        rows, self.rows = self.rows, []
        return rows

    def use_drafter(self, folder: str) -> None:
        if self.refuses:
            raise RuntimeError("the pool failed")
        self.drafters.append(folder)

    def show(self, learning: Learning) -> None:
        self.shown = learning


def opened(folder: Path, pupil: Pupil = PUPIL) -> Learner:
    start: Any = Told
    return Learner(folder, pupil, COURSE, start=start)


@pytest.fixture
def server() -> Server:
    return Server()


def begun(learner: Learner, server: Server) -> Any:
    """The trainer of a new round."""
    server.answers(COURSE.every)
    learner.look(server)
    assert learner.trainer is not None
    return learner.trainer


def test_a_round_begins_with_enough_rows_and_a_better_drafter_is_used(
    tmp_path: Path, server: Server
) -> None:
    learner = opened(tmp_path)
    server.answers(2)
    learner.look(server)
    assert learner.trainer is None
    server.answers(1)
    learner.look(server)
    trainer: Any = learner.trainer
    assert (trainer.lesson.present, trainer.lesson.start) == ("/first", "/first")
    learner.look(server)
    assert server.drafters == []
    trainer.finds(2.0, 2.5)
    learner.look(server)
    assert server.drafters == [learner.drafter] == [str(trainer.folder / DRAFTER)]
    assert [part.name for part in trainer.folder.iterdir()] == [DRAFTER]  # no texts of clients
    assert (learner.folder.stat().st_mode & 0o777) == 0o700
    assert (server.shown.rows, server.shown.better, server.shown.new_length) == (3, 1, 2.5)
    learner.close()
    again = opened(tmp_path)
    assert again.drafter == str(trainer.folder / DRAFTER)


def test_the_drafter_stays_unless_it_is_better_and_small_gains_are_gone_on_from(
    tmp_path: Path, server: Server
) -> None:
    learner = opened(tmp_path)
    first = begun(learner, server)
    first.finds(2.0, 2.01)
    learner.look(server)
    second = begun(learner, server)
    assert second.lesson.present == "/first"
    assert second.lesson.start == str(first.folder / DRAFTER)
    second.finds(2.0, 1.9)
    learner.look(server)
    third = begun(learner, server)
    assert third.lesson.start == "/first"
    assert not first.folder.exists()
    assert not second.folder.exists()
    assert (server.drafters, server.shown.no_better) == ([], 2)


def test_a_round_that_was_interrupted_goes_on_at_the_next_start(
    tmp_path: Path, server: Server
) -> None:
    learner = opened(tmp_path)
    first = begun(learner, server)
    learner.close()
    assert first.stopped
    again = opened(tmp_path)
    again.look(server)
    assert again.trainer is not None
    assert again.trainer.folder == first.folder


def test_a_failed_round_or_change_leaves_the_server_as_it_was(
    tmp_path: Path, server: Server
) -> None:
    learner = opened(tmp_path)
    begun(learner, server).found = RuntimeError("no memory")
    learner.look(server)
    server.refuses = True
    begun(learner, server).finds(2.0, 3.0)
    learner.look(server)
    assert (learner.drafter, server.shown.failed, server.drafters) == ("/first", 2, [])
    assert learner.trainer is None
    server.refuses = False
    assert begun(learner, server).lesson.number == 3


def test_a_folder_is_of_one_server_target_and_drafter(tmp_path: Path) -> None:
    learner = opened(tmp_path / "a")
    with pytest.raises(InvalidOption, match="another server"):
        opened(tmp_path / "a")
    learner.close()
    other = Pupil(target="/t", target_digest="U", drafter="/first", drafter_digest="D", depth=4)
    with pytest.raises(InvalidOption, match="another target"):
        opened(tmp_path / "a", other)
    opened(tmp_path / "a").close()
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.txt").touch()
    with pytest.raises(InvalidOption, match=r"thesis\.txt"):
        opened(tmp_path / "b")
