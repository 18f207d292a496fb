"""The options of an engine, for every command that runs one: each is told once.

A function makes a dataclass field, so `dtype: str = engine_options.dtype()` gives a configuration
the option.
"""

import logging
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from models.exactness import ARITHMETICS, STEADY
from models.registry import DRAFTERS, FOLDER, NONE, RULES, STUDENT, DrafterEntry, drafters
from models.requests.request import require
from pipelines.options import option

log = logging.getLogger(__name__)
AUTO = "auto"
DRAFTER_NAMES = "|".join([*DRAFTERS, "PATH"])

# What options are about, as --help groups them.
MAIN = "main options"
SAMPLING = "sampling"
DRAFTING = "drafting"
HARDWARE = "models and hardware"


def told_of(entries: Mapping[str, DrafterEntry]) -> str:
    """Names, each with what it does."""
    return ", ".join(f"{name} ({entry.told})" for name, entry in entries.items())


def drafter() -> Any:
    """What proposes tokens."""
    return option(
        f"what proposes tokens for the target to check: {told_of(DRAFTERS)}, {FOLDER.told}, or "
        f"{STUDENT.told}",
        default=NONE,
        metavar=DRAFTER_NAMES,
        group=MAIN,
    )


def batch_size() -> Any:
    """Requests at once."""
    return option("number of completions each target actor works on at once", default=8, group=MAIN)


def draft_tokens() -> Any:
    """The length of a draft."""
    return option(
        "number of tokens to propose per round (1 to 64); auto: chosen every round by measured "
        "cost and acceptance",
        default=AUTO,
        metavar="auto|N",
        group=DRAFTING,
    )


def draft_width() -> Any:
    """The width of a draft."""
    return option(
        "number of alternatives for each proposed token (1 to 8): 1 is a chain, more a tree",
        default=AUTO,
        metavar="auto|N",
        group=DRAFTING,
    )


def verify() -> Any:
    """The verification rule."""
    return option(
        "how the target accepts proposed tokens: match gives the same tokens as without a "
        "drafter, rejection and block the same distribution",
        default="match",
        decides=True,
        choices=RULES,
        group=DRAFTING,
    )


def draft_actors() -> Any:
    """Processes of drafters."""
    return option(
        "number of separate drafter processes, shared by all targets; 0: each target runs its own "
        "drafter",
        default=0,
        group=DRAFTING,
    )


def dtype() -> Any:
    """The type of weights."""
    return option(
        "data type of weights and cache",
        default="float32",
        decides=True,
        choices=("float32", "bfloat16", "float16"),
        group=HARDWARE,
    )


def arithmetic() -> Any:
    """Steady or fast."""
    return option(
        "steady: a token's scores have the same bits in every batch and draft, and on every x86 "
        "CPU with AVX2; fast: whatever is fastest on the device. Each row's exactness says which "
        "held",
        default=STEADY,
        decides=True,
        choices=ARITHMETICS,
        group=HARDWARE,
    )


def device() -> Any:
    """CPU or GPU."""
    return option(
        "device to run the models on; auto: a GPU if there is one",
        default=AUTO,
        choices=(AUTO, "cpu", "cuda"),
        group=HARDWARE,
    )


def threads() -> Any:
    """CPU threads of a process."""
    return option(
        "number of CPU threads of each model process; default: all cores of this machine (serve: "
        "all but one), shared equally; with --address 1. There each process also reserves as many "
        "CPUs",
        default=None,
        group=HARDWARE,
    )


def max_length() -> Any:
    """The longest request."""
    return option(
        "maximum number of tokens of a prompt and its completion together; default: the target's "
        "context length",
        default=None,
        decides=True,
        group=HARDWARE,
    )


def memory() -> Any:
    """Room for the KV caches."""
    return option(
        "memory for the KV caches: an amount for each actor such as 8GiB, or a share of the free "
        "memory such as 0.5, divided by the actors on a node; default: 0.5, or less if the batch "
        "needs less",
        default=None,
        metavar="SIZE|SHARE",
        group=HARDWARE,
    )


