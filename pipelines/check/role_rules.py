"""Whether a cluster has the groups, labels and room that Paceline's processes ask for."""

import argparse
import difflib
import importlib
import json
import math
import shlex
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NoReturn

from cluster.placement.placement import Demand, Node, shortage
from cluster.placement.roles import COMMANDS, DRIVER, GROUPS, HEAD, LABEL, ROLES
from cluster.storage.checkpoints import is_remote
from models.errors import InvalidOption, PacelineError
from pipelines.check.clusters import JOBS, Group, groups
from pipelines.check.manifest import Manifest, Path, mapping, mappings
from pipelines.check.problem import Problem
from pipelines.check.quantity import quantity
from pipelines.distill.places import TARGET, TRAINER, device_of, gpus_of
from pipelines.distill.places import demands as training_demands
from pipelines.serve.models import serve_configs

GPU = "nvidia.com/gpu"
BATCH = tuple(name for name in COMMANDS if name != "serve")
MOST = 1000  # nodes that are looked at


class WrongCommand(PacelineError):
    """An entrypoint that cannot run; `needle`: the word that is wrong."""

    def __init__(self, told: str, needle: str = "") -> None:
        super().__init__(told)
        self.needle = needle


class _Parser(argparse.ArgumentParser):
    """Raises what is wrong instead of exiting."""

    def error(self, message: str) -> NoReturn:
        raise WrongCommand(f"{self.prog}: {message}")


def check_roles(manifest: Manifest) -> Iterator[Problem]:
    """Problems of a cluster with its roles, and of what runs on it."""
    for path, told in _labels(manifest):
        yield Problem(manifest=manifest, path=path, told=told)
    for path, told in _memory(manifest):
        yield Problem(manifest=manifest, path=path, told=told)
    if manifest.kind in JOBS:
        yield from _job(manifest)
    if manifest.kind == "RayService":
        yield from _service(manifest)


def _labels(manifest: Manifest) -> Iterator[tuple[Path, str]]:
    for group in groups(manifest):
        role = group.labels.get(LABEL)
        at: Path = (*group.at, "labels", LABEL)
        if group.is_head and role != HEAD:
            yield at, f"the head needs the label {LABEL}: {HEAD}, so that nothing runs there"
        if group.is_head and quantity(_ray_cpus(group)) != 0:
            told = "the head offers CPUs, so work would go there: resources: {CPU: '0'} is needed"
            yield (*group.at, "resources"), told
        if not group.is_head and role not in GROUPS:
            near = difflib.get_close_matches(str(role), GROUPS, n=1)
            meant = f"; did you mean {near[0]}?" if near else ""
            told = f"{LABEL}={role} is no role's group: {', '.join(GROUPS)}{meant}"
            yield at, told


def _memory(manifest: Manifest) -> Iterator[tuple[Path, str]]:
    """Ray believes the limit, the kubelet the request: where they differ, pods are evicted."""
    for group in groups(manifest):
        found = mapping(group.ray.get("resources"))
        asked, most = (mapping(found.get(part)).get("memory") for part in ("requests", "limits"))
        if asked != most or most is None:
            told = f"memory: {asked} requested, {most} at most: both are needed, and equal"
            yield group.inside("containers", 0, "resources"), told


def _job(manifest: Manifest) -> Iterator[Problem]:
    at: Path = (*JOBS[manifest.kind], "entrypoint")
    spec = manifest.at(*JOBS[manifest.kind])
    if not isinstance(spec, dict):
        return
    yield from _driver(manifest, spec)
    try:
        command, config = read_command(str(spec.get("entrypoint", "")))
    except PacelineError as error:
        needle = error.needle if isinstance(error, WrongCommand) else ""
        yield Problem(manifest=manifest, path=at, told=str(error), needle=needle)
        return
    yield from _room(manifest, at, command, config)
    yield from _output(manifest, at, command, config)


