"""Configurations whose checkpoints are on S3, with the folders on this machine in their place."""

from dataclasses import replace
from typing import Any, TypeVar

from cluster.storage.checkpoints import fetched, is_remote

T = TypeVar("T")
OPTIONS = ("target", "drafter", "student", "teacher", "start")


def with_local(config: T) -> T:
    """Fetch the checkpoints that a configuration names by URLs.

    Actors on other nodes find from the folders' names what to fetch there.

    Raises StorageError if that fails.
    """
    given: dict[str, Any] = {name: getattr(config, name, None) for name in OPTIONS}
    remote = {k: fetched(v) for k, v in given.items() if isinstance(v, str) and is_remote(v)}
    made: T = replace(config, **remote) if remote else config  # type: ignore[type-var]
    return made
