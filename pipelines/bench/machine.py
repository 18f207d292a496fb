"""The machine that a measurement was taken on, in words and as JSON."""

import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from pipelines.generate.reporting.summary import versions

CPUINFO = Path("/proc/cpuinfo")


@dataclass(frozen=True, slots=True, kw_only=True)
class Machine:
    """What decides speed here; `avx512` and `amx` decide what half precision costs on a CPU."""

    cpu: str
    cores: int
    threads: int
    memory_gib: float
    avx2: bool
    avx512: bool
    amx: bool
    gpu: str | None
    versions: dict[str, str]

    def as_dict(self) -> dict[str, Any]:
        """As JSON holds it."""
        return asdict(self)

    def line(self) -> str:
        """For the head of a table."""
        flags = [f"{name} {'yes' if has else 'no'}" for name, has in self._flags().items()]
        parts = [f"{self.cpu}, {self.cores} cores", f"{self.memory_gib:.0f} GiB", *flags]
        parts += [self.gpu] if self.gpu else []
        parts += [f"{self.threads} torch threads"]
        parts += [f"{name} {version}" for name, version in self.versions.items()]
        return ", ".join(parts)

    def _flags(self) -> dict[str, bool]:
        return {"AVX2": self.avx2, "AVX-512": self.avx512, "AMX": self.amx}


def this_machine() -> Machine:
    """The machine that runs this."""
    import psutil
    import torch

    text = CPUINFO.read_text() if CPUINFO.exists() else ""
    flags = set(_field(text, "flags").split())
    return Machine(
        cpu=_field(text, "model name") or platform.processor() or platform.machine(),
        cores=os.cpu_count() or 1,
        threads=torch.get_num_threads(),
        memory_gib=psutil.virtual_memory().total / 2**30,
        avx2="avx2" in flags,
        avx512="avx512f" in flags,
        amx="amx_tile" in flags,
        gpu=torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        versions=versions(),
    )


def _field(cpuinfo: str, name: str) -> str:
    """The first CPU's value of a field of /proc/cpuinfo."""
    for line in cpuinfo.splitlines():
        key, _, value = line.partition(":")
        if key.strip() == name:
            return value.strip()
    return ""
