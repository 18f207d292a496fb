"""A running server: the manager with its pool, and the ingress on Ray Serve."""

import hashlib
import json
import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from importlib import metadata
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import RayError, RayTaskError
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from actors.pool.manager import Manager
from cluster.placement import gpus_each, selector
from cluster.roles import ROLES
from models.engine_config import EngineConfig
from models.errors import PacelineError
from models.exactness import STEADY
from models.registry import GUMBEL
from pipelines.engine_options import processes
from pipelines.errors import JobFailed
from pipelines.generate.fingerprint import checkpoint_digest, ranks_of, versions
from pipelines.modality.choose import modality
from pipelines.serve.access import read_key_hashes
from pipelines.serve.check import check
from pipelines.serve.config import ServeConfig
from pipelines.serve.facts import Facts
from pipelines.serve.limits import Limits

APP = "paceline"
ONGOING = 10_000  # HTTP requests at once; the manager's queue is what bounds them
CHECK_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """`url`: where it listens. `manager`: the actor that owns the pool."""

    url: str
    facts: Facts
    manager: Any

    def wait(self) -> None:
        """Until the pool fails, which it raises as JobFailed."""
        while True:
            try:
                ray.get(self.manager.describe.remote())
            except RayError as error:
                raise JobFailed(f"the server stopped: {_cause(error)}") from error
            time.sleep(CHECK_S)


@contextmanager
def serving(config: ServeConfig) -> Iterator[Server]:
    """A server that is ready, on the cluster that this process is connected to.

    Raises what `check` and TargetPool.start raise, and JobFailed if Serve does not start.
    """
    check(config)
    _refuse_other_serve()
    keys = read_key_hashes(config.api_key_file) if config.api_key_file else ()
    manager_class: Any = ray.remote(Manager)
    placed = {"num_cpus": ROLES["serve"].num_cpus, "label_selector": selector("serve") or None}
    manager = manager_class.options(**placed).remote(max_unfinished=most_unfinished(config))
    try:
        loading = manager.start.remote(engine_of(config), sizes_of(config))
        facts = facts_of(config, keys)
        _start_serve(config)
        _deploy(manager, facts, placed)
        _wait_for(loading)
        host = f"[{config.host}]" if ":" in config.host else config.host
        yield Server(url=f"http://{host}:{config.port}", facts=facts, manager=manager)
    finally:
        with suppress(RayError):
            ray.kill(manager)
        serve.shutdown()


def engine_of(config: ServeConfig) -> EngineConfig:
    """Image targets name the scale of their guidance."""
    about = getattr(modality(config.target), "about", None)
    return config.engine() if about is None else replace(config.engine(), guidance=about.guidance)


def facts_of(config: ServeConfig, key_hashes: tuple[str, ...]) -> Facts:
    """What an ingress must know."""
    return Facts(
        name=config.name,
        checkpoint=config.engine().target,
        kind=modality(config.target).kind,
        fingerprint=fingerprint(config),
        repeats=repeats(config),
        created=int(time.time()),
        max_body_bytes=config.max_body_bytes,
        max_unfinished=most_unfinished(config),
        limits=Limits(per_client=config.max_per_key, seconds=config.max_seconds),
        key_hashes=key_hashes,
    )


def fingerprint(config: ServeConfig) -> str:
    """What decides the text of an answer besides the body: weights, arithmetic, noise, rule."""
    parts: dict[str, Any] = {
        "target": checkpoint_digest(config.target),
        "versions": versions(config) | {"llguidance": metadata.version("llguidance")},
        "arithmetic": config.arithmetic,
        "dtype": config.dtype,
        "noise": GUMBEL,
        **ranks_of(config),
    }
    if not repeats(config):
        drafter = config.drafter
        if Path(drafter).is_dir():
            drafter = checkpoint_digest(drafter, role="draft")
        parts |= {"verify": config.verify, "drafter": drafter, "device": config.device}
        parts |= {"draft_tokens": config.draft_tokens, "draft_width": config.draft_width}
    digest = hashlib.blake2b(json.dumps(parts, sort_keys=True).encode(), digest_size=6)
    return f"fp_{digest.hexdigest()}"


def repeats(config: ServeConfig) -> bool:
    """Whether neither drafts nor the requests beside it decide an answer's text."""
    return config.verify == "match" and config.arithmetic == STEADY


def most_unfinished(config: ServeConfig) -> int:
    """Completions that may run or wait."""
    actors = config.max_target_actors or config.target_actors
    return config.batch_size * actors + config.max_queued


def sizes_of(config: ServeConfig) -> dict[str, Any]:
    """Arguments of TargetPool.start."""
    ranks = config.tensor_parallel
    gpus = gpus_each(actors=processes(config), device=config.device, whole=ranks > 1)
    return {
        "target_actors": config.target_actors,
        "max_target_actors": config.max_target_actors,
        "draft_actors": config.draft_actors,
        "num_cpus": None if config.address is None else float(config.threads or 1),
        "num_gpus": gpus,
        "draft_gpus": gpus,
    }


def _refuse_other_serve() -> None:
    """Serve has one HTTP address per cluster, which cannot be changed while it runs."""
    running = serve.status()
    if running.applications or running.proxies:
        apps = ", ".join(running.applications) or "no application"
        raise JobFailed(f"the cluster already runs Ray Serve ({apps}): stop it, or use another one")


def _start_serve(config: ServeConfig) -> None:
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    http = HTTPOptions(host=config.host.strip("[]"), port=config.port)
    quiet = LoggingConfig(log_level=logging.WARNING, enable_access_log=False)
    serve.start(http_options=http, logging_config=quiet)


def _deploy(manager: Any, facts: Facts, placed: dict[str, Any]) -> None:
    from pipelines.serve.app import Ingress

    deployment_class: Any = serve.deployment(Ingress)
    deployment = deployment_class.options(
        name="ingress",
        max_ongoing_requests=ONGOING,
        ray_actor_options=placed,
        logging_config=LoggingConfig(log_level=logging.WARNING, enable_access_log=False),
    )
    try:
        serve.run(deployment.bind(manager, facts), name=APP, route_prefix="/")
    except RuntimeError as error:
        raise JobFailed(f"Ray Serve does not start: {error}") from error


def _wait_for(loading: Any) -> None:
    """Until the pool is ready."""
    try:
        ray.get(loading)
    except RayTaskError as error:
        if isinstance(error.cause, PacelineError):
            raise error.cause from None
        raise JobFailed(f"the target does not start: {_cause(error)}") from error


def _cause(error: RayError) -> str:
    cause = getattr(error, "cause", None) or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]
