"""The server as an application of Ray Serve, for clusters that start it from a configuration.

`paceline serve` runs for as long as its process. KubeRay's RayService and `serve deploy` give Ray
Serve a configuration instead, and Ray Serve starts, watches and replaces what it names. There are
two deployments: the owner of the pool, and the ingress.
"""

import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from fastapi import FastAPI
from ray import serve

from actors.pool.manager import Manager
from cluster.placement import selector
from cluster.roles import ROLES
from models.errors import InvalidOption
from pipelines.checkpoints import with_local
from pipelines.options import as_dict, from_mapping
from pipelines.serve.access import LOOPBACK, read_key_hashes
from pipelines.serve.app import build_app
from pipelines.serve.config import ServeConfig
from pipelines.serve.exchange import Exchange
from pipelines.serve.server import (
    APP,
    ONGOING,
    engine_of,
    facts_of,
    most_unfinished,
    sizes_of,
)

IMPORT_PATH = "pipelines.serve.application:build"
CLUSTER = "auto"  # the cluster that Ray Serve runs on


class Owner(Manager):
    """Owns the pool. It is ready when the target has loaded; Ray Serve replaces one that failed."""

    async def __init__(self, config: ServeConfig) -> None:  # type: ignore[misc]  # Serve awaits it
        config = with_local(config)
        super().__init__(max_unfinished=most_unfinished(config))
        await self.start(engine_of(config), sizes_of(config))

    async def check_health(self) -> None:
        """Raises the pool's failure."""
        await self.describe()


@serve.ingress()
class Endpoint:
    """Answers HTTP; `owner`: a handle of the other deployment."""

    def __init__(self, owner: Any, config: ServeConfig) -> None:
        self._owner, self._config = owner, with_local(config)

    def __serve_build_asgi_app__(self) -> FastAPI:  # the name that Ray Serve looks for
        """Called by Ray Serve once the replica runs."""
        file = self._config.api_key_file
        facts = facts_of(self._config, read_key_hashes(file) if file else ())
        return build_app(Exchange(self._owner, f"ingress-{uuid.uuid4().hex}"), facts)


def build(args: Mapping[str, Any]) -> Any:
    """The application; `args` are options of `paceline serve`, by their names in YAML.

    Raises InvalidOption for an option that does not exist or is out of range, and without keys
    where `host` is not given: Ray Serve does not tell on which addresses it listens.
    """
    given = from_mapping(ServeConfig, args)
    if given.api_key_file is None and "host" not in args:
        told = f"an address of this machine alone ({', '.join(LOOPBACK)}), or set api_key_file"
        raise InvalidOption("host", None, told)
    config = replace(given, address=CLUSTER, model_name=given.name)
    options = {
        "max_ongoing_requests": ONGOING,
        "ray_actor_options": {
            "num_cpus": ROLES["serve"].num_cpus,
            "label_selector": selector("serve") or None,
        },
    }
    owner: Any = serve.deployment(Owner)
    ingress: Any = serve.deployment(Endpoint)
    pool = owner.options(name="owner", **options).bind(config)
    return ingress.options(name="ingress", **options).bind(pool, config)


def serve_config(config: ServeConfig) -> dict[str, Any]:
    """The configuration of Ray Serve that starts this server: a RayService's serveConfigV2."""
    default = as_dict(ServeConfig(target=config.target))
    told = {name: value for name, value in as_dict(config).items() if value != default[name]}
    args = {"target": config.target} | {k: v for k, v in told.items() if k != "address"}
    if config.api_key_file is None:
        args["host"] = config.host
    return {
        "proxy_location": "EveryNode",
        "http_options": {"host": config.host, "port": config.port},
        "applications": [
            {"name": APP, "route_prefix": "/", "import_path": IMPORT_PATH, "args": args}
        ],
    }
