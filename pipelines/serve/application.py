"""The server as an application of Ray Serve, for clusters that start it from a configuration.

`paceline serve` runs for as long as its process. KubeRay's RayService and `serve deploy` give Ray
Serve a configuration instead, and Ray Serve starts, watches and replaces what it names. There is a
deployment for each model, which owns its pool, and one for the ingress.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve

from actors.manager.manager import Manager
from cluster.placement.placement import selector
from cluster.placement.roles import ROLES
from models.errors import InvalidOption
from pipelines.checkpoints import with_local
from pipelines.serve.app import build_app
from pipelines.serve.config import ServeConfig
from pipelines.serve.door.access import LOOPBACK
from pipelines.serve.generation.facts import known
from pipelines.serve.models import Configs, serve_configs, sharing, told_of
from pipelines.serve.server import (
    APP,
    ONGOING,
    door_of,
    facts_of,
    most_unfinished,
    start_of,
)

IMPORT_PATH = "pipelines.serve.application:build"
CLUSTER = "auto"  # the cluster that Ray Serve runs on
OWNER_S = 300.0  # that requests wait for an owner that is replaced: its pool has to load
LOOK_S = 0.5  # between two looks whether a replica that is stopped has ended its requests


class Owner(Manager):
    """Owns a pool. It is ready when the model has loaded; Ray Serve replaces one that failed."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, configs: Configs, number: int
    ) -> None:
        """Of the model with this number."""
        here = with_local(configs[number])
        configs = (*configs[:number], here, *configs[number + 1 :])
        facts = await asyncio.to_thread(facts_of, here)
        super().__init__(max_unfinished=most_unfinished(here))
        self.fingerprint = known(facts, await self.start(start_of(configs, number))).fingerprint

    async def check_health(self) -> None:
        """Raises the pool's failure."""
        await self.describe()


@serve.ingress()
class Endpoint:
    """Answers HTTP; `owners`: handles of the other deployments, one for each model."""

    def __init__(self, configs: Configs, *owners: Any) -> None:
        self._owners, self._configs = owners, tuple(map(with_local, configs))

    def __serve_build_asgi_app__(self) -> FastAPI:  # the name that Ray Serve looks for
        """Called by Ray Serve once the replica runs."""
        facts = map(facts_of, self._configs)
        models = list(zip(self._owners, facts, strict=True))
        here = ray.get_runtime_context().current_actor
        door = door_of(self._configs[0])
        return build_app(door, models, actor=here, patience_s=OWNER_S)


def build(args: Mapping[str, Any]) -> Any:
    """The application; `args` are options of `paceline serve`, by their names in YAML.

    Where Ray Serve replaces what runs, because other options were deployed, an ingress ends its
    streams within `drain_seconds`, beside its successor. There is one owner of a pool at a time:
    ingresses wait for the next one, and hand it the rest of each request.

    Raises InvalidOption for an option that does not exist or is out of range, for `learn`, and
    without keys where `host` is not given: Ray Serve does not tell on which addresses it listens.
    """
    given = serve_configs(args)
    _refuse_unhonoured(given)
    if given[0].api_key_file is None and "host" not in args:
        told = f"an address of this machine alone ({', '.join(LOOPBACK)}), or set api_key_file"
        raise InvalidOption("host", None, told)
    configs = tuple(replace(each, address=CLUSTER, model_name=each.name) for each in given)
    configs = sharing(configs, cores=None)
    options = {
        "max_ongoing_requests": ONGOING,
        "graceful_shutdown_wait_loop_s": LOOK_S,
        "ray_actor_options": {
            "num_cpus": ROLES["serve"].num_cpus,
            "label_selector": selector("serve") or None,
        },
    }
    owner: Any = serve.deployment(Owner)
    ingress: Any = serve.deployment(Endpoint)
    pools = [
        owner.options(name=f"owner-{number}", **options).bind(configs, number)
        for number in range(len(configs))
    ]
    options |= {
        "num_replicas": given[0].ingresses,
        "max_surge_percent": 100,  # else the only one would stop before its successor starts
        "graceful_shutdown_timeout_s": given[0].drain_seconds,
    }
    return ingress.options(name="ingress", **options).bind(configs, *pools)


def serve_config(*configs: ServeConfig) -> dict[str, Any]:
    """The configuration of Ray Serve that starts this server: a RayService's serveConfigV2.

    Raises InvalidOption for a server that learns.
    """
    _refuse_unhonoured(configs)
    first = configs[0]
    args = {name: value for name, value in told_of(configs).items() if name != "address"}
    if first.api_key_file is None:
        args["host"] = first.host
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": first.host, "port": first.port},
        "applications": [
            {"name": APP, "route_prefix": "/", "import_path": IMPORT_PATH, "args": args}
        ],
    }


def _refuse_unhonoured(configs: Configs) -> None:
    for config in configs:
        if config.learn is not None:
            told = "none: a server that Ray Serve starts has no process that trains; see /drafter"
            raise InvalidOption("learn", config.learn, told)
