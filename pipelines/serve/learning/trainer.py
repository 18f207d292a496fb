"""The process of a round: started, asked for its verdict, started again where it was killed."""

import os
import subprocess
import sys
from pathlib import Path

import pipelines
from pipelines.serve.learning.decision import Decision
from pipelines.serve.learning.verdict import REFUSED, read_verdict

LOG = "log.txt"
STARTS = 3  # of a round's process, before the round counts as failed
MODULE = "pipelines.serve.learning.teach"


class Trainer:
    """Trains in a round's folder, which holds its lesson."""

    def __init__(self, folder: Path) -> None:
        self.folder, self._starts = folder, 0
        self._process = self._start()

    def _start(self) -> "subprocess.Popen[bytes]":
        self._starts += 1
        root = str(Path(pipelines.__path__[0]).parent)
        paths = [root, *filter(None, [os.environ.get("PYTHONPATH")])]
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "OMP_NUM_THREADS": "1"}
        with (self.folder / LOG).open("ab") as log:
            return subprocess.Popen(
                [sys.executable, "-m", MODULE, str(self.folder), str(os.getpid())],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
            )

    @property
    def pid(self) -> int:
        """Of the process that trains now."""
        return self._process.pid

    def verdict(self) -> Decision | None:
        """None while it trains.

        Raises RuntimeError: the process has ended without one, and started again it would, too.
        """
        code = self._process.poll()
        if code is None:
            return None
        found = read_verdict(self.folder)
        if found is None and code != REFUSED and self._starts < STARTS:
            self._process = self._start()
        elif found is None:
            lines = (self.folder / LOG).read_text("utf-8", "replace").strip().splitlines()
            raise RuntimeError(lines[-1] if lines else f"the process ended with {code}")
        return found

    def stop(self) -> None:
        """End the process; another one goes on from its newest state."""
        self._process.kill()
        self._process.wait()