def _output(manifest: Manifest, at: Path, command: str, config: Any) -> Iterator[Problem]:
    """Where the output is not on S3, the pods that write and read it need a volume in common."""
    output = str(config.output)
    if is_remote(output) and command != "distill":
        return
    needed = {
        ROLES[role].group for role in (("data", "trainer") if command == "distill" else ("data",))
    }
    lacking = [
        group.name
        for group in groups(manifest)
        if group.labels.get(LABEL) in needed and not _is_mounted(group, output)
    ]
    if lacking:
        told = f"output {output}: the group {lacking[0]} mounts no volume there"
        yield Problem(manifest=manifest, path=at, told=told, needle="--output")


def _is_mounted(group: Group, folder: str) -> bool:
    """Whether a folder is on a volume that outlives the pod."""
    volumes, mounts = mappings(group.pod.get("volumes")), mappings(group.ray.get("volumeMounts"))
    lasting = [volume.get("name") for volume in volumes if "emptyDir" not in volume]
    places = [str(m.get("mountPath")) for m in mounts if m.get("name") in lasting]
    return any(f"{folder}/".startswith(f"{place.rstrip('/')}/") for place in places)


def _driver(manifest: Manifest, spec: Mapping[str, Any]) -> Iterator[Problem]:
    """A job's own process asks for a resource of the group data: else it runs on the head."""
    at: Path = (*JOBS[manifest.kind], "entrypointResources")
    text = str(spec.get("entrypointResources") or "{}")
    try:
        asked = {name: float(amount) for name, amount in dict(json.loads(text)).items()}
    except (TypeError, ValueError):
        yield Problem(manifest=manifest, path=at, told=f"{text!r} is no JSON object")
        return
    if DRIVER not in asked and not spec.get("entrypointNumCpus"):
        told = f"'{{\"{DRIVER}\": 1}}' is needed: the job's own process would run on the head"
        yield Problem(manifest=manifest, path=at, told=told)
    for name, amount in asked.items():
        if not any(node.has.get(name, 0) >= amount for node in nodes(manifest)):
            told = f"no group has {amount:g} {name}"
            yield Problem(manifest=manifest, path=at, told=told)


def _service(manifest: Manifest) -> Iterator[Problem]:
    at: Path = ("spec", "serveConfigV2")
    try:
        inner = manifest.inner(at) if isinstance(manifest.at(*at), str) else None
        for application in inner.data.get("applications", ()) if inner else ():
            configs = serve_configs(application.get("args") or {})
            yield from _room(manifest, at, "serve", *configs)
    except (InvalidOption, AttributeError):
        return  # pipelines/check/serve_rules.py says what is wrong


def read_command(entrypoint: str) -> tuple[str, Any]:
    """The command of an entrypoint and its configuration.

    Raises PacelineError: it is none of ours, or an option is wrong.
    """
    try:
        words = shlex.split(entrypoint)
    except ValueError as error:
        raise WrongCommand(f"{entrypoint!r}: {error}") from error
    if len(words) < 2 or words[0] != "paceline" or words[1] not in BATCH:
        begins = " or ".join(f"`paceline {name}`" for name in BATCH)
        raise WrongCommand(f"{' '.join(words[:2])!r} is none of our jobs: {begins} is needed")
    parser = _Parser(prog="paceline")
    subparsers = parser.add_subparsers(dest="command", parser_class=_Parser)
    module: Any = importlib.import_module(f"pipelines.{words[1]}.command")
    module.register(subparsers)
    options, unknown = parser.parse_known_args(words[1:])
    if unknown:
        known = list(_options(subparsers.choices[words[1]]))
        near = difflib.get_close_matches(unknown[0], known, n=1)
        meant = f"did you mean {near[0]}?" if near else f"see paceline {words[1]} --help"
        raise WrongCommand(f"there is no option {unknown[0]}; {meant}", unknown[0])
    return words[1], module.config_of(options)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """The options of a command and of its own commands."""
    yield from parser._option_string_actions
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from _options(inner)


