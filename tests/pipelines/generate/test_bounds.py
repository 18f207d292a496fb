"""What is wrong for all rows: refused before the output exists, without Ray."""

import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from models.registry import FLOW, MAPS
from pipelines import cli
from pipelines.generate.prepare import prepare
from tests.pipelines.generate.image_jobs import NUM_TOKENS, save_raster
from tests.pipelines.generate.inprocess import make_config, write_prompts


@pytest.fixture(autouse=True)
def no_ray(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray must not be started."""
    import ray

    def refuse(*args: Any, **kwargs: Any) -> None:
        raise AssertionError("Ray is started")

    monkeypatch.setattr(ray, "init", refuse)


def refused(capsys: pytest.CaptureFixture[str], out: Path, *options: str) -> str:
    """What the command says, in one line."""
    assert cli.main(["generate", "--output", str(out), "--no-progress", *options]) == 2
    told = capsys.readouterr().err
    assert told.count("\n") == 1
    assert not out.exists()
    return told


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--drafter", "lokup"], "drafter='lokup' is not accepted: .*did you mean 'lookup'"),
        (["--drafter", "/no/such"], "drafter='/no/such' is not accepted: .*no such folder"),
        (["--logit-bias", "257=1"], "token 257 is not in the target's vocabulary of 0 to 256"),
        (["--stop-token-ids", "3", "-1"], r"stop_token_ids=\(3, -1\) .*token -1 is not in"),
        (["--max-tokens", "1000000000"], "max_tokens=1000000000 .*at most 255: the target's cont"),
        (["--max-tokens", "40", "--max-length", "40"], "max_tokens=40 .*at most 39: max_length is"),
        (["--max-length", "257"], "max_length=257 .*2 to the target's context of 256"),
        (["--prompt-field", "id"], "prompt_field='id': .*holds int64, not text; .*: prompt, kind"),
        (["--prompt-field", "text"], "no such column; it has id, prompt"),
    ],
)
def test_wrong_for_all_rows(
    checkpoints: dict[str, str],
    prompts: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    options: list[str],
    told: str,
) -> None:
    places = ["--target", checkpoints["target"], "--input", prompts]

    assert re.search(told, refused(capsys, tmp_path / "out", *places, *options))


@pytest.mark.parametrize("rule", ["rejection", "block"])
def test_a_map_and_a_rule_with_numbers_of_its_own(
    checkpoints: dict[str, str],
    prompts: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    rule: str,
) -> None:
    monkeypatch.setitem(MAPS, "quantile", "tests.models.toys:quantile_map")
    options = ["--noise", "quantile", "--drafter", "lookup", "--verify", rule]
    places = ["--target", checkpoints["target"], "--input", prompts]
    told = refused(capsys, tmp_path / "out", *places, *options)
    assert f"noise='quantile' is not accepted: gumbel with {rule}: other maps need match" in told


def test_the_flow_map_needs_a_codebook(
    checkpoints: dict[str, str], prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    places = ["--target", checkpoints["target"], "--input", prompts, "--noise", FLOW]
    told = refused(capsys, tmp_path / "out", *places)
    assert f"noise={FLOW!r} is not accepted: gumbel with this target: {FLOW} needs a codeb" in told


def test_a_draft_that_does_not_fit(
    checkpoints: dict[str, str], prompts: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    draft = tmp_path / "draft"
    shutil.copytree(checkpoints["draft"], draft)
    places = ["--target", checkpoints["target"], "--input", prompts, "--drafter", str(draft)]
    config = json.loads((draft / "config.json").read_text())
    for change, told in (
        ({"max_position_embeddings": 64}, "has a context of 64 tokens; 256 are needed"),
        ({"vocab_size": 300}, "has a vocabulary of 300 tokens, target"),
    ):
        (draft / "config.json").write_text(json.dumps(config | change))
        assert told in refused(capsys, tmp_path / "out", *places)
    (draft / "config.json").unlink()
    assert "config.json is missing" in refused(capsys, tmp_path / "out", *places)


def test_images(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = save_raster(tmp_path / "target")
    prompts = write_prompts(tmp_path / "in" / "prompts.jsonl", 3)
    prompts.write_text('{"label": [1]}\n')
    places = ["--target", str(folder), "--input", str(prompts), "--prompt-field", "label"]
    assert "not classes" in refused(capsys, tmp_path / "out", *places)
    prompts.write_text('{"label": 1}\n')
    told = refused(capsys, tmp_path / "out", *places, "--logit-bias", "99999=1")
    assert "token 99999 is not in the target's vocabulary" in told
    told = refused(capsys, tmp_path / "out", *places, "--max-length", str(NUM_TOKENS))
    assert f"max_length={NUM_TOKENS} is not accepted" in told


@pytest.mark.parametrize(
    ("options", "warned"),
    [
        ({"threads": 999}, True),
        ({"threads": 1}, False),
        ({"threads": 999, "address": "host:6379"}, False),
    ],
)
def test_more_threads_than_cpus_are_told(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, options: dict[str, Any], warned: bool
) -> None:
    source = write_prompts(tmp_path / "in" / "prompts.jsonl", 3)
    prepare(make_config(tmp_path, input=str(source), output=str(tmp_path / "out"), **options))
    assert ("threads=999, and this machine has" in caplog.text) == warned
