"""The `paceline` command: finds the subcommand, turns errors into one line and an exit code.

0: done; a warning counts the rows that failed. 1: the job had to stop, or no row succeeded. 2: bad
usage or bad input. 3: done, but rows failed for reasons that may pass. 130, 143: stopped by Ctrl-C
or SIGTERM.
"""

import argparse
import difflib
import importlib
import os
import platform
import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import metadata
from typing import NoReturn

from cluster import logs
from cluster.errors import ClusterError, StorageError
from cluster.processes.descendants import share_cores
from models.errors import PacelineError
from pipelines.interruption import leave_if_interrupted, obey_signals

# Modules with `register(subparsers)`: each adds its subcommand and sets `run`, a function of the
# parsed options that returns the exit code. They import what is heavy only when run.
COMMANDS = (
    "pipelines.generate.command",
    "pipelines.serve.command",
    "pipelines.bench.command",
    "pipelines.distill.command",
    "pipelines.evaluate.command",
    "pipelines.convert",
    "pipelines.plan.command",
    "pipelines.top.command",
    "pipelines.check.command",
)

PACKAGES = ("ray", "torch", "transformers")
ABOUT = """\
Generate text and images with your own autoregressive models, faster, on one
machine or a Ray cluster. Drafters propose tokens ahead and the target model
checks them, so the output is the target's own: with one seed, the same tokens
whatever the drafter.
"""
EXAMPLE = """\
example: complete prompts, drafting with copies from the text so far

  paceline generate --target examples/models/text-target --drafter lookup \\
      --input examples/prompts.jsonl --output out/completions

Each command explains its options: paceline generate --help
"""


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line, and what may have been meant."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")

    def _check_value(self, action: argparse.Action, value: object) -> None:
        """Refuse what is not among the choices; argparse calls this for options and commands."""
        if action.choices is not None and value not in action.choices:
            known = [str(choice) for choice in action.choices]
            told = f"invalid choice: {value!r} (choose from {', '.join(known)})"
            raise argparse.ArgumentError(action, told + nearest(str(value), known))


def nearest(word: str, known: Iterable[str]) -> str:
    """What was meant, if anything known is like it."""
    found = difflib.get_close_matches(word, list(known), n=1)
    return f"; did you mean {found[0]}?" if found else ""


class Version(argparse.Action):
    """Prints the versions that a bug report needs; looks them up when asked."""

    def __call__(self, *_: object) -> NoReturn:
        """Exit with code 0."""
        versions = ", ".join(f"{name} {version_of(name)}" for name in PACKAGES)
        print(f"paceline {version_of('paceline')} ({versions}, Python {platform.python_version()})")
        sys.exit(0)


def version_of(package: str) -> str:
    """The version that is installed."""
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "(not installed)"


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; without `arguments`, be the program."""
    return _program() if arguments is None else _run(parse(arguments))


def _program() -> int:
    """The process's own command line: obeys signals, and never starts Ray by accident."""
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    share_cores()
    obey_signals()
    try:
        options = parse(sys.argv[1:])
        logs.choose(getattr(options, "log_level", None), getattr(options, "log_format", None))
        logs.set_up_command()
        return _run(options)
    except BaseException:
        leave_if_interrupted()
        raise


def _run(options: argparse.Namespace) -> int:
    try:
        code: int = options.run(options)
        return code
    except (PacelineError, ClusterError) as error:
        leave_if_interrupted()
        print(f"paceline: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError | StorageError) else 1


def parse(arguments: Sequence[str]) -> argparse.Namespace:
    """The options; an unknown one ends the program and names the nearest known one."""
    parser, commands = _parsers()
    options, unknown = parser.parse_known_args(arguments)
    if unknown:
        command: argparse.ArgumentParser = commands[options.command]
        word = unknown[0].partition("=")[0]
        if not word.startswith("-"):
            command.error(f"unexpected argument {word!r}: every value follows its --option")
        known = [name for action in command._actions for name in action.option_strings]
        command.error(f"there is no option {word}{nearest(word, known)}")
    return options


def _parsers() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The program's parser and its commands'."""
    parser = Parser(
        prog="paceline",
        description=ABOUT,
        epilog=EXAMPLE,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=Version, nargs=0, help="show versions and exit")
    subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True
    )
    for name in COMMANDS:
        importlib.import_module(name).register(subparsers)
    return parser, subparsers.choices


if __name__ == "__main__":
    sys.exit(main())
