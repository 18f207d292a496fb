"""Commands that write no rows take models from S3, and write there: as with local paths."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import save_file

from cluster.errors import StorageError
from cluster.storage import checkpoints as remote
from cluster.storage import storage
from models.drafting.distil.texts import Text, write_texts
from models.training.log import EXAMS, METRICS
from pipelines.bench.config import BenchConfig
from pipelines.bench.run import bench
from pipelines.cli import main
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.drafters.drafter import FIGURES, HELD_OUT, check
from pipelines.distill.drafters.judge import MADE, PLAIN
from pipelines.options import from_mapping
from pipelines.plan.config import PlanConfig
from pipelines.plan.run import plan
from tests.models.published import published_models as theirs
from tests.pipelines.evaluate.test_evaluate_teacher import text_rows
from tests.pipelines.generate.stamps import run, stamps, write_rows


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(remote.CACHE, str(tmp_path / "cache"))
    return tmp_path / "cache"


def uploaded(folder: str | Path, url: str) -> str:
    for file in storage.list_files(str(folder)):
        storage.upload(Path(file.url), storage.join(url, file.name))
    return url


@pytest.fixture
def models(checkpoints: dict[str, str], s3_bucket: str) -> dict[str, str]:
    """URLs of `target`, `draft`."""
    return {name: uploaded(folder, f"{s3_bucket}/{name}") for name, folder in checkpoints.items()}


SMALL = {"prompts": 2, "max_tokens": 6, "repeats": 1, "progress": False, "threads": 1}


def test_a_bench_names_its_models_by_their_urls(models, prompts, s3_bucket):
    storage.upload(Path(prompts), f"{s3_bucket}/in/prompts.jsonl")
    given: dict[str, Any] = {
        "target": models["target"],
        "drafter": ["", "lookup", models["draft"]],
        "input": f"{s3_bucket}/in",
        "output": f"{s3_bucket}/out",
        "draft_tokens": [2],
        "draft_width": [1],
        "batch_size": [1],
    }
    found = bench(from_mapping(BenchConfig, given | SMALL))
    assert [line.name for line in found.lines] == ["plain", "lookup chain of 2", "draft chain of 2"]
    assert all(line.same == line.compared for line in found.lines)
    assert found.lines[2].recipe is not None
    assert found.lines[2].recipe.drafter == models["draft"]
    written = json.loads(storage.read_bytes(f"{s3_bucket}/out/bench.json"))
    assert written["config"]["target"] == models["target"]
    text = storage.read_bytes(f"{s3_bucket}/out/bench.md").decode()
    assert text.startswith(f"{models['target']} on ")
    assert remote.MARK not in text


def test_a_plan_names_its_drafter_by_its_url(models, prompts):
    given = {"target": models["target"], "drafter": models["draft"], "input": prompts}
    found = plan(from_mapping(PlanConfig, given | SMALL | {"gpus": [1], "batch_size": 2}))
    assert {choice.recipe.drafter for choice in found.choices[1]} == {models["draft"]}


def test_an_evaluation_asks_a_teacher_on_s3(checkpoints, models, tmp_path):
    own = [
        text_rows(tmp_path / f"{i}.parquet", checkpoints["target"], seed=i, temperature=1)
        for i in range(3)
    ]
    known = {"samples": own[0], "reference": own[1], "floor": own[2], "metrics": ["nll"]}
    told, local = (run({**known, "teacher": each["target"]}) for each in (models, checkpoints))
    assert told.outcomes == local.outcomes
    assert told.config["teacher"] == models["target"]


def test_an_evaluation_uses_a_classifier_on_s3(tmp_path, s3_bucket):
    files = {
        name: write_rows(tmp_path / f"{name}.parquet", stamps(seed, count))
        for seed, (name, count) in enumerate({"same": 60, "teacher": 120, "training": 80}.items())
    }
    known = {"samples": files["same"], "reference": files["teacher"], "metrics": ["fd-clf"]}
    first = run({**known, "classifier": files["training"], "output": f"{s3_bucket}/first"})
    second = run({**known, "classifier": f"{s3_bucket}/first/classifier"})
    assert second.classifier == first.classifier
    assert second.outcomes == first.outcomes


def test_a_conversion_reads_and_writes_s3(tmp_path, s3_bucket, capsys):
    save_file(theirs.vq16(), tmp_path / "vq.safetensors")
    storage.upload(tmp_path / "vq.safetensors", f"{s3_bucket}/published/vq.safetensors")
    order: list[str] = []
    upload = storage.upload

    def noted(file: Path, url: str) -> None:
        order.append(file.name)
        upload(file, url)

    def convert(source: object, output: object) -> int:
        words = ["--from", "llamagen-vq16", "--image-size", "16"]
        return main(["convert", *words, "--input", str(source), "--output", str(output)])

    assert convert(tmp_path / "vq.safetensors", tmp_path / "ours") == 0
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(storage, "upload", noted)
        assert convert(f"{s3_bucket}/published/vq.safetensors", f"{s3_bucket}/ours") == 0
    assert order == ["model.safetensors", "config.json"]
    assert f"{s3_bucket}/ours: paceline_grid_tokenizer" in capsys.readouterr().out
    for name in order:
        there, here = f"{s3_bucket}/ours/{name}", tmp_path / "ours" / name
        assert storage.read_bytes(there) == here.read_bytes()
    assert convert(f"{s3_bucket}/published/vq.safetensors", f"{s3_bucket}/ours") == 2
    assert "holds a checkpoint already" in capsys.readouterr().err
    assert convert(f"{s3_bucket}/published/nothing.safetensors", f"{s3_bucket}/new") == 2
    assert "is not a file" in capsys.readouterr().err
    storage.publish(f"{s3_bucket}/published/vq.safetensors", b"PK\x03\x04 and more")
    assert convert(f"{s3_bucket}/published/vq.safetensors", f"{s3_bucket}/new") == 2
    assert "is a pickle, which may hold code" in capsys.readouterr().err
    assert storage.list_files(f"{s3_bucket}/new") == []


def test_a_run_on_s3_is_exported_there(s3_bucket, checkpoints, capsys):
    made = uploaded(checkpoints["draft"], f"{s3_bucket}/run/export")
    words = ["distill", "export", f"{s3_bucket}/run", "--format", "paceline"]
    assert main(words) == 2
    assert "has no export/drafter.json" in capsys.readouterr().err
    storage.publish(f"{made}/drafter.json", b"{}")
    assert main(words) == 0
    assert f"{s3_bucket}/run/export-paceline" in capsys.readouterr().out
    names = [file.name for file in storage.list_files(made)]
    assert "model.safetensors" in names
    for name in names:
        copy = f"{s3_bucket}/run/export-paceline/{name}"
        assert storage.read_bytes(copy) == storage.read_bytes(f"{made}/{name}")
    assert main(words) == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_drafter_is_shown_beside_one_on_s3(models, checkpoints, tmp_path, s3_bucket):
    given = {"target": checkpoints["target"], "prompts": "p", "output": str(tmp_path / "run")}
    small = {"exam_tokens": 4, "threads": 1, "length": 24}
    options = from_mapping(DrafterOptions, {**given, **small, "beside": [models["draft"]]})
    made = check(options)
    for name, content in (("nothing", {}), ("text", {"a.bin": b"no checkpoint"})):
        for file, data in content.items():
            storage.publish(f"{s3_bucket}/{name}/{file}", data)
        beside = [f"{s3_bucket}/{name}"]
        with pytest.raises(StorageError, match="no files of a checkpoint"):
            check(from_mapping(DrafterOptions, {**given, "beside": beside}))
    texts = [Text(tokens=(65, 66, 67, 68, 69), num_prompt=3)]
    write_texts(tmp_path / "run" / "texts" / HELD_OUT, texts)
    (tmp_path / "run" / "train").mkdir()
    (tmp_path / "run" / "train" / EXAMS).write_text('{"step": 0, "score": 1.0}\n')
    (tmp_path / "run" / "train" / METRICS).write_text('{"step": 1, "loss": 1.0, "rate": 0.1}\n')
    made.evaluate(Path(checkpoints["draft"]), lambda _: None)
    lines = json.loads((tmp_path / "run" / FIGURES).read_text())["lines"]
    lengths: dict[str, list[float]] = {}
    for line in lines:
        lengths.setdefault(line["drafter"], []).append(line["accepted_length"])
    assert lengths[models["draft"]] == lengths[MADE] != lengths[PLAIN]
