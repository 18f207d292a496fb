"""The `paceline` command: finds the subcommand, turns errors into one line and an exit code.

0: done; a warning counts the rows that failed. 1: the job had to stop, or no row succeeded. 2: bad
usage or bad input. 3: done, but rows failed for reasons that may pass. 130, 143: stopped by Ctrl-C
or SIGTERM.
"""

import argparse
import difflib
import importlib
import os
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

from cluster.errors import ClusterError, StorageError
from models.errors import PacelineError
from pipelines.interruption import leave_if_interrupted, obey_signals

# Modules with `register(subparsers)`: each adds its subcommand and sets `run`, a function of the
# parsed options that returns the exit code. They import what is heavy only when run.
COMMANDS = (
    "pipelines.generate_command",
    "pipelines.bench_command",
    "pipelines.evaluate_command",
    "pipelines.convert",
)


class Parser(argparse.ArgumentParser):
    """Says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        """Exit with code 2."""
        self.exit(2, f"{self.prog}: {message} (see {self.prog} --help)\n")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run a command line and return its exit code; without `arguments`, be the program."""
    return _program() if arguments is None else _run(arguments)


def _program() -> int:
    """The process's own command line: obeys signals, and never starts Ray by accident."""
    os.environ.setdefault("RAY_ENABLE_AUTO_CONNECT", "0")
    obey_signals()
    try:
        return _run(sys.argv[1:])
    except BaseException:
        leave_if_interrupted()
        raise


def _run(arguments: Sequence[str]) -> int:
    options = parse(arguments)
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
        known = [name for action in command._actions for name in action.option_strings]
        found = difflib.get_close_matches(unknown[0].partition("=")[0], known, n=1)
        nearest = f"; did you mean {found[0]}?" if found else ""
        command.error(f"there is no option {unknown[0]}{nearest}")
    return options


def _parsers() -> tuple[argparse.ArgumentParser, Mapping[str, argparse.ArgumentParser]]:
    """The program's parser and its commands'."""
    parser = Parser(
        prog="paceline",
        description="Faster autoregressive generation on Ray, with the model's own output.",
        epilog="example:\n  paceline generate --help",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = parser.add_subparsers(
        title="commands", metavar="COMMAND", dest="command", required=True
    )
    for name in COMMANDS:
        importlib.import_module(name).register(subparsers)
    return parser, subparsers.choices


if __name__ == "__main__":
    sys.exit(main())
