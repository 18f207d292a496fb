"""The manifests of k8s/ are valid; broken ones are caught, with the line that is wrong."""

import random
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from pipelines.check.check import problems
from pipelines.check.manifest import parse
from pipelines.check.render import render, roots
from pipelines.check.schemas import Schema, read_schemas
from pipelines.cli import main
from pipelines.options import from_mapping
from pipelines.serve.config import ServeConfig
from tests.pipelines.check.rendered import OVERLAYS, ROOT, overlay, schemas


@pytest.fixture(scope="session")
def known() -> dict[str, Schema]:
    return read_schemas(schemas())


@pytest.mark.parametrize("name", OVERLAYS)
def test_overlays_are_valid(name, known):
    found = [p for m in parse(overlay(name), name) for p in problems(m, known)]
    assert not [f"{p.line}: {p.subject}: {p.told}" for p in found]


def test_all_overlays_are_checked():
    assert [folder.name for folder in roots(ROOT / "k8s")] == list(OVERLAYS)


CASES = [
    # name, document, what is replaced, by what, the wrong line holds, message
    ("typo", "RayCluster", "maxReplicas: 8", "maxReplica: 8", "maxReplica:", "mean 'maxReplicas'?"),
    ("type", "RayCluster", "maxReplicas: 8", "maxReplicas: many", "many", "of type 'integer'"),
    ("choice", "RayCluster", "mode: token", "mode: tokens", "tokens", "is not one of"),
    ("min over max", "RayCluster", "minReplicas: 0", "minReplicas: 9", "minReplicas: 9", "above"),
    ("replicas", "RayCluster", "replicas: 0", "replicas: 10", "replicas: 10", "outside of 0 to 8"),
    ("both CPUs", "RayCluster", "dashboard-host: 0.0.0.0", 'num-cpus: "0"', "num-cpus",
     "also has resources"),
    ("Ray's labels", "RayCluster", "dashboard-host: 0.0.0.0", "labels: a=b", "labels: a=b",
     "as its labels"),
    ("no token", "RayCluster", "mode: token", "mode: disabled", "mode: disabled", "could run jobs"),
    ("old Ray", "RayCluster", "rayVersion: 2.60.0", "rayVersion: 2.40.0", "2.40", "2.52 or later"),
    ("head works", "RayCluster", 'CPU: "0"', 'CPU: "1"', "resources:", "the head offers CPUs"),
    ("no such role", "RayCluster", "role: draft", "role: drafts", "role: drafts", "mean draft?"),
    ("same group", "RayCluster", "groupName: draft", "groupName: target", "groupName: target",
     "2 groups are called target"),
    ("restarts", "RayCluster", "serviceAccountName: paceline-worker", "restartPolicy: Always",
     "restartPolicy: Always", "Never is accepted"),
    ("a long name", "RayCluster", "name: paceline\n", f"name: {'p' * 50}\n", "ppp", "at most 47"),
    ("memory", "RayCluster", "memory: 4Gi", "memory: 5Gi", "resources:", "and equal"),
    ("role without a group", "RayJob/generate", "paceline.io/role: data", "paceline.io/role: draft",
     "entrypoint:", "no group has paceline.io/role=data"),
    ("option", "RayJob/generate", "--drafter s3", "--draftr s3", "entrypoint:", "mean --drafter?"),
    ("value", "RayJob/generate", "--target-actors 1", "--target-actors 0", "entrypoint:",
     "1 or more"),
    ("no room", "RayJob/generate", "actors 1 --max-target-actors 8", "actors 9", "entrypoint:",
     "the nodes can hold 8 target actors"),
    ("ranks on several nodes", "RayJob/generate", "actors 1 --max-target-actors 8",
     "actors 1 --tensor-parallel 2", "entrypoint:", "the nodes can hold 0 target actors"),
    ("driver on the head", "RayJob/generate", "paceline_driver\": 1}'", "CPUs\": 0}'",
     "entrypointResources:", "would run on the head"),
    ("no volume", "RayJob/distill", "--output /data", "--output /date", "entrypoint:",
     "the group target mounts no volume there"),
    ("a GPU for each worker", "RayJob/distill", "--workers 1", "--workers 9", "entrypoint:",
     "the nodes can hold 8 trainer actors"),
    ("no GPU yet to train on", "RayJob/distill", "--device cuda", "--device auto", "entrypoint:",
     "device: cuda is needed"),
    ("no GPU yet", "RayJob/generate", "--device cuda", "--device auto", "entrypoint:",
     "device: cuda is needed"),
    ("suspension", "RayJob/generate", "shutdownAfterJobFinishes: true",
     "shutdownAfterJobFinishes: false", "suspend:", "only suspended with"),
    ("time to live", "RayJob/generate", "shutdownAfterJobFinishes: true",
     "shutdownAfterJobFinishes: false", "ttlSecondsAfterFinished:", "it needs"),
    ("CEL", "RayJob/generate", "  suspend: true", "  managedBy: me", "managedBy", "must be either"),
    ("retries", "RayJob/generate", "backoffLimit: 2", "backoffLimit: -1", "backoffLimit", "0 or"),
    ("schedule", "RayCronJob", "schedule: 0 2 * * *", "schedule: 0 25 * * *", "schedule:",
     "is no schedule"),
    ("Serve's field", "RayService", "route_prefix: /", "route_prefx: /", "route_prefx",
     "did you mean 'route_prefix'?"),
    ("Serve's value", "RayService", "port: 8000", "port: eight", "port: eight", "valid integer"),
    ("server's option", "RayService", "api_key_file:", "api_key:", "api_key:",
     "did you mean 'api_key_file'?"),
    ("import path", "RayService", "serve.application:build", "serve.app:build", "import_path",
     "pipelines.serve.application:build is needed"),
    ("Redis", "RayService", "redisAddress:", "redisAdress:", "redisAdress", "mean 'redisAddress'?"),
    ("metric of an alert", "PrometheusRule", "paceline_target_actors)", "paceline_target_actor)",
     "expr:", "did you mean paceline_target_actors?"),
    ("metric of a dashboard", "ConfigMap", "paceline_draft_actors", "paceline_drafters",
     "paceline_drafters", "the server exports no metric paceline_drafters"),
    ("core kind", "NetworkPolicy/redis", "podSelector:", "podSelecter:", "podSelecter", "no field"),
    ("core value", "StatefulSet", "replicas: 1", "replicas: one", "replicas: one", "integer"),
]  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case[0])
def test_a_broken_manifest_is_caught_with_its_line(case, known):
    _, subject, old, new, wrong, told = case
    text = next(m for m in overlay("gpu-autoscale").split("\n---\n") if is_subject(m, subject))
    assert old in text
    (manifest,) = parse(text.replace(old, new, 1), "broken")
    found = [(p.manifest.text(p.path), p.told) for p in problems(manifest, known)]
    assert any(wrong in line and told in message for line, message in found), found


