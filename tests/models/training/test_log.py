"""A training's figures: lines continue where the state stands; events can be read back."""

from models.training.log import Log, read_lines


def write(tmp_path, steps, *, done):
    with Log(tmp_path, done=done) as log:
        for step in steps:
            log.add({"step": step, "loss": 1 / step})


def test_steps_after_the_state_are_written_again(tmp_path):
    write(tmp_path, range(1, 6), done=0)
    write(tmp_path, range(4, 8), done=3)
    lines = read_lines(tmp_path / "metrics.jsonl")
    assert [line["step"] for line in lines] == list(range(1, 8))
    assert lines[4] == {"step": 5, "loss": 0.2}


def test_a_torn_line_is_not_read(tmp_path):
    write(tmp_path, [1, 2], done=0)
    with (tmp_path / "metrics.jsonl").open("a") as file:
        file.write('{"step": 3, "lo')
    assert [line["step"] for line in read_lines(tmp_path / "metrics.jsonl")] == [1, 2]
    assert read_lines(tmp_path / "nothing.jsonl") == []


def test_events_are_written(tmp_path):
    write(tmp_path, [1, 2], done=0)
    (file,) = (tmp_path / "events").glob("events.out.tfevents.*")
    assert b"loss" in file.read_bytes()
