"""`paceline serve` as a command."""

import argparse
import json
import time
from dataclasses import replace

from pipelines.engine_options import processes
from pipelines.flags import Subparsers, add_command, read_options
from pipelines.options import from_mapping
from pipelines.serve.config import ServeConfig

ABOUT = """\
Serve a text or image model over HTTP, with the interface of OpenAI's API.

A drafter makes answers faster and changes no token. The `seed` of a request
decides its answer: the seed of a row that `paceline generate` wrote gives the
text of that row, streamed or not, whatever else the server does meanwhile.
Where a request has no seed, one is drawn and returned. A target process that
dies is replaced, and its streams continue where they were.
"""
EXAMPLE = """\
example: serve a model with a draft model, and ask it

  paceline serve --target examples/models/text-target \\
      --drafter examples/models/text-draft

  curl http://127.0.0.1:8000/v1/completions -H 'Content-Type: application/json' \\
      -d '{"prompt": "Once upon a time", "max_tokens": 32, "seed": 1}'

example: the same from Python, with the package openai

  client = openai.OpenAI(base_url="http://127.0.0.1:8000/v1", api_key="none")
  client.completions.create(model="text-target", prompt="Once upon a time")

example: for other machines, with an API key

  printf %s "$KEY" | sha256sum > keys.txt
  paceline serve --target PATH --host 0.0.0.0 --api-key-file keys.txt

Ctrl-C stops the server. Fields of requests, and what is refused: docs/serve.md.
"""
# What is printed once the server is ready, by the kind of its target.
EXAMPLES = {
    "text": ("/v1/completions", {"prompt": "Once upon a time", "max_tokens": 32, "seed": 1}),
    "images": ("/v1/images/generations", {"prompt": "3", "seed": 1}),
}


def register(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_command(
        subparsers,
        "serve",
        ServeConfig,
        run=run,
        usage="paceline serve --target PATH [--drafter ...] [options]",
        summary="answer requests over HTTP, as OpenAI's API does",
        about=ABOUT,
        example=EXAMPLE,
        line="port: 8000",
    )
    parser.add_argument(
        "--build",
        metavar="FILE",
        help="write the configuration with which Ray Serve, or KubeRay's RayService, starts this "
        "server, and exit; the paths in it are those of the cluster's nodes",
    )


def config_of(options: argparse.Namespace) -> ServeConfig:
    """The file's options, and before them those of the command line."""
    return from_mapping(ServeConfig, read_options(options, ServeConfig))


def _build(config: ServeConfig, file: str) -> int:
    """Write the configuration and say how it is used."""
    import yaml

    from cluster import storage
    from pipelines.serve.application import serve_config

    text = yaml.safe_dump(serve_config(config), sort_keys=False)
    storage.publish(storage.normalize(file), text.encode())
    print(f"{file}: for `serve deploy {file}`, or the serveConfigV2 of a RayService")
    return 0


def run(options: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    config, began = config_of(options), time.monotonic()
    if options.build is not None:
        return _build(config, options.build)
    from pipelines.checkpoints import with_local
    from pipelines.serve.check import check

    config = with_local(replace(config, model_name=config.name))
    check(config)
    from cluster.connect import connected
    from pipelines.interruption import interrupted_with
    from pipelines.serve.server import serving

    with (
        interrupted_with(lambda: "the server has stopped"),
        connected(config.address, min_cpus=processes(config) + 1),
        serving(config) as server,
    ):
        path, body = EXAMPLES[server.facts.kind]
        key = "" if config.api_key_file is None else " -H 'Authorization: Bearer KEY'"
        print(f"serving {config.name} at {server.url} after {time.monotonic() - began:.0f} s")
        print(f"  curl {server.url}{path}{key} -H 'Content-Type: application/json' \\")
        print(f"      -d '{json.dumps(body)}'", flush=True)
        server.wait()
    return 0
