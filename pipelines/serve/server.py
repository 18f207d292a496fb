"""A running server: for each model a manager with its pool, and the ingress on Ray Serve."""

import logging
import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from functools import partial
from importlib import metadata
from pathlib import Path
from typing import Any

import ray
from ray import serve
from ray.exceptions import GetTimeoutError, RayError, RayTaskError
from ray.serve.config import HTTPOptions
from ray.serve.schema import LoggingConfig

from actors.manager.manager import Manager
from actors.manager.served import ServedPool
from actors.pool.pool import TargetPool
from cluster.head import head_address, is_here
from cluster.placement.placement import gpus_each, selector
from cluster.placement.roles import ROLES
from models.engine_config import EngineConfig
from models.errors import PacelineError
from models.exactness import IDENTICAL, ROUNDED, STEADY
from models.registry import GUMBEL
from pipelines.engine_options import processes, reserved_cpus
from pipelines.errors import JobFailed
from pipelines.generate.fingerprint import (
    checkpoint_digest,
    needs_torch,
    ranks_of,
    student_noise,
    versions,
)
from pipelines.interruption import Drain
from pipelines.modality.choose import modality
from pipelines.serve.address import Address, address_of
from pipelines.serve.check import check, check_port, max_steps
from pipelines.serve.config import ServeConfig
from pipelines.serve.door.access import ADMIN, PRIORITY, read_key_hashes, read_marked_hashes
from pipelines.serve.door.door import Door
from pipelines.serve.door.limits import Limits
from pipelines.serve.drain import ANSWER_S, drain
from pipelines.serve.generation.facts import Facts, fingerprint_of
from pipelines.serve.learning.beside import Lessons, lessons
from pipelines.serve.learning.lesson import COURSE, Course
from pipelines.serve.models import Configs, sharing

APP = "paceline"
ONGOING = 10_000  # HTTP requests at once; the manager's queue is what bounds them
CHECK_S = 1.0
CORES_OF_THE_SERVER = 1  # for HTTP and Ray: models' threads that must share one wait for each other


@dataclass(frozen=True, slots=True, kw_only=True)
class Running:
    """A model that is served. `manager`: the actor that owns its pool."""

    facts: Facts
    manager: Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Server:
    """`url`: where it listens. `note`: what to know of that; mostly empty."""

    url: str
    models: tuple[Running, ...]
    note: str = ""
    lessons: Lessons | None = None

    def wait(self, stop: Drain) -> None:
        """Until it is asked to stop. Raises JobFailed if a pool fails before."""
        while not stop.asked:
            self.look()
            stop.wait(CHECK_S)

    def drain(self, within_s: float) -> int | None:
        """Refuse new requests, and wait for those that have begun; what is learned from is kept.

        Returns the completions that are left; None: a manager does not answer. Raises JobFailed if
        a pool has failed.
        """
        try:
            left = drain([model.manager for model in self.models], within_s)
        except RayError as error:
            raise JobFailed(f"the server stopped: {_cause(error)}") from error
        if self.lessons is not None and left is not None:
            self.lessons.record(self.models[self.lessons.number].manager)
        if left == 0:
            serve.shutdown()  # ingresses that outlive their managers would warn of that
        return left

    def look(self) -> None:
        """Let the server learn. Raises JobFailed if a pool has failed.

        A manager that does not answer soon is passed over: `wait` must see that it is to stop.
        """
        for model in self.models:
            try:
                ray.get(model.manager.describe.remote(), timeout=ANSWER_S)
            except GetTimeoutError:
                return
            except RayError as error:
                told = f"{model.facts.name}: {_cause(error)}"
                raise JobFailed(f"the server stopped: {told}") from error
        if self.lessons is not None:
            self.lessons.look(self.models[self.lessons.number].manager)


@contextmanager
def serving(*configs: ServeConfig, course: Course = COURSE) -> Iterator[Server]:
    """A server that is ready, on the cluster that this process is connected to.

    Options of servers are those of the first model. A model with `learn` is taught by `course`;
    `Server.look` is to be called now and then. Raises what `check` and TargetPool.start raise,
    InvalidOption if another server learns in the folder, JobFailed if Serve does not start, and
    CannotConnect if a given cluster has no head node.
    """
    check(configs)
    _refuse_other_serve()
    with lessons(configs, course) as (now, learner), _serving(now) as server:
        yield replace(server, lessons=learner)


@contextmanager
def _serving(configs: Configs) -> Iterator[Server]:
    """The same without a learner."""
    door, address = door_of(configs[0]), _address(configs[0])
    cores = len(os.sched_getaffinity(0)) - CORES_OF_THE_SERVER
    configs = sharing(configs, cores=None if configs[0].address else max(1, cores))
    managers = [_manager(config) for config in configs]
    try:
        loading = [m.start.remote(start_of(configs, i)) for i, m in enumerate(managers)]
        models = tuple(
            Running(facts=facts_of(config), manager=manager)
            for config, manager in zip(configs, managers, strict=True)
        )
        _start_serve(configs[0])
        _deploy(door, models, configs[0].ingresses)
        for model, answer in zip(models, loading, strict=True):
            _wait_for(model.facts.name, answer)
        yield Server(url=address.url, note=address.note, models=models)
    finally:
        for manager in managers:
            with suppress(RayError):
                ray.kill(manager)
        serve.shutdown()


def _address(config: ServeConfig) -> Address:
    """Where the cluster will listen. Raises CannotConnect, and InvalidOption for a port in use."""
    if config.address is None:
        return address_of(config, None)
    head = head_address()
    if not is_here(head):
        return address_of(config, head)
    check_port(config)
    return address_of(config, None)