def nodes(manifest: Manifest) -> list[Node]:
    """The nodes of the cluster at its largest."""
    found = []
    for group in groups(manifest):
        most = 1 if group.is_head else group.data.get("maxReplicas", 0)
        node = Node(name=group.name, has=_has(group), labels=group.labels)
        found += [node] * min(most if isinstance(most, int) else 0, MOST)
    return found


def _has(group: Group) -> dict[str, float]:
    """The resources of a node; what is no quantity counts as nothing."""
    own = {"CPU": _ray_cpus(group), "GPU": _limits(group).get(GPU, 0)} | dict(group.resources)
    found = {name: quantity(value) for name, value in own.items()}
    return {name: 0.0 if math.isnan(value) else value for name, value in found.items()}


def _ray_cpus(group: Group) -> Any:
    """What Ray takes for the CPUs of a node."""
    given = group.resources.get("CPU", group.parameters.get("num-cpus"))
    return _limits(group).get("cpu", 1) if given is None else given


def _limits(group: Group) -> Mapping[str, Any]:
    """Of Ray's container."""
    return mapping(mapping(group.ray.get("resources")).get("limits"))


def _room(manifest: Manifest, at: Path, command: str, *configs: Any) -> Iterator[Problem]:
    """The actors that the command asks for, on the cluster at its largest."""
    have = nodes(manifest)
    if not have:
        return
    wanted = [*COMMANDS[command], *(("draft",) if any(map(_num_drafts, configs)) else ())]
    there = {node.labels.get(LABEL) for node in have}
    for role in wanted:
        if ROLES[role].group not in there:
            told = f"{command} needs the role {role}: no group has {LABEL}={ROLES[role].group}"
            yield Problem(manifest=manifest, path=at, told=told)
            return
    if any(getattr(each, "device", None) == "auto" for each in configs) and _waits_for_gpus(
        manifest
    ):
        told = "device: cuda is needed: no GPU is there before the target asks for one"
        yield Problem(manifest=manifest, path=at, told=told, needle=f"paceline {command}")
    for demands, needle in (
        (_demands(configs, have), "--target-actors"),
        *((_training(each, have), "--workers") for each in configs if command == "distill"),
    ):
        short = shortage(demands, have)
        if short is not None:
            yield Problem(manifest=manifest, path=at, told=short, needle=needle)


def _waits_for_gpus(manifest: Manifest) -> bool:
    """Whether the group of targets has GPUs, but may begin without a node."""
    return any(
        group.labels.get(LABEL) == ROLES["target"].group
        and not group.data.get("minReplicas")
        and quantity(_limits(group).get(GPU, 0)) > 0
        for group in groups(manifest)
    )


def _training(config: Any, have: list[Node]) -> list[Demand]:
    """The processes of a distillation while it trains."""
    labels = {role: {LABEL: ROLES[role].group} for role in (TRAINER, TARGET)}
    gpus = gpus_of(have, labels[TRAINER])
    return training_demands(config, device=device_of(config, gpus), gpus=gpus, labels=labels)


def _num_drafts(config: Any) -> int:
    return int(getattr(config, "draft_actors", 0))


def _demands(configs: Sequence[Any], have: list[Node]) -> list[Demand]:
    """Of each model; those of several have its name before them."""
    found = []
    for config in configs:
        before = f"{config.name} " if len(configs) > 1 else ""
        for role, count in (("target", config.target_actors), ("draft", _num_drafts(config))):
            labels = {LABEL: ROLES[role].group}
            gpus = any(n.has.get("GPU") for n in have if labels.items() <= n.labels.items())
            device = getattr(config, "device", "auto")
            gpus = device == "cuda" or (gpus and device != "cpu")
            cpus = float(getattr(config, "threads", None) or ROLES[role].num_cpus)
            each = {"CPU": cpus} | ({"GPU": 1.0} if gpus else {})
            if role == "target":  # with all its ranks, on one node
                ranks = getattr(config, "tensor_parallel", 1)
                each = {name: ranks * amount for name, amount in each.items()}
            if count:
                found.append(Demand(name=before + role, count=count, each=each, labels=labels))
    return found
