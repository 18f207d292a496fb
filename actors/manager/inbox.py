"""What a manager keeps for one ingress until that takes it."""

import asyncio
import time
from dataclasses import dataclass, field
from typing import Any

from ray.exceptions import ActorDiedError

from models.requests.request import Result
from models.requests.update import Update

# Without a call of `take`, after which an ingress counts as dead. Ray tells sooner of one whose
# process has ended; on a busy machine one that lives may be late by seconds.
LEASE_S = 10.0


@dataclass(slots=True)
class Inbox:
    """What an ingress has not taken yet, and the requests that it is waiting for.

    `unsent`: completions that the ingress has not sent in full, as it told last. `actor`: it runs
    in, where that is known.
    """

    updates: list[Update] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    seen: float = field(default_factory=time.monotonic)
    unsent: int = 0
    actor: Any | None = None
    _ping: "asyncio.Future[Any] | None" = None

    @property
    def left(self) -> int:
        """Completions that have not been sent in full; none where the ingress is dead."""
        if time.monotonic() - self.seen > LEASE_S:
            return 0
        return max(self.unsent, len(self.open) + len(self.results))

    def is_dead(self) -> bool:
        """Whether Ray says so; to be asked now and then. One that answers late is not dead."""
        if self.actor is None:
            return False
        if self._ping is None:
            self._ping = asyncio.ensure_future(self.actor.__ray_ready__.remote())
        if not self._ping.done():
            return False
        error, self._ping = self._ping.exception(), None
        return isinstance(error, ActorDiedError)
