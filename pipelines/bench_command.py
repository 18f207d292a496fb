"""`paceline bench` as a command: should I draft, with what, how much?"""

import argparse
from collections.abc import Callable, Mapping
from typing import Any

from pipelines.bench_config import BenchConfig, Workload
from pipelines.flags import add_flags, given, read_yaml
from pipelines.options import from_mapping

ABOUT = """\
Measure recipes side by side on your own model and prompts: should I draft, with what, how much?

Runs the same prompts through every drafter, draft size and batch size in turn, in this process
(token loops without Ray), prints one table and a recommendation, and writes both with a plot.
"""
EXAMPLE = """\
example: is prompt lookup worth it, is a draft model, and how many tokens ahead?

  paceline bench --target examples/models/text-target \\
      --drafter lookup --drafter examples/models/text-draft \\
      --input examples/prompts.jsonl --batch-sizes 1 8 --draft-tokens auto 2 4 --draft-widths 1 4

Plain decoding is always measured, too. `--draft-tokens auto` lets the controller choose tokens and
width every round. In a file: --config bench.yaml, with lines such as `drafter: [lookup]`.
"""


def register(subparsers: "argparse._SubParsersAction[argparse.ArgumentParser]") -> None:
    """Add the subcommand."""
    parser = subparsers.add_parser(
        "bench",
        help="measure whether, with what and how much to draft",
        description=ABOUT,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        allow_abbrev=False,
    )
    parser.add_argument(
        "--config", metavar="FILE.yaml", help="options in a file, named as here with _ for -"
    )
    _add_grid(parser)
    add_flags(parser, Workload)
    parser.set_defaults(run=run)


def _add_grid(parser: argparse.ArgumentParser) -> None:
    """What takes several values; each flag may also be given several times."""
    fields: Mapping[str, Any] = BenchConfig.__dataclass_fields__

    def add(name: str, metavar: str, told: str, kind: Callable[[str], Any] = str) -> None:
        shown = " ".join(map(str, fields[name].default))
        parser.add_argument(
            "--" + name.replace("_", "-"),
            nargs="+",
            action="extend",
            type=kind,
            default=argparse.SUPPRESS,
            metavar=metavar,
            help=f"{told} (default: {shown})",
        )

    add("drafter", "none|lookup|PATH", "who guesses ahead; plain decoding is always measured, too")
    add("draft_tokens", "auto|N", "how many tokens ahead", _number_or_text)
    add("draft_widths", "auto|N", "guesses at each of them (trees; 1: chains)", _number_or_text)
    add("batch_sizes", "N", "completions worked on at once", int)
    add("verify", "RULE", "how guesses are checked: match, rejection, block")


def _number_or_text(text: str) -> int | str:
    return int(text) if text.isdecimal() else text


def config_of(options: argparse.Namespace) -> BenchConfig:
    """The file's options, and before them those of the command line."""
    values = read_yaml(options.config) if options.config else {}
    return from_mapping(BenchConfig, values | given(options, BenchConfig))


def run(options: argparse.Namespace) -> int:
    """Run the bench and print its table."""
    config = config_of(options)
    from pipelines.bench import bench

    found = bench(config)
    print(found.text())
    print(f"\nwritten to {config.output}: bench.md, bench.json, bench.png")
    return 0
