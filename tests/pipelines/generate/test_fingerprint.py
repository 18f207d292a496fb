"""Everything that decides rows is part of the job's fingerprint, and nothing else is."""

import json
import os
from collections.abc import Callable
from dataclasses import fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from cluster.storage import storage
from models.registry import MAPS
from pipelines.generate.config import GenerateConfig
from pipelines.generate.fingerprint import fingerprint
from pipelines.inputs import digest
from pipelines.inputs.files import find_inputs
from pipelines.inputs.shards import make_plan
from pipelines.inputs.survey import survey
from tests.pipelines.generate.inprocess import make_config, write_prompts

# Another value for each option that decides what rows hold.
DECIDES: dict[str, Any] = {
    "prompt_field": "kind",
    "id_field": "kind",
    "max_tokens": 9,
    "min_tokens": 1,
    "temperature": 0.5,
    "top_p": 0.5,
    "top_k": 5,
    "min_p": 0.1,
    "presence_penalty": 0.5,
    "frequency_penalty": 0.5,
    "repetition_penalty": 1.5,
    "logit_bias": {3: 1.0},
    "stop": ("x",),
    "stop_token_ids": (3,),
    "ignore_eos": True,
    "n": 2,
    "logprobs": 2,
    "seed": 6,
    "verify": "rejection",
    "guidance": 2.0,
    "images_as": "files",
    "max_length": 100,
    "dtype": "bfloat16",
    "arithmetic": "fast",
    "tensor_parallel": 2,
    "shard_rows": 7,
}
# Of the guesses: they decide under a rule that lets them change tokens, and only there.
GUESSES: dict[str, Any] = {
    "drafter": "lookup",
    "draft_tokens": 3,
    "draft_width": 1,
    "draft_actors": 2,
}
DECODERS: dict[str, Any] = {
    "window": 5,
    "coupling": "gumbel",
    "start": "uniform",
}
# A width above 1, which goes with `match` alone, is needed for `draft_nodes`.
NEVER: dict[str, Any] = {
    "draft_nodes": 2,
    "target_actors": 2,
    "max_target_actors": 3,
    "batch_size": 3,
    "prefill_chunk": 64,
    "memory": "64MiB",
    "device": "cpu",
    "threads": 2,
    "resume": False,
    "summary": "elsewhere.json",
    "address": "auto",
    "progress": True,
    "trace": "trace.json",
    "trace_ids": ("1",),
}
BY_CONTENT = {"target", "input", "output"}  # where they lie does not matter
HERE = {  # have tests of their own
    "decoder",
    "noise",
    "student",
    "steps",
    "teacher",
    "teacher_tokens",
}


def test_every_option_is_decided_about() -> None:
    known = [*DECIDES, *GUESSES, *DECODERS, *NEVER, *BY_CONTENT, *HERE]
    assert sorted(known) == sorted(found.name for found in fields(GenerateConfig))


@pytest.fixture
def config(tmp_path: Path) -> GenerateConfig:
    prompts = write_prompts(tmp_path / "in" / "prompts.jsonl", 9)
    return make_config(tmp_path, input=str(prompts), output=str(tmp_path / "out"))


def job_of(config: GenerateConfig) -> dict[str, Any]:
    told = {"prompt_field": config.prompt_field, "id_field": config.id_field}
    surveys = [survey(file, **told) for file in find_inputs(config.input)]
    plan = make_plan(surveys, shard_rows=config.shard_rows, id_field=config.id_field)
    return fingerprint(config, plan)


@pytest.mark.parametrize("name", DECIDES)
def test_what_decides_changes_it(config: GenerateConfig, name: str) -> None:
    assert job_of(replace(config, **{name: DECIDES[name]})) != job_of(config)