STRANGE = (None, 3, "x", [], {}, [1], {"a": 1}, True)


def test_no_manifest_is_too_strange_to_be_checked():
    """A value of every kind in many places: problems are told, and nothing is raised."""
    chance = random.Random(1)
    for text in overlay("gpu-autoscale").split("\n---\n"):
        said = yaml.load(text, Loader=yaml.CSafeLoader)
        if said["apiVersion"] != "ray.io/v1":
            continue
        for path in chance.sample(list(paths_of(said["spec"], ("spec",))), 2):
            for value in STRANGE:
                list(problems(parse(with_value(text, path, value), "strange")[0], None))


def paths_of(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    yield path
    inner: Any = ()
    if isinstance(value, dict | list):
        inner = value.items() if isinstance(value, dict) else enumerate(value)
    for key, item in inner:
        yield from paths_of(item, (*path, key))


def with_value(text: str, path: tuple[str | int, ...], value: Any) -> str:
    said = yaml.load(text, Loader=yaml.CSafeLoader)
    place = said
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = value
    return yaml.dump(said, Dumper=yaml.CSafeDumper)


def is_subject(text: str, subject: str) -> bool:
    kind, _, name = subject.partition("/")
    said = yaml.safe_load(text)
    return said["kind"] == kind and name in ("", said["metadata"]["name"])


def test_a_problem_is_told_with_its_source(tmp_path, capsys, monkeypatch):
    overlay("cpu-demo")  # or skip
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    monkeypatch.chdir(tmp_path)
    file = Path("k8s/base/raycluster.yaml")
    file.write_text(file.read_text().replace("paceline.io/role: draft", "paceline.io/role: drift"))
    line = 1 + file.read_text().splitlines().index("      paceline.io/role: drift")
    assert main(["check", "k8s"]) == 1
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith(f"{file}:{line}: RayCluster/paceline spec.workerGroupSpecs[1].labels.")
    assert out[0].endswith("did you mean draft?")
    assert len([text for text in out if text.startswith(f"{file}:{line}:")]) == 5  # one a workload


def test_rendered_files_need_no_kubectl(tmp_path, capsys):
    (tmp_path / "c.yaml").write_text(
        "apiVersion: ray.io/v1\nkind: RayCluster\nmetadata: {name: Cluster}\nspec: {}\n"
    )
    assert main(["check", str(tmp_path)]) == 1
    assert (
        "c.yaml:3: RayCluster/Cluster metadata.name: 'Cluster' is no name"
        in capsys.readouterr().out
    )


@pytest.mark.parametrize(
    ("folder", "told"),
    [("nowhere", "a folder with manifests is needed"), (".", "it holds no kustomization.yaml")],
)
def test_what_cannot_be_checked_is_refused(folder, told, tmp_path, capsys):
    assert main(["check", str(tmp_path / folder)]) == 2
    assert told in capsys.readouterr().err


def test_the_service_holds_what_the_server_would_write():
    from pipelines.serve.application import serve_config

    for name in OVERLAYS:
        for manifest in parse(overlay(name), name):
            if manifest.kind == "RayService":
                said = manifest.inner(("spec", "serveConfigV2")).data
                args = said["applications"][0]["args"]
                assert serve_config(from_mapping(ServeConfig, args)) == said


def test_no_option_of_the_server_is_lost():
    from pipelines.serve.application import serve_config

    config = ServeConfig(target="t", drafter="lookup", batch_size=3, model_name="m", draft_tokens=2)
    (application,) = serve_config(config)["applications"]
    assert from_mapping(ServeConfig, application["args"]) == config


def test_the_server_writes_the_configuration(tmp_path, capsys):
    file = tmp_path / "serve.yaml"
    assert main(["serve", "--target", "t", "--drafter", "lookup", "--build", str(file)]) == 0
    assert "serveConfigV2" in capsys.readouterr().out
    (application,) = yaml.safe_load(file.read_text())["applications"]
    assert application["args"] == {"target": "t", "drafter": "lookup", "host": "127.0.0.1"}


@pytest.mark.parametrize("name", ["kueue"])
def test_optional_components_render(name, tmp_path):
    overlay("cpu-demo")  # or skip
    shutil.copytree(ROOT / "k8s", tmp_path / "k8s")
    file = tmp_path / "k8s" / "overlays" / "cpu-demo" / "kustomization.yaml"
    spec = "- ../../components/cluster-spec"
    file.write_text(file.read_text().replace(spec, f"- ../../components/{name}\n{spec}"))
    assert "kueue.x-k8s.io/queue-name: paceline" in render(file.parent)


def test_what_top_shows_is_exported():
    from pipelines.check.metric_rules import exported
    from pipelines.top.server import SHOWN

    assert set(SHOWN) <= exported()


def test_the_image_for_gpus_shows_none_to_pods_that_ask_for_none():
    told = (ROOT / "docker" / "cuda.Dockerfile").read_text(encoding="utf-8")
    assert "NVIDIA_VISIBLE_DEVICES=" not in told
