"""Paceline's public names: `import paceline; paceline.generate(target=..., input=..., output=...)`.

What needs torch and Ray is imported when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from cluster.errors import CannotConnect, ClusterError, StorageError
from models.errors import InvalidOption, InvalidRequest, PacelineError, UnsupportedCheckpoint
from models.requests.request import Request, Result, Sampling, TokenLogprob
from models.requests.update import Update
from pipelines.errors import InvalidInput, JobFailed, OutputRefused
from pipelines.evaluate.config import EvaluateConfig
from pipelines.generate.config import GenerateConfig
from pipelines.generate.student import with_target
from pipelines.options import from_mapping

if TYPE_CHECKING:
    from actors.pool.pool import TargetPool as TargetPool
    from models.engine import build_loop as build_loop
    from models.engine_config import EngineConfig as EngineConfig
    from pipelines.evaluate.report import Report
    from pipelines.generate.reporting.summary import Summary

__all__ = [
    "CannotConnect",
    "ClusterError",
    "EngineConfig",
    "EvaluateConfig",
    "GenerateConfig",
    "InvalidInput",
    "InvalidOption",
    "InvalidRequest",
    "JobFailed",
    "OutputRefused",
    "PacelineError",
    "Request",
    "Result",
    "Sampling",
    "StorageError",
    "TargetPool",
    "TokenLogprob",
    "UnsupportedCheckpoint",
    "Update",
    "build_loop",
    "evaluate",
    "generate",
]

_LATE = {
    "EngineConfig": "models.engine_config",
    "build_loop": "models.engine",
    "TargetPool": "actors.pool.pool",
}


def generate(**options: Any) -> "Summary":
    """Complete the prompts of a data set; see `paceline generate --help` for the options.

    They are named as the flags are, with _ for -: `generate(target=..., input=..., output=...,
    drafter="lookup", max_tokens=64)`. Returns the run's figures; the rows are in `output`.
    """
    config = from_mapping(GenerateConfig, with_target(options))
    from pipelines.generate.job import generate as run

    return run(config)


def evaluate(**options: Any) -> "Report":
    """Compare samples with a reference; see `paceline evaluate --help` for the options.

    `evaluate(samples=..., reference=..., output=...)`. Returns the report: `report.beyond` names
    the figures that tell the samples from the reference's law, `report.lines()` is its table.
    """
    config = from_mapping(EvaluateConfig, options)
    from pipelines.evaluate.run import evaluate as run

    return run(config)


def __getattr__(name: str) -> Any:
    if name not in _LATE:
        raise AttributeError(f"module 'paceline' has no attribute {name!r}")
    return getattr(import_module(_LATE[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_LATE})