def test_the_map_from_noise_to_tokens_decides(
    config: GenerateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(MAPS, "quantile", "tests.models.toys:quantile_map")
    changed = job_of(replace(config, noise="quantile"))
    assert changed != job_of(config)
    assert changed["settings"]["noise"] == "quantile"


@pytest.mark.parametrize("name", NEVER)
def test_what_decides_nothing_does_not(config: GenerateConfig, name: str) -> None:
    drafting = {"drafter": "draft", "draft_tokens": 2, "draft_width": 2}
    config = replace(config, **drafting) if name == "draft_nodes" else config
    config = replace(config, trace="t.json") if name == "trace_ids" else config
    assert getattr(config, name) != NEVER[name]  # or nothing would be shown
    assert job_of(replace(config, **{name: NEVER[name]})) == job_of(config)


@pytest.mark.parametrize("verify", ["match", "rejection", "block"])
@pytest.mark.parametrize("name", GUESSES)
def test_guesses_decide_where_the_rule_lets_them(
    config: GenerateConfig, name: str, verify: str
) -> None:
    config = replace(config, verify=verify, drafter="none" if name == "drafter" else "lookup")
    changed = replace(config, **{name: GUESSES[name]})
    assert (job_of(changed) != job_of(config)) == (verify != "match")


def test_the_number_of_draft_actors_does_not_decide(config: GenerateConfig) -> None:
    config = replace(config, drafter="lookup", verify="rejection", draft_actors=1)
    assert job_of(replace(config, draft_actors=3)) == job_of(config)


@pytest.mark.parametrize(
    ("decoder", "name"),
    [
        *((decoder, name) for decoder in ("jacobi", "sjd") for name in ("window", "start")),
        *(("mc-sjd", name) for name in DECODERS),
    ],
)
def test_decoders_decide_unless_they_are_jacobi(
    config: GenerateConfig, name: str, decoder: str
) -> None:
    config = replace(config, decoder=decoder)
    changed = replace(config, **{name: DECODERS[name]})
    assert (job_of(changed) != job_of(config)) == (decoder != "jacobi")
    assert (job_of(config) != job_of(replace(config, decoder=None))) == (decoder != "jacobi")


@pytest.fixture
def models(tmp_path: Path) -> Callable[[str], Path]:
    """A checkpoint's folder with 8 MiB of weights, by its name."""

    def make(name: str) -> Path:
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        for file in ("config.json", "tokenizer.json"):
            (folder / file).write_text("{}")
        weights = np.random.default_rng(0).bytes(8 << 20)
        (folder / "model.safetensors").write_bytes(weights)
        return folder

    return make


def change_the_middle(path: Path, *, keep_time: bool = False) -> None:
    found = path.stat()
    with path.open("r+b") as file:
        file.seek(4 << 20)
        file.write(b"\0" * (1 << 20))
    if keep_time:
        os.utime(path, ns=(found.st_atime_ns, found.st_mtime_ns))


@pytest.mark.parametrize("keep_time", [False, True])
def test_a_mebibyte_in_the_middle_of_the_weights(
    config: GenerateConfig,
    models: Callable[[str], Path],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    keep_time: bool,
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(digest, "FRESH_S", 0.0)  # so that digests are remembered
    folder = models("target")
    before = job_of(config)
    assert job_of(config) == before
    assert len(list((tmp_path / "cache").rglob("digests/*"))) == 1
    change_the_middle(folder / "model.safetensors", keep_time=keep_time)
    assert job_of(config)["target"] != before["target"]


def test_a_digest_is_read_once(
    models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    path = str(models("target") / "model.safetensors")
    opened, open_input = [], storage.open_input

    def watched(url: str) -> Any:
        opened.append(url)
        return open_input(url)

    monkeypatch.setattr(storage, "open_input", watched)
    first = digest.digest(path)
    assert digest.digest(path) == first
    assert len(opened) == 2  # changed a moment ago: its times may not show the next change
    monkeypatch.setattr(digest, "FRESH_S", 0.0)
    assert [digest.digest(path) for _ in range(3)] == [first] * 3
    assert len(opened) == 3


def test_no_place_to_remember_a_digest(
    models: Callable[[str], Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(digest, "FRESH_S", 0.0)
    monkeypatch.setenv("XDG_CACHE_HOME", "/proc/none")
    path = str(models("target") / "model.safetensors")
    assert digest.digest(path) == digest.digest(path)


@pytest.mark.parametrize("verify", ["match", "rejection"])
def test_new_draft_weights_decide_where_the_rule_lets_them(
    config: GenerateConfig, models: Callable[[str], Path], verify: str, tmp_path: Path
) -> None:
    draft = models("draft")
    config = replace(config, drafter=str(draft), verify=verify)
    before = job_of(config)
    change_the_middle(draft / "model.safetensors")
    assert (job_of(config) != before) == (verify != "match")
    before = job_of(config)
    draft.rename(tmp_path / "elsewhere")
    assert job_of(replace(config, drafter=str(tmp_path / "elsewhere"))) == before


def edited(path: Path, change: Callable[[list[str]], list[str]]) -> None:
    path.write_text("".join(change(path.read_text().splitlines(keepends=True))))


@pytest.mark.parametrize(
    "change",
    [
        lambda rows: [*rows[:4], rows[4].replace("number 4", "number X"), *rows[5:]],
        lambda rows: [*rows[:4], "\n", *rows[4:]],
        lambda rows: [rows[1], rows[0], *rows[2:]],
    ],
    ids=["a changed prompt", "a blank line", "another order"],
)
def test_the_input_is_part_of_it(
    config: GenerateConfig, change: Callable[[list[str]], list[str]]
) -> None:
    before = job_of(config)
    edited(Path(config.input), change)
    assert job_of(config) != before


def test_a_changed_prompt_in_a_parquet_file(config: GenerateConfig, tmp_path: Path) -> None:
    path = tmp_path / "in.parquet"
    jobs = []
    for middle in ("pA", "pB"):
        table = pa.table({"prompt": ["pa", middle, "pz"]})
        pq.write_table(table, path, compression="none", write_statistics=False)
        jobs.append(job_of(replace(config, input=str(path))))
    assert jobs[0] != jobs[1]


def test_versions_count_where_a_library_does_the_arithmetic(
    config: GenerateConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib import metadata

    monkeypatch.setattr(metadata, "version", lambda name: "1.0")
    ours = {"model_type": "llama", "architectures": ["LlamaForCausalLM"]}
    fast = replace(config, arithmetic="fast")
    found = []
    for job, raw in ((config, ours), (fast, ours), (config, {"model_type": "gpt2"})):
        (Path(config.target) / "config.json").write_text(json.dumps(raw))
        found.append(sorted(job_of(job)["versions"]))
    assert found == [[], ["torch"], ["torch", "transformers"]]
