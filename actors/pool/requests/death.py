"""How an actor ended, and what that says about the requests on it. Knows nothing of Ray."""

from dataclasses import dataclass
from enum import IntEnum


class Evidence(IntEnum):
    """How strongly an actor's end speaks against the requests that were on it."""

    NONE = 0  # its node was lost, it could not be reached, somebody stopped it
    DEATH = 1  # its process died or hung: perhaps killed from outside, perhaps by a request
    ERROR = 2  # its token loop raised an exception


@dataclass(frozen=True, slots=True)
class Death:
    """The end of an actor."""

    reason: str
    evidence: Evidence
