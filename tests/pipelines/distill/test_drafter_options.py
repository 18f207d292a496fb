"""Options of a drafter's distillation, its texts, and exports: without Ray."""

import json
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from actors.messages import Row
from cluster.storage import storage
from models.drafting.distil.build import DraftLessons, build_drafter
from models.drafting.distil.kind import Course
from models.drafting.distil.texts import Text, read_texts, write_texts
from models.drafting.heads.eagle_layouts import read_eagle
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.training.engines.worker import Worker
from pipelines.cli import main, parse
from pipelines.distill.command import drafter_config
from pipelines.distill.drafters import drafter
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.drafters.drafter import check
from pipelines.distill.drafters.texts import check_source, read_rows, split, write_split
from pipelines.distill.folder import RunFolder
from pipelines.distill.records import files_of
from pipelines.distill.stages import _about
from pipelines.errors import InvalidInput, OutputRefused
from pipelines.generate.fingerprint import checkpoint_digest
from pipelines.options import from_mapping
from pipelines.serve.learning.rows import RowStore
from tests.models.drafting.heads.random_heads import write_target

GIVEN = {"target": "t", "output": "o", "prompts": "p"}


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"prompts": None}, "prompts=None is not accepted: a file or folder, or else --data"),
        ({"data": "d"}, "one of the two"),
        ({"kind": "block"}, "one of model, medusa, hydra, eagle"),
        ({"depth": 20}, "depth=20 is not accepted: 1 to 16"),
        ({"length": 4}, "length=4 is not accepted: 8 or more"),
        ({"width": 33}, "width=33 is not accepted: an even number"),
        ({"width": 64, "kind": "medusa"}, "unset: heads have the target's width"),
        ({"width": 64, "start": "s"}, "a start has its own"),
        ({"draft_vocab": 1, "kind": "eagle"}, "draft_vocab=1 is not accepted: 2 or more"),
        ({"draft_vocab": 64}, "unset: a draft model has the target's vocabulary"),
        ({"loss": "nll"}, "one of match, divergence"),
        ({"exam_prompts": 0}, "exam_prompts=0 is not accepted: 1 or more"),
        ({"records": 9, "data": "d", "prompts": None}, "records=9 is .*without data"),
        ({"rate": 2.0}, r"rate=2\.0 is not accepted"),
    ],
)
def test_what_is_refused(values, told):
    with pytest.raises(InvalidOption, match=told):
        from_mapping(DrafterOptions, {**GIVEN, **values})


def test_the_match_loss_is_for_the_last_third():
    config = from_mapping(DrafterOptions, {**GIVEN, "train_steps": 30, "train_batch": 4})
    assert config.match_from == 80
    config = from_mapping(
        DrafterOptions, {**GIVEN, "train_steps": 30, "train_batch": 4, "loss": "divergence"}
    )
    assert config.match_from == 120  # never


def test_the_command_line_overrides_the_file(tmp_path):
    file = tmp_path / "job.yaml"
    file.write_text("target: t\noutput: o\nprompts: p\nkind: medusa\nrecords: 50\n")
    words = ["distill", "drafter", "--config", str(file), "--records", "60", "--beside", "none"]
    config = drafter_config(parse(words))
    assert (config.kind, config.records, config.beside) == ("medusa", 60, ("none",))


def test_targets_that_have_no_drafters_are_refused(tmp_path):
    told = {"model_type": "gpt2", "architectures": ["GPT2LMHeadModel"], "vocab_size": 9}
    (tmp_path / "config.json").write_text(json.dumps(told))
    config = from_mapping(DrafterOptions, {**GIVEN, "target": str(tmp_path)})
    with pytest.raises(UnsupportedCheckpoint, match="llama, mistral, qwen2 and qwen3"):
        check(config)


def test_a_start_of_another_kind_is_refused_before_anything_runs(tmp_path, checkpoints):
    config = from_mapping(
        DrafterOptions,
        {
            "target": checkpoints["target"],
            "start": checkpoints["draft"],
            "kind": "eagle",
            "prompts": "p",
            "output": str(tmp_path / "run"),
        },
    )
    with pytest.raises(UnsupportedCheckpoint, match="of kind 'eagle' is needed, it holds 'model'"):
        check(config)
    assert not (tmp_path / "run").exists()


def test_a_drafter_to_show_beside_it_that_is_not_there_is_refused_at_once(tmp_path, checkpoints):
    given = {"target": checkpoints["target"], "prompts": "p", "output": str(tmp_path / "run")}
    config = from_mapping(DrafterOptions, {**given, "beside": ["lookup", "lokup"]})
    with pytest.raises(InvalidOption, match=r"beside='lokup' is not accepted: none, .*folder"):
        check(config)
    check(replace(config, beside=("lookup", "none", checkpoints["draft"])))


