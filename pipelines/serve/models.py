"""The models that a server is told of: one by its options, or a list of several.

In YAML, `models` is a list of mappings. Options beside it hold for all of them; an entry's own come
before these.
"""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

from models.errors import InvalidOption
from models.memory.budget import divided
from pipelines.options import as_dict, from_mapping
from pipelines.serve.config import OF_SERVER, ServeConfig

MODELS = "models"
OF_ONE = ("target", "student", "model_name")  # what tells models apart
Configs = tuple[ServeConfig, ...]


def serve_configs(values: Mapping[str, Any], flags: Mapping[str, Any] | None = None) -> Configs:
    """A configuration for each model; `flags`: those of `values` from the command line.

    Raises InvalidOption: an option is unknown or out of range, two models have one name, or an
    option stands where it cannot be honoured.
    """
    shared = {name: value for name, value in values.items() if name != MODELS}
    if MODELS not in values:
        return (from_mapping(ServeConfig, _with_target(shared)),)
    entries = _entries(values[MODELS])
    for name in OF_ONE:
        if name in shared:
            raise InvalidOption(name, shared[name], f"none beside {MODELS}: each entry has its own")
    configs = tuple(_one(i, entry, shared, flags or {}) for i, entry in enumerate(entries))
    names = [config.name for config in configs]
    for i, name in enumerate(names):
        if name in names[:i]:
            told = "another name: clients choose by it, and an earlier model has it"
            raise InvalidOption(f"{MODELS}[{i}].model_name", name, told)
    return configs


def told_of(configs: Sequence[ServeConfig]) -> dict[str, Any]:
    """The options that give these configurations again, without those at their defaults."""
    default = as_dict(ServeConfig(target=configs[0].target))
    told = [
        {k: v for k, v in as_dict(each).items() if k == "target" or v != default[k]}
        for each in configs
    ]
    if len(told) == 1:
        return told[0]
    shared = {name: told[0][name] for name in OF_SERVER if name in told[0]}
    entries = [{k: v for k, v in each.items() if k not in OF_SERVER} for each in told]
    return {**shared, MODELS: entries}


def sharing(configs: Configs, *, cores: int | None) -> Configs:
    """With an equal part of the memory for each target, and of `cores` for each process.

    Amounts of memory, and threads that were told, stay as they are. `cores`: None: processes have
    what their nodes give them.
    """
    targets = sum(config.student is None for config in configs)
    processes = sum(map(num_processes, configs))
    threads = None if cores is None else max(1, cores // processes)
    return tuple(
        replace(
            config,
            memory=None if config.student else divided(config.memory, targets),
            threads=config.threads or threads,
        )
        for config in configs
    )


def num_processes(config: ServeConfig) -> int:
    """Of the targets or the student at most, and of draft actors."""
    targets = config.max_target_actors or config.target_actors
    return config.tensor_parallel * targets + config.draft_actors


def _entries(given: Any) -> list[Mapping[str, Any]]:
    if not isinstance(given, list) or not given or not all(isinstance(e, Mapping) for e in given):
        raise InvalidOption(MODELS, given, "a list of mappings, one for each model")
    return given


def _one(
    i: int, entry: Mapping[str, Any], shared: Mapping[str, Any], flags: Mapping[str, Any]
) -> ServeConfig:
    where = f"{MODELS}[{i}]"
    for name, value in entry.items():
        if name in OF_SERVER:
            told = f"none in {where}: all models share it, so it stands beside {MODELS}"
            raise InvalidOption(f"{where}.{name}", value, told)
        if name in flags:
            told = f"none on the command line: {where} has {name}={value!r}"
            raise InvalidOption(name, flags[name], told)
    try:
        return from_mapping(ServeConfig, _with_target({**shared, **entry}))
    except InvalidOption as error:
        raise error.at(where) from None


def _with_target(values: Mapping[str, Any]) -> dict[str, Any]:
    """A student alone is its own target."""
    target = values.get("target", values.get("student"))
    return dict(values) if target is None else {**values, "target": target}
