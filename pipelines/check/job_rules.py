"""What the KubeRay operator refuses of jobs and their schedules.

Source: KubeRay 1.7, ray-operator/controllers/ray/utils/validation.go.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from models.errors import InvalidOption
from pipelines.check.clusters import JOBS
from pipelines.check.manifest import Manifest, Path
from pipelines.check.problem import Problem

RUNTIME_ENV = (  # the fields of Ray's runtime environments
    "py_modules",
    "working_dir",
    "pip",
    "uv",
    "conda",
    "env_vars",
    "config",
    "container",
    "image_uri",
    "excludes",
    "py_executable",
    "worker_process_setup_hook",
    "nsight",
    "rocprof_sys",
)
# The fields of a schedule: their ranges.
CRON = ((0, 59), (0, 23), (1, 31), (1, 12), (0, 6))
MONTHS = "jan|feb|mar|apr|may|jun|jul|aug|sep|oct|nov|dec"
NAMES = re.compile(f"(?i)({MONTHS}|sun|mon|tue|wed|thu|fri|sat)")
SHORT = re.compile(r"@(yearly|annually|monthly|weekly|daily|midnight|hourly|every \S+)")
Found = Iterator[tuple[Path, str]]


def check_job(manifest: Manifest) -> Iterator[Problem]:
    """Problems of a RayJob or a RayCronJob, but for those of its cluster."""
    at = JOBS[manifest.kind]
    spec = manifest.at(*at)
    if not isinstance(spec, dict):
        return
    for rule in (_suspension, _deletion, _cluster, _counts, _runtime_env):
        for path, told in rule(spec):
            yield Problem(manifest=manifest, path=(*at, *path), told=told)
    schedule = manifest.at("spec", "schedule")
    if schedule is not None and not is_schedule(str(schedule)):
        told = f"{schedule!r} is no schedule: minute, hour, day, month and weekday are needed"
        yield Problem(manifest=manifest, path=("spec", "schedule"), told=told)


def is_schedule(text: str) -> bool:
    """Whether it is a cron expression of five fields, or one of its short forms."""
    fields = text.split()
    if fields and fields[0].startswith(("TZ=", "CRON_TZ=")):
        fields = fields[1:]
    if SHORT.fullmatch(" ".join(fields)):
        return True
    return len(fields) == len(CRON) and all(map(_is_field, fields, CRON))


def _is_field(text: str, bounds: tuple[int, int]) -> bool:
    return all(_is_range(part, bounds) for part in text.split(","))


def _is_range(text: str, bounds: tuple[int, int]) -> bool:
    span, _, step = text.partition("/")
    if "/" in text and not (step.isdecimal() and int(step)):
        return False
    if span in ("*", "?"):
        return True
    ends = span.split("-")
    if not 1 <= len(ends) <= 2:
        return False
    if any(NAMES.fullmatch(end) for end in ends):
        return True
    return all(end.isdecimal() and bounds[0] <= int(end) <= bounds[1] for end in ends)


def _suspension(spec: Mapping[str, Any]) -> Found:
    if spec.get("suspend") and not spec.get("shutdownAfterJobFinishes"):
        yield ("suspend",), "a job is only suspended with shutdownAfterJobFinishes: true"


def _deletion(spec: Mapping[str, Any]) -> Found:
    shuts = spec.get("shutdownAfterJobFinishes")
    ttl, strategy = spec.get("ttlSecondsAfterFinished") or 0, spec.get("deletionStrategy") or {}
    if isinstance(ttl, int) and ttl > 0 and not shuts:
        yield ("ttlSecondsAfterFinished",), "it needs shutdownAfterJobFinishes: true"
    if isinstance(ttl, int) and ttl < 0:
        yield ("ttlSecondsAfterFinished",), f"{ttl}: 0 or more is needed"
    if strategy.get("deletionRules") and shuts:
        told = "deletionRules and shutdownAfterJobFinishes exclude each other"
        yield ("deletionStrategy", "deletionRules"), told


def _cluster(spec: Mapping[str, Any]) -> Found:
    chosen, own = spec.get("clusterSelector"), spec.get("rayClusterSpec")
    if not chosen and not own:
        yield (), "rayClusterSpec or clusterSelector is needed"
    if chosen and spec.get("suspend"):
        yield ("suspend",), "a job on a chosen cluster cannot be suspended"
    if chosen and not chosen.get("ray.io/cluster"):
        yield ("clusterSelector",), "ray.io/cluster, the cluster's name, is missing"


def _counts(spec: Mapping[str, Any]) -> Found:
    for name, least in (("backoffLimit", 0), ("activeDeadlineSeconds", 1)):
        value = spec.get(name)
        if isinstance(value, int) and value < least:
            yield (name,), f"{value}: {least} or more is needed"
    if spec.get("submissionMode") == "InteractiveMode" and spec.get("backoffLimit"):
        yield ("backoffLimit",), "InteractiveMode does not retry"


def _runtime_env(spec: Mapping[str, Any]) -> Found:
    import yaml

    text = spec.get("runtimeEnvYAML")
    if not isinstance(text, str):
        return
    try:
        found = yaml.safe_load(text)
        if not isinstance(found, dict):
            raise InvalidOption("runtimeEnvYAML", text, "a YAML mapping is needed")
    except (yaml.YAMLError, InvalidOption) as error:
        yield ("runtimeEnvYAML",), " ".join(str(error).split())
        return
    for key in found:
        if key not in RUNTIME_ENV:
            told = f"{key!r} is no field of a runtime environment: {', '.join(RUNTIME_ENV)}"
            yield ("runtimeEnvYAML",), told