def test_a_run_whose_exams_had_another_meaning_is_refused_at_once(tmp_path, checkpoints):
    """Its best score would compete with those of this version."""
    (tmp_path / "prompts.txt").write_text("a\nb\n")
    given = {"target": checkpoints["target"], "prompts": str(tmp_path / "prompts.txt")}
    run = check(from_mapping(DrafterOptions, {**given, "output": str(tmp_path / "run")}))
    about = _about(run)
    older = {name: value for name, value in about["decides"].items() if name != "exam"}
    run.path.mkdir()
    folder = RunFolder(run.path, tell=print)
    folder.describe({**about, "decides": older})
    folder.stage("records", dict)
    with pytest.raises(OutputRefused, match="another run: exam was None, is 'laws:v1'"):
        folder.describe(about)


def write_prompts(folder, prompts):
    (folder / "prompts.jsonl").write_text("".join(json.dumps(p) + "\n" for p in prompts))
    return {"prompts": str(folder / "prompts.jsonl")}


@pytest.mark.parametrize(
    ("prompts", "values", "told"),
    [
        ([], {}, "prompts.jsonl' has no rows"),
        ([{"text": "abc"}], {}, "prompt_field='prompt': the input has no such column; it has text"),
        ([{"prompt": "abc"}], {"prompt_field": "text"}, "prompt_field='text': .*it has prompt"),
        ([{"prompt": 3}] * 5, {}, "no row of input .* can be run: field 'prompt' is int 3"),
        ([{"prompt": "abc"}] * 99, {}, "1 different prompts of at most 128 tokens; 5 or more"),
        (
            [{"prompt": f"{i:030}"} for i in range(99)],
            {"length": 40},
            "0 different prompts of at most 20 tokens; 5 or more are needed, or a larger length",
        ),
    ],
)
def test_prompts_that_cannot_be_learned_from_are_refused_before_anything_runs(
    prompts, values, told, tmp_path, checkpoints, monkeypatch
):
    monkeypatch.setattr(drafter, "run_stages", lambda run, tell: pytest.fail("it runs"))
    given = {"target": checkpoints["target"], "output": str(tmp_path / "run"), **values}
    config = from_mapping(DrafterOptions, given | write_prompts(tmp_path, prompts))
    with pytest.raises(InvalidInput, match=told):
        drafter.distill(config)
    assert not (tmp_path / "run").exists()


def test_five_short_prompts_are_enough_wherever_they_are(tmp_path, checkpoints):
    prompts = [{"prompt": f"{i:030}"} for i in range(99)] + [{"prompt": f"a{i}"} for i in range(5)]
    given = {"target": checkpoints["target"], "output": str(tmp_path / "run"), "length": 40}
    check_source(from_mapping(DrafterOptions, given | write_prompts(tmp_path, prompts)))
    with pytest.raises(InvalidInput, match="4 different prompts of at most 20 tokens"):
        check_source(from_mapping(DrafterOptions, given | write_prompts(tmp_path, prompts[:-1])))


@pytest.mark.parametrize(
    ("columns", "told"),
    [(["prompt"], "there is no column 'tokens'"), (["tokens", "text"], "it has tokens, text")],
)
def test_rows_without_a_column_are_refused_before_anything_runs(
    columns, told, tmp_path, checkpoints, monkeypatch
):
    monkeypatch.setattr(drafter, "run_stages", lambda run, tell: pytest.fail("it runs"))
    pq.write_table(pa.table({name: ["a"] for name in columns}), tmp_path / "rows.parquet")
    given = {"target": checkpoints["target"], "data": str(tmp_path / "rows.parquet")}
    config = from_mapping(DrafterOptions, {**given, "output": str(tmp_path / "run")})
    with pytest.raises(InvalidInput, match=told):
        drafter.distill(config)


def texts_of(prompts, samples=2):
    return [
        Text(tokens=(*prompt, 7, sample), num_prompt=len(prompt))
        for prompt in prompts
        for sample in range(samples)
    ]


def test_no_prompt_is_in_two_parts():
    prompts = [(i, i + 1, i + 2) for i in range(20)]
    rest, exam, held = split(texts_of(prompts), length=20, kept=3, seed=0)
    heads = [{text.tokens[:3] for text in part} for part in (rest, exam, held)]
    assert [len(part) for part in (rest, exam, held)] == [28, 3, 3]
    assert [len(part) for part in heads] == [14, 3, 3]
    assert not heads[0] & heads[1]
    assert not heads[0] & heads[2]
    assert not heads[1] & heads[2]
    assert [len(part) for part in split(texts_of(prompts), length=20, kept=99, seed=0)] == [
        24,
        4,
        4,
    ]


