"""`--renew`: new texts in the middle of a training, without Ray."""

import json
from types import SimpleNamespace

import pytest

from models.errors import InvalidOption
from models.training.checkpoint import write_state
from pipelines.distill import stages
from pipelines.distill.drafters import texts
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.drafters.texts import make_rows, renew, rows_of, write_split, written
from pipelines.distill.folder import RunFolder
from pipelines.distill.stages import Renewal
from pipelines.options import from_mapping
from tests.pipelines.generate.inprocess import run_job

STEPS = 10


def config_of(**values):
    given = {"target": "t", "output": "o", "prompts": "p", "train_steps": STEPS, "train_batch": 4}
    return from_mapping(DrafterOptions, {**given, **values})


def test_records_are_new_after_so_many_passes():
    assert config_of().renewed_at(8) == ()
    assert config_of(renew=1).renewed_at(8) == (2, 4, 6, 8)
    assert config_of(renew=2).renewed_at(7) == (4, 8)
    assert config_of(renew=5).renewed_at(8) == ()  # the training ends before


def test_given_rows_are_not_renewed():
    with pytest.raises(InvalidOption, match="renew=1 is not accepted: 1 or more, without data"):
        config_of(renew=1, prompts=None, data="d")
    with pytest.raises(InvalidOption, match="renew=0 is not accepted"):
        config_of(renew=0)


@pytest.fixture
def in_process(monkeypatch):
    """Rows are made in this process."""

    def generate(config):
        run_job(config)
        return SimpleNamespace(rows=23, rows_failed=0, seconds=1.0)

    monkeypatch.setattr(texts, "generate", generate)


def test_new_texts_have_the_prompts_that_are_not_held_out(
    tmp_path, checkpoints, prompts, in_process
):
    given = {"target": checkpoints["target"], "prompts": prompts, "length": 60, "exam_prompts": 3}
    config = config_of(**given, renew=1, records=23)
    make_rows(config, tmp_path / "records")
    first = write_split(config, rows_of(config, tmp_path / "records"), tmp_path / "texts")
    first["files"] = [str(tmp_path / "texts" / "texts.parquet")]
    told = renew(config, 2, tmp_path, first)
    assert told["first"] == first["files"]
    assert renew(config, 2, tmp_path, first)["digest"] == told["digest"]
    assert (told["texts"], told["exam"]) == (first["texts"], 3)
    before, held = (written(tmp_path / "texts" / f"{n}.parquet") for n in ("texts", "held-out"))
    after = written(tmp_path / "renewed" / "2" / "texts.parquet")
    assert told["files"] == [str(tmp_path / "renewed" / "2" / "texts.parquet")]
    assert after[-3:] == before[-3:]
    heads = [{text.tokens[: text.num_prompt] for text in part[:-3]} for part in (before, after)]
    assert heads[0] == heads[1]
    assert not heads[1] & {text.tokens[: text.num_prompt] for text in [*before[-3:], *held]}
    same = {text.tokens for text in before[:-3]} & {text.tokens for text in after[:-3]}
    assert len(same) < 3
    third = renew(config, 3, tmp_path, first)
    assert third["seed"] != told["seed"] != config.seed
    assert third["digest"] != told["digest"]


class Stopped(Exception):
    """The driver ends here."""


def train_in(path, monkeypatch, stop_at=None):
    """Run the stage; what happened, in turn: records made, steps trained up to on which records."""
    happened = []

    def made(name):
        happened.append(f"make {name}")
        return {"digest": name, "name": name}

    def until(run, data, digest, end, tell):
        assert digest == "first"
        if stop_at == end:
            write_state(path / "train", end - 1, {}, {})
            raise Stopped
        happened.append(f"train on {data['name']} to {end}")
        write_state(path / "train", end, {}, {})
        return {"steps": end, "loss": 0.5, "seconds": 2.0}

    monkeypatch.setattr(stages, "_train_until", until)
    renewals = [
        Renewal(step=step, records=lambda name=name: made(name))
        for step, name in ((4, "second"), (8, "third"))
    ]
    run = SimpleNamespace(
        path=path, config=SimpleNamespace(train_steps=STEPS), renewals=lambda data: renewals
    )
    folder = RunFolder(path, tell=lambda text: None)
    told = stages._train(run, folder, {"digest": "first", "name": "first"}, lambda text: None)
    return happened, told


def test_the_training_goes_on_with_each_generation(tmp_path, monkeypatch):
    happened, told = train_in(tmp_path, monkeypatch)
    assert happened == [
        "train on first to 4",
        "make second",
        "train on second to 8",
        "make third",
        "train on third to 10",
    ]
    assert told == {"steps": 10, "loss": 0.5, "seconds": 6.0}
    found = {path.stem: json.loads(path.read_text()) for path in (tmp_path / "_stages").iterdir()}
    assert {name: each["told"]["digest"] for name, each in found.items()} == {
        "records-2": "second",
        "records-3": "third",
    }
    assert list(RunFolder(tmp_path, tell=print).seconds()) == ["records-2", "records-3"]


def test_an_interrupted_one_goes_on_with_its_generation(tmp_path, monkeypatch):
    with pytest.raises(Stopped):
        train_in(tmp_path, monkeypatch, stop_at=8)
    happened, told = train_in(tmp_path, monkeypatch)
    assert happened == ["train on second to 8", "make third", "train on third to 10"]
    assert told["steps"] == 10
