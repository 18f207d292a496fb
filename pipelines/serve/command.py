"""`paceline serve` as a command."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from pipelines.engine_options import processes, warn_of_threads
from pipelines.flags import Subparsers, add_command, given, read_options
from pipelines.serve.config import ServeConfig
from pipelines.serve.learning.bounds import MOST_BYTES, MOST_ROWS
from pipelines.serve.models import Configs, serve_configs

if TYPE_CHECKING:  # it loads Ray
    from pipelines.serve.server import Server

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

example: a drafter that learns from what the server answers

  paceline serve --target examples/models/text-target \\
      --drafter examples/models/text-draft --learn out/learned

example: images of a student, which takes one or two passes for each

  paceline serve --student examples/models/digits-raster-student --steps 2

example: several models, which clients choose by `model`

  paceline serve --config models.yaml    # of these lines:
    models:
    - {target: examples/models/text-target, drafter: examples/models/text-draft}
    - {target: examples/models/digits-raster, model_name: digits}

example: for other machines, with an API key

  printf %s "$KEY" | sha256sum > keys.txt
  paceline serve --target PATH --host 0.0.0.0 --api-key-file keys.txt

Ctrl-C stops the server at once, SIGTERM when the answers that it has begun
are complete, within --drain-seconds. Send it to this command alone, not to its
process group. Fields of requests, and what is refused: docs/serve.md.
"""
CLOSING_S = 10.0  # beyond --drain-seconds, after which SIGTERM ends the server whatever it does
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
        usage="paceline serve --target PATH [--drafter ...] | --student PATH [options]",
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


def configs_of(options: argparse.Namespace) -> Configs:
    """Of each model, by the file's options and before them those of the command line."""
    values, flags = read_options(options, ServeConfig), given(options, ServeConfig)
    return serve_configs(values, flags)


def _build(configs: Configs, file: str) -> int:
    """Write the configuration and say how it is used."""
    import yaml

    from cluster.storage import storage
    from pipelines.serve.application import serve_config

    text = yaml.safe_dump(serve_config(*configs), sort_keys=False)
    storage.publish(storage.normalize(file), text.encode())
    print(f"{file}: for `serve deploy {file}`, or the serveConfigV2 of a RayService")
    return 0


def _tell_learning(configs: Configs) -> None:
    """That requests are stored, and where."""
    for config in configs:
        if config.learn is not None:
            told = f"requests to {config.name} are stored as token ids in {config.learn}/rows"
            print(f"  learning: {told}, at most {MOST_ROWS} and {MOST_BYTES >> 20} MiB;")
            print("      one with `store: false`, or a `cache_salt`, is not")


def _cut(left: int | None) -> str:
    if left is None:
        return "a model does not answer: how many completions were cut is not known"
    return f"{left} completions were cut"


def ways(server: "Server", *, key: bool) -> Iterator[str]:
    """How the server is asked, as lines. `key`: one is needed."""
    header = " -H 'Authorization: Bearer KEY'" if key else ""
    for model in server.models:
        path, body = EXAMPLES[model.facts.kind]
        told = body if len(server.models) == 1 else {"model": model.facts.name, **body}
        yield f"  curl {server.url}{path}{header} -H 'Content-Type: application/json' \\"
        yield f"      -d '{json.dumps(told)}'"
    yield f"  playground: {server.url}/"


def run(options: argparse.Namespace) -> int:
    """Serve until a signal comes."""
    configs, began = configs_of(options), time.monotonic()
    if options.build is not None:
        return _build(configs, options.build)
    from pipelines.checkpoints import with_local
    from pipelines.serve.check import check

    configs = tuple(with_local(replace(each, model_name=each.name)) for each in configs)
    check(configs)
    for each in configs:
        warn_of_threads(each)
    from cluster.connect import connected
    from pipelines.interruption import draining, interrupted_with
    from pipelines.serve.server import serving

    names, address = ", ".join(each.name for each in configs), configs[0].address
    ray = "starting Ray" if address is None else f"connecting to Ray at {address}"
    print(f"{ray}, then loading {names} ...", file=sys.stderr, flush=True)
    actors = sum(map(processes, configs))
    with (
        interrupted_with(lambda: "the server has stopped"),
        connected(address, min_cpus=actors + 1),
        serving(*configs) as server,
        draining(configs[0].drain_seconds + CLOSING_S) as stop,
    ):
        seconds = time.monotonic() - began
        print(f"serving {names} at {server.url}{server.note} after {seconds:.0f} s")
        _tell_learning(configs)
        print("\n".join(ways(server, key=configs[0].api_key_file is not None)), flush=True)
        server.wait(stop)
        left = server.drain(configs[0].drain_seconds)
        print(f"the server has stopped; {_cut(left)}", flush=True)
    return 0