def test_the_exams_have_prompts_of_all_topics():
    """Which ones, the seed decides; the file is sorted by topic."""
    prompts = [(topic, i, 2) for topic in range(4) for i in range(25)]
    found = [split(texts_of(prompts), length=20, kept=20, seed=seed) for seed in (0, 0, 1)]
    assert found[0] == found[1] != found[2]
    for part in found[0][1:]:
        assert {text.tokens[0] for text in part} == {0, 1, 2, 3}


def test_texts_whose_prompts_fill_the_length_are_told_and_not_counted(
    tmp_path, checkpoints, caplog
):
    prompts = ["a" * 5 + f"{i:02}" for i in range(20)] + ["b" * 28 + f"{i:02}" for i in range(30)]
    table = pa.table({"prompt": prompts, "tokens": [[1] * 15] * 50})
    pq.write_table(table, tmp_path / "rows.parquet")
    rows = str(tmp_path / "rows.parquet")
    given = {"target": checkpoints["target"], "data": rows, "output": str(tmp_path / "run")}
    config = from_mapping(DrafterOptions, {**given, "length": 20, "exam_prompts": 2})
    told = write_split(config, [rows], tmp_path / "texts")
    found = read_texts([str(tmp_path / "texts" / "texts.parquet")], length=20, num_ids=300)
    assert len(found) == told["texts"] + told["exam"] == 18
    assert told["tokens"] == 16 * 13 == sum(text.num_places for text in found[:-2])
    assert told["left_out"] == 30
    assert "30 of 50 texts are left out, as their prompts fill --length 20; --length 31" in (
        caplog.text
    )


def test_too_few_prompts_are_refused():
    with pytest.raises(InvalidInput, match="4 different prompts of at most 10 tokens; 5 or more"):
        split(texts_of([(i, 3) for i in range(4)]), length=20, kept=3, seed=0)
    with pytest.raises(InvalidInput, match="0 different prompts of at most 10 tokens"):
        split(texts_of([tuple(range(i, i + 11)) for i in range(9)]), length=20, kept=3, seed=0)


def test_rows_of_generate_become_texts(tmp_path, checkpoints):
    """With the prompts' token ids as generate had them; rows with errors are left out."""
    table = pa.table({"prompt": ["ab", "cde", "f"], "tokens": [[1, 2], None, [3]]})
    pq.write_table(table, tmp_path / "part.parquet")
    values = {**GIVEN, "prompts": None, "data": str(tmp_path), "target": checkpoints["target"]}
    config = from_mapping(DrafterOptions, values)
    found = read_rows([str(tmp_path / "part.parquet")], config)
    assert [text.tokens[text.num_prompt :] for text in found] == [(1, 2), (3,)]
    assert [text.num_prompt for text in found] == [2, 1]
    pq.write_table(table.drop_columns(["tokens"]), tmp_path / "part.parquet")
    with pytest.raises(InvalidInput, match="no column 'tokens'"):
        read_rows([str(tmp_path / "part.parquet")], config)


@pytest.fixture(scope="module")
def run_of_eagle(tmp_path_factory):
    """A run that has ended."""
    root = tmp_path_factory.mktemp("run")
    target = write_target(root / "target")
    rng = np.random.default_rng(0)
    texts = [Text(tokens=tuple(rng.integers(1, 50, 9).tolist()), num_prompt=2) for _ in range(3)]
    write_texts(root / "texts.parquet", texts)
    lessons = DraftLessons(
        kind="eagle",
        target=str(target),
        files=(str(root / "texts.parquet"),),
        course=Course(depth=3, kept=1),
        length=20,
        seed=0,
        about={"target": {"path": str(target), "digest": checkpoint_digest(str(target))}},
    )
    made = build_drafter(lessons, Worker())
    made.export(made.model, root / "run" / "export")
    return root / "run", target


@pytest.mark.parametrize("name", ["speculators", "sglang", "paceline"])
def test_an_export_loads_back_with_the_same_tensors(run_of_eagle, tmp_path, name, capsys):
    run, target = run_of_eagle
    out = tmp_path / "out"
    words = ["distill", "export", str(run), "--format", name, "--output", str(out)]
    assert main(words) == 0
    assert str(out) in capsys.readouterr().out
    expected, found = read_eagle(run / "export", target), read_eagle(out, target)
    assert found.config == expected.config
    for key, tensor in expected.tensors.items():
        assert torch.equal(found.tensors[key], tensor), key
    assert main(words) == 2
    assert "is not empty" in capsys.readouterr().err