def _manager(config: ServeConfig) -> Any:
    manager_class: Any = ray.remote(Manager)
    return manager_class.options(**_placed()).remote(
        max_unfinished=most_unfinished(config),
        model=config.name,
        records=config.learn is not None,
    )


def _placed() -> dict[str, Any]:
    return {"num_cpus": ROLES["serve"].num_cpus, "label_selector": selector("serve") or None}


def door_of(config: ServeConfig) -> Door:
    """What all models share. Raises InvalidOption if the file of keys cannot be used."""
    file = config.api_key_file
    return Door(
        max_body_bytes=config.max_body_bytes,
        limits=Limits(per_client=config.max_per_key, seconds=config.max_seconds),
        key_hashes=read_key_hashes(file) if file else (),
        urgent_hashes=read_marked_hashes(file, PRIORITY) if file else (),
        admin_hashes=read_marked_hashes(file, ADMIN) if file else (),
    )


def start_of(configs: Configs, number: int) -> Callable[[], ServedPool]:
    """What starts the pool of one of the models, in the process that owns it.

    Only this model's checkpoint has to be on this machine.
    """
    config = configs[number]
    if config.student is not None:
        from actors.pool.students import StudentPool

        return partial(
            StudentPool.start,
            str(Path(config.student).absolute()),
            steps=config.steps,
            actors=config.target_actors,
            batch_size=config.batch_size,
            threads=config.threads,
            num_cpus=reserved_cpus(config),
        )
    gpus = _gpus_each(configs) if config.device != "cpu" else 0.0
    return partial(
        TargetPool.start,
        engine_of(config),
        target_actors=config.target_actors,
        max_target_actors=config.max_target_actors,
        draft_actors=config.draft_actors,
        num_cpus=reserved_cpus(config),
        num_gpus=gpus,
        draft_gpus=gpus,
    )


def _gpus_each(configs: Configs) -> float:
    """Of each target and draft actor: the models share the GPUs."""
    users = [config for config in configs if config.device != "cpu" and config.student is None]
    device = "cuda" if any(config.device == "cuda" for config in users) else "auto"
    whole = any(config.tensor_parallel > 1 for config in users)
    return gpus_each(actors=sum(map(processes, users)), device=device, whole=whole)


def engine_of(config: ServeConfig) -> EngineConfig:
    """Image targets name the scale of their guidance."""
    about = getattr(modality(config.target), "about", None)
    return config.engine() if about is None else replace(config.engine(), guidance=about.guidance)


def facts_of(config: ServeConfig) -> Facts:
    """What an ingress must know."""
    checkpoint, is_student = str(Path(config.checkpoint).absolute()), config.student is not None
    return Facts(
        name=config.name,
        checkpoint=checkpoint,
        kind=modality(checkpoint).kind,
        fingerprint=fingerprint(config),
        others=_others(config),
        # Each target tries out what is fastest: the next one may compute otherwise.
        exactness=IDENTICAL if config.arithmetic == STEADY else ROUNDED,
        created=int(time.time()),
        max_unfinished=most_unfinished(config),
        steps=config.steps if is_student else 0,
        max_steps=max_steps(checkpoint) if is_student else 0,
    )


def fingerprint(config: ServeConfig) -> str:
    """What decides the text of an exact answer besides the body: weights, arithmetic, noise."""
    served, student = replace(config, target=config.checkpoint), config.student
    used = versions(served, torch=needs_torch(student))
    parts: dict[str, Any] = {
        "target": checkpoint_digest(served.target),
        "versions": used | {"llguidance": metadata.version("llguidance")},
        "arithmetic": config.arithmetic,
        "dtype": config.dtype,
        **ranks_of(config),
        "noise": GUMBEL if student is None else student_noise(student),
    }
    if student is not None:
        parts["steps"] = config.steps
    return fingerprint_of(parts)


def _others(config: ServeConfig) -> str:
    """What besides decides an answer that is not exact, as far as options and libraries tell."""
    drafter = config.drafter
    if Path(drafter).is_dir():
        drafter = checkpoint_digest(drafter, role="draft")
    parts = {"verify": config.verify, "drafter": drafter, "torch": metadata.version("torch")}
    return fingerprint_of(
        {**parts, "draft_tokens": config.draft_tokens, "draft_width": config.draft_width}
    )


def most_unfinished(config: ServeConfig) -> int:
    """Completions that may run or wait."""
    actors = config.max_target_actors or config.target_actors
    return config.batch_size * actors + config.max_queued


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
    with _explained():
        serve.start(http_options=http, logging_config=quiet)


def _deploy(door: Door, models: Sequence[Running], ingresses: int) -> None:
    from pipelines.serve.app import Ingress

    deployment_class: Any = serve.deployment(Ingress)
    deployment = deployment_class.options(
        name="ingress",
        num_replicas=ingresses,
        max_ongoing_requests=ONGOING,
        ray_actor_options=_placed(),
        logging_config=LoggingConfig(log_level=logging.WARNING, enable_access_log=False),
    )
    with _explained():
        bound = deployment.bind(door, [(model.manager, model.facts) for model in models])
        serve.run(bound, name=APP, route_prefix="/")


@contextmanager
def _explained() -> Iterator[None]:
    """What Serve raises, as JobFailed."""
    try:
        yield
    except (RuntimeError, RayError, TimeoutError) as error:
        raise JobFailed(f"Ray Serve does not start: {_cause(error)}") from error


def _wait_for(name: str, loading: Any) -> None:
    """Until the pool is ready."""
    try:
        ray.get(loading)
    except RayTaskError as error:
        if isinstance(error.cause, PacelineError):
            raise error.cause from None
        raise JobFailed(f"{name} does not start: {_cause(error)}") from error


def _cause(error: Exception) -> str:
    cause = getattr(error, "cause", None) or error
    return (str(cause).strip().splitlines() or [type(cause).__name__])[0]
