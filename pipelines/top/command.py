"""`paceline top` as a command."""

import argparse
import os
import sys
import time
from collections.abc import Callable

from pipelines.flags import Subparsers, add_parser
from pipelines.top import PLACE

EVERY_S = 2.0
HOME = "\033[H\033[J"  # the cursor goes to the top left, what is below is cleared
ABOUT = """\
Show a running server or job: actors and when one died last, queue, tokens per
second, acceptance, KV cache blocks of each model; or a job's committed rows and
speed.
"""
EXAMPLE = """\
example: a server, then a job on S3

  paceline top http://127.0.0.1:8000
  paceline top s3://bucket/completions

Where the server asks for keys, PACELINE_API_KEY holds one. Ctrl-C ends it.
"""


def register(subparsers: Subparsers) -> None:
    """Add the subcommand."""
    parser = add_parser(
        subparsers,
        "top",
        usage=f"paceline top {PLACE} [--every SECONDS] [--once]",
        summary="show a running server or job in the terminal",
        about=ABOUT,
        example=EXAMPLE,
    )
    parser.add_argument("what", metavar=PLACE, help="a server, or a job's output folder")
    parser.add_argument(
        "--every",
        type=float,
        default=EVERY_S,
        metavar="SECONDS",
        help=f"time between two looks (default: {EVERY_S:.0f})",
    )
    parser.add_argument("--once", action="store_true", help="print one look and exit")
    parser.set_defaults(run=run)


def run(options: argparse.Namespace) -> int:
    """Show it until Ctrl-C; a job until it is done."""
    from models.requests.request import require

    require(options.every > 0, "every", options.every, "above 0")
    look = viewer(options.what)
    live = sys.stdout.isatty() and not options.once
    while True:
        text, done = look()
        print(f"{HOME if live else ''}{options.what}\n{text}", flush=True)
        if options.once or done:
            return 0
        time.sleep(options.every)


def viewer(what: str) -> Callable[[], tuple[str, bool]]:
    """A function that looks and returns the view, and whether there is nothing more to see.

    Raises InvalidOption: it is neither a server nor a job.
    """
    if what.startswith(("http://", "https://")):
        return _server_viewer(what)
    return _job_viewer(what)


def _server_viewer(url: str) -> Callable[[], tuple[str, bool]]:
    from pipelines.top.server import Sample, lines, read_metrics, sample

    seen: list[Sample] = []

    def look() -> tuple[str, bool]:
        now = sample(read_metrics(url, os.environ.get("PACELINE_API_KEY")), time.monotonic())
        text = "\n".join(lines(now, seen[-1] if seen else None))
        seen[:] = [now]
        return text, False

    return look


def _job_viewer(folder: str) -> Callable[[], tuple[str, bool]]:
    from pipelines.top.job import JobFolder, JobState, job_lines

    job = JobFolder(folder)
    seen: list[JobState] = []

    def look() -> tuple[str, bool]:
        now = job.state(time.monotonic())
        text = "\n".join(job_lines(now, seen[-1] if seen else None))
        seen[:] = [now]
        return text, now.is_done

    return look
