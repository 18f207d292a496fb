"""What the KubeRay operator refuses, though its schemas accept it.

Source: KubeRay 1.7, ray-operator/controllers/ray/utils/validation.go.
"""

import re
from collections import Counter
from collections.abc import Iterator

from pipelines.check.clusters import CLUSTERS, Group, groups
from pipelines.check.manifest import Manifest, Path, mapping, mappings
from pipelines.check.problem import Problem

LONGEST_NAME = 47
NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
LABEL_KEY = re.compile(
    r"([a-z0-9]([-a-z0-9.]*[a-z0-9])?/)?[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?"
)
LABEL_VALUE = re.compile(r"([A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?)?")
RESOURCES = ("num-cpus", "num-gpus", "memory", "resources")
TOKENS_SINCE = (2, 52)  # the first version of Ray that can ask for tokens
AUTOSCALER = "RAY_enable_autoscaler_v2"
REDIS = ("RAY_REDIS_ADDRESS", "REDIS_PASSWORD", "REDIS_USERNAME")
UPGRADES = ("NewCluster", "NewClusterWithIncrementalUpgrade", "None")
Found = Iterator[tuple[Path, str]]


def check_operator(manifest: Manifest) -> Iterator[Problem]:
    """Problems of one of KubeRay's documents, but for those of jobs."""
    rules = (_name, _groups, _sizes, _autoscaling, _fault_tolerance, _tokens, _service)
    for rule in rules:
        for path, told in rule(manifest):
            yield Problem(manifest=manifest, path=path, told=told)


def _name(manifest: Manifest) -> Found:
    name = manifest.name
    if len(name) > LONGEST_NAME or not NAME.fullmatch(name):
        told = f"{name!r} is no name for a {manifest.kind}: at most {LONGEST_NAME} of a-z, 0-9, -"
        yield ("metadata", "name"), f"{told}, beginning with a letter"


def _groups(manifest: Manifest) -> Found:
    for group in groups(manifest):
        if not group.containers:
            yield group.inside(), f"group {group.name} has no container"
        given = [name for name in RESOURCES if group.parameters.get(name)]
        if given and group.resources:
            told = f"group {group.name} also has resources; give one of the two"
            yield (*group.at, "rayStartParams", given[0]), told
        if "labels" in group.parameters:
            told = f"the operator refuses it; give the labels of group {group.name} as its labels"
            yield (*group.at, "rayStartParams", "labels"), told
        yield from _labels(group)


def _labels(group: Group) -> Found:
    for key, value in group.labels.items():
        name = key.rpartition("/")[2]
        if not LABEL_KEY.fullmatch(key) or len(name) > 63 or not LABEL_VALUE.fullmatch(str(value)):
            told = f"{key}={value} is no label: letters, digits, -, _ and . are accepted"
            yield (*group.at, "labels", key), told


def _sizes(manifest: Manifest) -> Found:
    workers = [group for group in groups(manifest) if not group.is_head]
    counts = Counter(group.name for group in workers)
    for group in workers:
        if counts[group.name] > 1:
            yield (*group.at, "groupName"), f"{counts[group.name]} groups are called {group.name}"
        counts[group.name] = 0
        least, most = group.data.get("minReplicas", 0), group.data.get("maxReplicas", 2**31 - 1)
        if not (isinstance(least, int) and isinstance(most, int)):
            continue  # the schema says so
        if least > most:
            told = f"{least} is above maxReplicas, {most}"
            yield (*group.at, "minReplicas"), told
        count = group.data.get("replicas", least)
        if isinstance(count, int) and least <= most and not least <= count <= most:
            yield (*group.at, "replicas"), f"{count} is outside of {least} to {most}"


def _autoscaling(manifest: Manifest) -> Found:
    at = CLUSTERS[manifest.kind]
    scales = bool(manifest.at(*at, "enableInTreeAutoscaling"))
    version = manifest.at(*at, "autoscalerOptions", "version")
    for group in groups(manifest):
        policy = group.pod.get("restartPolicy")
        if scales and version == "v2" and policy not in (None, "", "Never"):
            told = f"{policy!r} with autoscaler v2: Never is accepted, or nothing"
            yield group.inside("restartPolicy"), told
        if scales and group.data.get("suspend"):
            told = f"group {group.name} cannot be suspended with autoscaling"
            yield (*group.at, "suspend"), told
        for i, name in _environment(group) if group.is_head else ():
            if name == AUTOSCALER and not scales:
                yield _variable(group, i), f"{name} needs enableInTreeAutoscaling: true"
            elif name == AUTOSCALER and version is not None:
                yield _variable(group, i), f"{name}: autoscalerOptions.version says it already"


def _fault_tolerance(manifest: Manifest) -> Found:
    at = CLUSTERS[manifest.kind]
    options = manifest.at(*at, "gcsFaultToleranceOptions")
    annotations = mapping(manifest.at("metadata", "annotations"))
    for name in ("ray.io/ft-enabled", "ray.io/external-storage-namespace"):
        if options is not None and name in annotations:
            told = f"{name} and gcsFaultToleranceOptions: give the options only"
            yield ("metadata", "annotations", name), told
    uses_redis = isinstance(options, dict) and options.get("backend", "redis") == "redis"
    if uses_redis and not options.get("redisAddress"):
        yield (*at, "gcsFaultToleranceOptions"), "redisAddress is missing"
    for group in groups(manifest):
        for i, name in _environment(group) if group.is_head else ():
            if name in REDIS:
                yield _variable(group, i), f"{name}: give gcsFaultToleranceOptions instead"


def _tokens(manifest: Manifest) -> Found:
    at = CLUSTERS[manifest.kind]
    if not isinstance(manifest.at(*at), dict) or not manifest.at(*at, "headGroupSpec"):
        return
    if manifest.at(*at, "authOptions", "mode") != "token":
        told = "authOptions: {mode: token} is missing: whoever reaches Ray's ports could run jobs"
        yield (*at, "authOptions", "mode"), told
        return
    version = str(manifest.at(*at, "rayVersion") or "")
    found = re.match(r"(\d+)\.(\d+)", version)
    if not found or (int(found[1]), int(found[2])) < TOKENS_SINCE:
        told = f"{version!r} cannot ask for tokens; 2.52 or later is needed"
        yield (*at, "rayVersion"), told


def _service(manifest: Manifest) -> Found:
    if manifest.kind != "RayService":
        return
    kind = manifest.at("spec", "upgradeStrategy", "type")
    if kind is not None and kind not in UPGRADES:
        told = f"{kind!r} is no upgrade: {', '.join(UPGRADES)}"
        yield ("spec", "upgradeStrategy", "type"), told
    delay = manifest.at("spec", "rayClusterDeletionDelaySeconds")
    if isinstance(delay, int) and delay < 0:
        yield ("spec", "rayClusterDeletionDelaySeconds"), f"{delay}: 0 or more is needed"
    if not manifest.at("spec", "excludeHeadPodFromServeSvc"):
        told = "excludeHeadPodFromServeSvc: true is needed: no work goes to the head"
        yield ("spec", "excludeHeadPodFromServeSvc"), told


def _environment(group: Group) -> Iterator[tuple[int, str]]:
    """Names of the variables of Ray's container."""
    for i, variable in enumerate(mappings(group.ray.get("env"))):
        yield i, str(variable.get("name"))


def _variable(group: Group, index: int) -> Path:
    return group.inside("containers", 0, "env", index)
