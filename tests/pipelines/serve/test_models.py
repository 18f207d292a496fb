"""A list of models in one configuration: what each gets, and what is refused."""

from dataclasses import replace
from typing import Any

import pytest
import yaml

from models.errors import InvalidOption
from pipelines.cli import main
from pipelines.serve import server
from pipelines.serve.application import serve_config
from pipelines.serve.config import ServeConfig
from pipelines.serve.models import serve_configs, sharing, told_of

TWO: dict[str, Any] = {
    "port": 8123,
    "threads": 2,
    "models": [
        {"target": "a/text", "drafter": "lookup", "memory": 0.5},
        {"target": "b/text", "model_name": "other", "threads": 3},
    ],
}


def test_entries_come_before_the_options_beside_them() -> None:
    first, second = serve_configs(TWO)
    assert (first.name, first.drafter, first.threads, first.port) == ("text", "lookup", 2, 8123)
    assert (second.name, second.drafter, second.threads, second.port) == ("other", "none", 3, 8123)


def test_one_model_needs_no_list() -> None:
    (config,) = serve_configs({"target": "a", "port": 1})
    assert config == ServeConfig(target="a", port=1)


def test_a_student_alone_is_its_own_target() -> None:
    (alone,) = serve_configs({"student": "s", "steps": 2})
    assert (alone.target, alone.checkpoint, alone.name, alone.steps) == ("s", "s", "s", 2)
    (both,) = serve_configs({"student": "s", "target": "t"})
    assert (both.target, both.checkpoint) == ("t", "s")


@pytest.mark.parametrize(
    ("changed", "told"),
    [
        ({"models": []}, "a list of mappings"),
        ({"models": ["text"]}, "a list of mappings"),
        ({"target": "c"}, "target='c' is not accepted: none beside models"),
        ({"models": [{"target": "a", "port": 1}]}, r"models\[0\].port=1 .* beside models"),
        ({"models": [{"target": "a"}, {"drafter": "lookup"}]}, r"models\[1\].target=None"),
        ({"models": [{"target": "a", "batch": 1}]}, r"models\[0\].batch=1 .* 'batch_size'"),
        (
            {"models": [{"target": "a"}, {"target": "b/a"}]},
            "an earlier model has it",
        ),
        (
            {"models": [{"student": "s", "drafter": "lookup"}]},
            "with a student",
        ),
        ({"models": [{"student": "s", "tensor_parallel": 2}]}, "with a student"),
        ({"models": [{"target": "a", "steps": 2}]}, r"models\[0\].steps=2 .* only with --student"),
    ],
)
def test_what_cannot_be_honoured_is_refused(changed: dict[str, Any], told: str) -> None:
    with pytest.raises(InvalidOption, match=told):
        serve_configs(TWO | changed)


def test_a_flag_does_not_lose_to_an_entry() -> None:
    assert serve_configs(TWO | {"port": 9}, {"port": 9})[0].port == 9
    with pytest.raises(InvalidOption, match=r"threads=1 .* models\[1\] has threads=3"):
        serve_configs(TWO | {"threads": 1}, {"threads": 1})


def test_memory_and_threads_are_divided() -> None:
    models = [{"target": "a"}, {"target": "b", "memory": "64MiB"}, {"student": "s"}]
    configs = serve_configs({"models": models, "target_actors": 1})
    shared = sharing(configs, cores=8)
    assert [each.memory for each in shared] == ["0.25", "64MiB", None]
    assert [each.threads for each in shared] == [2, 2, 2]
    assert [each.threads for each in sharing(configs, cores=None)] == [None] * 3
    assert sharing(configs[:1], cores=8) == (replace(configs[0], threads=8),)
    assert sharing(configs[:1], cores=None) == configs[:1]
    assert [each.threads for each in sharing(serve_configs(TWO), cores=64)] == [2, 3]


def test_a_pool_starts_without_the_other_models_checkpoints(monkeypatch: Any) -> None:
    """Which may be on other nodes; GPUs are shared by all of them."""
    given = {"target": "examples/models/text-target", "threads": 1}
    configs = serve_configs({"models": [{"target": "nowhere"}, given, {"student": "nothing"}]})
    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(server, "gpus_each", lambda **sizes: asked.append(sizes) or 0.5)
    start: Any = server.start_of(configs, 1)
    assert asked == [{"actors": 2, "device": "auto", "whole": False}]
    assert (start.keywords["num_gpus"], start.args[0].threads) == (0.5, 1)


def test_what_is_told_gives_the_same_configurations() -> None:
    models = [*TWO["models"], {"student": "s", "steps": 2}]
    for given in ({"target": "a", "memory": 0.25}, {"student": "s"}, TWO | {"models": models}):
        configs = serve_configs(given)
        assert serve_configs(told_of(configs)) == configs


def test_the_command_builds_several(tmp_path: Any) -> None:
    file, out = tmp_path / "models.yaml", tmp_path / "serve.yaml"
    file.write_text(yaml.safe_dump(TWO))
    assert main(["serve", "--config", str(file), "--build", str(out)]) == 0
    written = yaml.safe_load(out.read_text())
    assert written == serve_config(*serve_configs(TWO))
    (application,) = written["applications"]
    assert serve_configs(application["args"]) == serve_configs(TWO)
