"""Kills processes of a distillation: a record actor, the driver, a training worker."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import psutil
import ray

from models.training.log import METRICS, read_lines


def run_until_killed(words: Sequence[str], run: Path, *, after: int) -> list[int]:
    """Start the command, SIGKILL its first record actor, then itself after `after` steps.

    It joins this process's cluster. Returns the record actors that were killed, one.
    """
    killed: list[int] = []
    address = ray.get_runtime_context().gcs_address
    program = [sys.executable, "-m", "pipelines.cli", *words, "--address", address]
    process = subprocess.Popen(program, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and not killed:
        _kill("ray::TargetActor", killed)
        time.sleep(0.02)
    while process.poll() is None:
        if len(read_lines(run / "train" / METRICS)) >= after:
            os.kill(process.pid, signal.SIGKILL)
        time.sleep(0.02)
    assert process.returncode == -signal.SIGKILL
    return killed


def kill_a_worker(run: Path, killed: list[int], *, after: int) -> None:
    """SIGKILL the training worker of this process's cluster after `after` steps."""
    while len(read_lines(run / "train" / METRICS)) < after:
        time.sleep(0.05)
    _kill("RayTrainWorker", killed)


def _kill(wanted: str, killed: list[int]) -> None:
    found = kill_one(psutil.Process(), wanted)
    killed += [] if found is None else [found]


def kill_one(driver: psutil.Process, wanted: str) -> int | None:
    """SIGKILL a process below a driver whose command has this text; its id, None without one."""
    for process in driver.children(recursive=True):
        try:
            if wanted in " ".join(process.cmdline()):
                process.send_signal(signal.SIGKILL)
                return process.pid
        except psutil.NoSuchProcess:
            continue
    return None