def prefill_chunk() -> Any:
    """Prompt tokens of a pass."""
    return option("number of prompt tokens to read per pass", default=256, group=HARDWARE)


def tensor_parallel() -> Any:
    """Processes of each copy of the target."""
    return option(
        "number of processes, each with its own device, that hold each copy of the target "
        "together, for targets larger than one device; with another number, rounding may change "
        "tokens",
        default=1,
        metavar="N",
        group=HARDWARE,
    )


def target_actors() -> Any:
    """Processes of targets."""
    return option("number of copies of the target", default=1, group=HARDWARE)


def max_target_actors() -> Any:
    """The most processes of targets."""
    return option(
        "number of copies of the target to grow to while there is work and the cluster has room, "
        "such as on nodes that join; default: --target-actors",
        default=None,
        group=HARDWARE,
    )


def address() -> Any:
    """The Ray cluster."""
    return option(
        "Ray cluster to run on (auto, HOST:6379, or ray://HOST:10001 from outside of it); default: "
        "a private one on this machine",
        default=None,
        group=HARDWARE,
    )


def processes(config: Any) -> int:
    """Processes with a model that a job or a server starts with."""
    return int(config.tensor_parallel * config.target_actors + config.draft_actors)


def same_named(config: Any, other: Any) -> dict[str, Any]:
    """The values of `config` for the fields that the dataclass `other` also has."""
    names = other.__dataclass_fields__
    return {name: getattr(config, name) for name in names if hasattr(config, name)}


def located(folder: str) -> str:
    """The full name of a folder of this machine; anything else as it is."""
    return str(Path(folder).absolute()) if Path(folder).is_dir() else folder


def located_drafter(name: str) -> str:
    """The same of a drafter's folder; the registry's names stand for no folder."""
    return name if name in drafters() else located(name)


def warn_of_threads(config: Any) -> None:
    """Tell of more threads than this machine has CPUs; what a cluster has is not known here."""
    here, cpus = getattr(config, "address", None) is None, len(os.sched_getaffinity(0))
    if here and config.threads is not None and config.threads > cpus:
        told = "they wait for each other, and every pass takes many times as long"
        log.warning("threads=%d, and this machine has %d CPUs: %s", config.threads, cpus, told)


def reserved_cpus(config: Any) -> float | None:
    """CPUs of each model process on a given cluster; None: they share those of this machine."""
    if config.address is None:
        return None
    if config.threads is None:
        log.info("each model process has 1 thread and 1 CPU of the cluster: set --threads for more")
    return float(config.threads or 1)


def check_drafts(config: Any, *, told: str) -> None:
    """Refuse what only drafts have, of a configuration without any; `told`: why it has none."""
    for name in ("draft_tokens", "draft_width", "draft_nodes", "draft_actors"):
        if hasattr(config, name):
            off = config.__dataclass_fields__[name].default
            accepted = "none" if off is None else off
            require(getattr(config, name) == off, name, getattr(config, name), f"{accepted} {told}")


def check_engine(config: Any) -> None:
    """Refuse values out of range of the options above, as far as no other option is involved."""
    for name in ("target", "drafter"):
        require(getattr(config, name) != "", name, getattr(config, name), "a text, not empty")
    for name in ("target_actors", "batch_size", "prefill_chunk", "tensor_parallel"):
        require(getattr(config, name) >= 1, name, getattr(config, name), "1 or more")
    require(config.threads is None or config.threads >= 1, "threads", config.threads, "1 or more")
    require(config.draft_actors >= 0, "draft_actors", config.draft_actors, "0 or more")
    most, least = config.max_target_actors, config.target_actors
    told = f"{least} (target_actors) or more"
    require(most is None or most >= least, "max_target_actors", most, told)
