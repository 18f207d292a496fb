"""How much memory the KV caches of a process may take: an amount, or a share of what is free."""

import os
import re
from pathlib import Path

from models.errors import InvalidOption
from models.memory.blocks import BLOCK, num_blocks

DEFAULT_SHARE = 0.5
ACCEPTED = "an amount such as 8GiB or 500MB, or a share of the free memory, above 0 and at most 1"
UNITS = {"": 1, "K": 10**3, "M": 10**6, "G": 10**9, "T": 10**12}
UNITS |= {"Ki": 2**10, "Mi": 2**20, "Gi": 2**30, "Ti": 2**40}
GROUPS = Path("/sys/fs/cgroup")
# The limit and the use of a container's memory, as version 2 and version 1 name them.
LIMITS = (
    ("memory.max", "memory.current"),
    ("memory/memory.limit_in_bytes", "memory/memory.usage_in_bytes"),
)


def parse_memory(memory: str | float | None) -> int | float:
    """Bytes, or a share of the free memory; None: half of it.

    Raises:
        InvalidOption: it is neither.
    """
    if memory is None:
        return DEFAULT_SHARE
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?(?:([KMGT]i?)?B)?", str(memory).strip())
    if found is None:
        raise InvalidOption("memory", memory, ACCEPTED)
    number, unit = float(found[1]), found[2]
    if str(memory).strip().endswith("B"):
        amount = int(number * UNITS[unit or ""])
        if amount > 0:
            return amount
    elif 0 < number <= 1:
        return number
    raise InvalidOption("memory", memory, ACCEPTED)


def divided(memory: str | float | None, among: int) -> str | float | None:
    """What each of several processes on a machine takes: an amount, or its part of a share."""
    parsed = parse_memory(memory)
    return memory if isinstance(parsed, int) or among == 1 else f"{parsed / among:.9f}".rstrip("0")


def budget_bytes(memory: str | float | None, device: str) -> int:
    """The bytes that an option stands for on a device ("cpu", "cuda")."""
    parsed = parse_memory(memory)
    return parsed if isinstance(parsed, int) else int(parsed * free_bytes(device))


def pool_entries(budget: int, bytes_per_entry: int, *, rows: int, longest: int) -> int:
    """Entries of a pool: all of `rows` with `longest` each, or as many as the budget pays for."""
    full = rows * num_blocks(longest) * BLOCK
    paid = budget // max(bytes_per_entry * BLOCK, 1) * BLOCK
    return full if bytes_per_entry == 0 else min(full, paid)


def memory_for(tokens: int, bytes_per_entry: int) -> str:
    """The least amount, as `--memory` takes it, that pays for the entries of so many tokens."""
    needed = num_blocks(tokens) * BLOCK * bytes_per_entry
    return f"{-(-needed // 2**20)}MiB"


def free_bytes(device: str) -> int:
    """Memory that is free now: of the GPU, or of this machine and its container."""
    if device == "cuda":
        import torch

        return int(torch.cuda.mem_get_info()[0])
    return min([_free_of_machine(), *_free_of_containers()])


def _free_of_machine() -> int:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="utf-8").splitlines()
        values = dict(line.split(":", 1) for line in lines)
        return int(values["MemAvailable"].split()[0]) * 1024
    except (OSError, KeyError):  # not Linux
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")


def _free_of_containers() -> list[int]:
    free = []
    for limit, used in LIMITS:
        try:
            limited = (GROUPS / limit).read_text(encoding="utf-8").strip()
            taken = int((GROUPS / used).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            continue
        if limited.isdecimal():  # "max": no limit
            free.append(max(int(limited) - taken, 0))
    return free
