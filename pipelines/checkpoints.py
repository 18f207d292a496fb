"""Configurations whose checkpoints are on S3, with the folders on this machine in their place."""

from dataclasses import replace
from typing import Any, TypeVar

from cluster.storage.checkpoints import fetched

T = TypeVar("T")
OPTIONS = ("target", "drafter", "student", "teacher", "start")


def with_local(config: T) -> T:
    """Fetch the checkpoints that a configuration names by URLs.

    Actors on other nodes find from the folders' names what to fetch there.

    Raises StorageError if that fails.
    """
    given: dict[str, Any] = {name: getattr(config, name, None) for name in OPTIONS}
    here = {name: _here(value) for name, value in given.items()}
    remote = {name: value for name, value in here.items() if value != given[name]}
    made: T = replace(config, **remote) if remote else config  # type: ignore[type-var]
    return made


def _here(value: Any) -> Any:
    if isinstance(value, tuple):  # several drafters
        return tuple(map(fetched, value))
    return fetched(value) if isinstance(value, str) else value
