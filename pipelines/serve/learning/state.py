"""What a server has learned so far: its folder's state.json, which a restart goes on from."""

import fcntl
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from cluster.storage import storage
from models.errors import InvalidOption

FILE, ROWS, ROUNDS, LOCK = "state.json", "rows", "rounds", "lock"


@dataclass(frozen=True, slots=True, kw_only=True)
class LearnState:
    """`target` and `drafter`: digests of what the server began with.

    `served` and `trainee`: rounds whose drafter is in use, and from whose drafter the next round
    starts; 0: the one that the server began with. `number`: rounds begun. `under_way`: the last one
    has not ended. `rows`: recorded when the last one began. `present` and `new`: its lengths.
    """

    target: str
    drafter: str
    served: int = 0
    trainee: int = 0
    number: int = 0
    under_way: bool = False
    rows: int = 0
    better: int = 0
    no_better: int = 0
    failed: int = 0
    present: float = 0.0
    new: float = 0.0

    def write(self, folder: Path) -> None:
        """In one instant."""
        storage.publish(str(folder / FILE), json.dumps(asdict(self), indent=1).encode() + b"\n")


def open_state(folder: Path, *, target: str, drafter: str) -> LearnState:
    """The state of a folder, new if it has none; `target` and `drafter` are digests.

    Raises InvalidOption: it belongs to another target or drafter, or holds something else.
    """
    file, fresh = folder / FILE, LearnState(target=target, drafter=drafter)
    if not file.exists():
        strange = [path.name for path in folder.iterdir() if path.name != LOCK]
        if strange:
            told = f"a new or empty folder, or one of an earlier run; it holds {strange[0]!r}"
            raise InvalidOption("learn", str(folder), told)
        fresh.write(folder)
        return fresh
    values: dict[str, Any] = json.loads(file.read_text(encoding="utf-8"))
    found = LearnState(**values)
    for name in ("target", "drafter"):
        if getattr(found, name) != getattr(fresh, name):
            told = f"the folder of another {name}: this one has learned with other weights"
            raise InvalidOption("learn", str(folder), told)
    return found


def lock(folder: Path) -> int:
    """Keep other servers out until the file descriptor is closed, or this process ends.

    Raises InvalidOption: another server has the folder.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)  # it holds what clients have sent
    descriptor = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        os.close(descriptor)
        told = "a folder of its own: another server learns in this one"
        raise InvalidOption("learn", str(folder), told) from None
    return descriptor


def round_folder(folder: Path, number: int) -> Path:
    """Of a round, by its number."""
    return folder / ROUNDS / f"{number:06}"
