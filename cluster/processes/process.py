"""Which process on which machine, and whether it is known to have ended."""

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Self

PROC = Path("/proc")


@dataclass(frozen=True, slots=True, kw_only=True)
class Process:
    """`machine`: equal only where process ids mean the same; `started` tells ids used again apart.

    `started` is in the kernel's ticks since its start; None where the system does not say.
    """

    host: str
    machine: str
    pid: int
    started: int | None

    @classmethod
    def this(cls) -> Self:
        """The process that asks."""
        pid = os.getpid()
        found = _state(pid)
        started = found[1] if found else None
        return cls(host=platform.node(), machine=_machine(), pid=pid, started=started)

    @property
    def is_local(self) -> bool:
        """Whether it ran on this machine since its last start, under the same process ids."""
        return self.machine == _machine()

    @property
    def has_ended(self) -> bool:
        """Whether that is certain: of other machines nothing is known here."""
        if not self.is_local:
            return False
        if not PROC.is_dir():
            return not _exists(self.pid)
        found = _state(self.pid)
        return found is None or found[0] in "ZX" or found[1] != self.started


def _machine() -> str:
    """One start of one kernel, and one of its tables of process ids (containers have their own)."""
    try:
        boot = (PROC / "sys/kernel/random/boot_id").read_text().strip()
        return f"{boot} {os.readlink('/proc/self/ns/pid')}"  # noqa: PTH115 - no path
    except OSError:
        return platform.node()


def _state(pid: int) -> tuple[str, int] | None:
    """(state letter, start in ticks) of a process of this machine; None if there is none."""
    try:
        fields = (PROC / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return None
    return fields[0], int(fields[19])


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