def test_a_run_on_s3_is_exported(run_of_eagle, tmp_path, s3_bucket, monkeypatch, capsys):
    monkeypatch.setenv("PACELINE_CACHE", str(tmp_path / "cache"))
    run, target = run_of_eagle
    for file in (run / "export").iterdir():
        storage.upload(file, f"{s3_bucket}/run/export/{file.name}")
    words = ["distill", "export", f"{s3_bucket}/run", "--format", "sglang"]
    assert main([*words, "--output", str(tmp_path / "out")]) == 0
    assert main(words) == 0
    assert f"{s3_bucket}/run/export-sglang" in capsys.readouterr().out
    assert main(words) == 2
    assert "is not empty" in capsys.readouterr().err
    for file in (tmp_path / "out").iterdir():
        assert storage.read_bytes(f"{s3_bucket}/run/export-sglang/{file.name}") == file.read_bytes()
    assert read_eagle(tmp_path / "out", target).config == read_eagle(run / "export", target).config
    assert main(["distill", "export", f"{s3_bucket}/other", "--format", "sglang"]) == 2
    assert "a run of `paceline distill drafter` that has ended" in capsys.readouterr().err


def test_a_target_that_has_moved_is_named(run_of_eagle, checkpoints, tmp_path, capsys):
    run, target = run_of_eagle
    shutil.copytree(run, tmp_path / "run")
    file = tmp_path / "run" / "export" / "drafter.json"
    file.write_text(file.read_text().replace(str(target), "/gone/target"))
    words = ["distill", "export", str(tmp_path / "run"), "--format", "speculators"]
    assert main(words) == 2
    told = "target=None is not accepted: the folder of the drafter's target, which is not at '/gone"
    assert told in capsys.readouterr().err
    assert main([*words, "--target", checkpoints["target"]]) == 2
    assert "made for the target '/gone/target' (digest " in capsys.readouterr().err
    assert main([*words, "--target", str(target)]) == 0
    made = json.loads((tmp_path / "run" / "export-speculators" / "config.json").read_text())
    assert made["speculators_config"]["verifier"]["name_or_path"] == str(target)
    as_it_is = ["distill", "export", str(tmp_path / "run"), "--format", "paceline"]
    assert main([*as_it_is, "--target", str(target)]) == 2
    assert "none with format=paceline" in capsys.readouterr().err


def test_what_cannot_be_exported_is_refused(tmp_path, capsys):
    assert main(["distill", "export", str(tmp_path), "--format", "sglang"]) == 2
    assert "a run of `paceline distill drafter` that has ended" in capsys.readouterr().err
    (tmp_path / "export").mkdir()
    (tmp_path / "export" / "drafter.json").write_text("{}")
    (tmp_path / "export" / "config.json").write_text('{"model_type": "llama"}')
    assert main(["distill", "export", str(tmp_path), "--format", "sglang"]) == 2
    assert "only EAGLE-3 drafters have a layout of their own" in capsys.readouterr().err
    assert not (Path(tmp_path) / "export-sglang").exists()


def test_rows_of_a_server_that_learns_are_texts(tmp_path, checkpoints):
    store = RowStore(tmp_path / "rows")
    store.add([Row(prompt=(1, 2), tokens=(3, 4), seed=5, temperature=0.5)])
    store.flush()
    values = {"target": checkpoints["target"], "output": "o", "data": str(store.folder)}
    config = from_mapping(DrafterOptions, values)
    found = read_rows(files_of(config.data), config)
    assert found == [Text(tokens=(1, 2, 3, 4), num_prompt=2)]


def write_rows(folder):
    folder.mkdir(exist_ok=True)
    pq.write_table(pa.table({"tokens": [[1]]}), folder / "part-0.parquet")


def test_rows_may_be_in_folders_of_a_folder(tmp_path):
    for name in ("sampled", "greedy"):
        (tmp_path / name / "_manifest").mkdir(parents=True)
        write_rows(tmp_path / name)
    write_rows(tmp_path / "other")  # not of generate
    found = files_of(tmp_path)
    assert [Path(file).parent.name for file in found] == ["greedy", "sampled"]
    assert files_of(tmp_path / "greedy") == found[:1]


def test_the_folder_of_a_distillation_is_no_data(tmp_path):
    """It holds the same texts twice: as rows, and as what was learned from."""
    (tmp_path / "records" / "_manifest").mkdir(parents=True)
    for name in ("records", "texts"):
        write_rows(tmp_path / name)
    (tmp_path / "run.json").write_text("{}")
    with pytest.raises(InvalidInput, match=f"give {tmp_path}/records, or other rows"):
        files_of(tmp_path)
    assert len(files_of(tmp_path / "records")) == 1


def test_folders_without_rows_of_generate_are_refused(tmp_path):
    write_rows(tmp_path / "texts")
    with pytest.raises(InvalidInput, match="holds no Parquet files of rows; give rows of generate"):
        files_of(tmp_path)
