"""The server as an application of Ray Serve, for clusters that start it from a configuration.

`paceline serve` runs for as long as its process. KubeRay's RayService and `serve deploy` give Ray
Serve a configuration instead, and Ray Serve starts, watches and replaces what it names. There is a
deployment for each model, which owns its pool, and one for the ingress.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve

from actors.pool.manager import Manager
from cluster.placement import selector
from cluster.roles import ROLES
from models.errors import InvalidOption
from pipelines.checkpoints import with_local
from pipelines.serve.access import LOOPBACK
from pipelines.serve.app import build_app
from pipelines.serve.config import ServeConfig
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


class Owner(Manager):
    """Owns a pool. It is ready when the model has loaded; Ray Serve replaces one that failed."""

    async def __init__(  # type: ignore[misc]  # Serve awaits it
        self, configs: Configs, number: int
    ) -> None:
        """Of the model with this number."""
        here = with_local(configs[number])
        configs = (*configs[:number], here, *configs[number + 1 :])
        super().__init__(max_unfinished=most_unfinished(here))
        await self.start(start_of(configs, number))

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
        return build_app(door_of(self._configs[0]), models, here)


def build(args: Mapping[str, Any]) -> Any:
    """The application; `args` are options of `paceline serve`, by their names in YAML.

    Raises InvalidOption for an option that does not exist or is out of range, for `learn` and
    `drain_seconds`, and without keys where `host` is not given: Ray Serve does not tell on which
    addresses it listens.
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
    replicas = given[0].ingresses
    return ingress.options(name="ingress", num_replicas=replicas, **options).bind(configs, *pools)


def serve_config(*configs: ServeConfig) -> dict[str, Any]:
    """The configuration of Ray Serve that starts this server: a RayService's serveConfigV2.

    Raises InvalidOption for a server that learns, or has its own time to drain.
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
        default = ServeConfig.__dataclass_fields__["drain_seconds"].default
        if config.drain_seconds != default:
            told = f"{default}: Ray Serve stops what it has started by its own rules"
            raise InvalidOption("drain_seconds", config.drain_seconds, told)
        if config.learn is not None:
            told = "none: a server that Ray Serve starts has no process that trains; see /drafter"
            raise InvalidOption("learn", config.learn, told)
