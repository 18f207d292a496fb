"""What a manager keeps for one ingress until that takes it."""

import asyncio
import time
from dataclasses import dataclass, field

from models.requests.request import Result
from models.requests.update import Update

LEASE_S = 10.0  # without a call of `take`, after which an ingress counts as dead


@dataclass(slots=True)
class Inbox:
    """What an ingress has not taken yet, and the requests that it is waiting for.

    `unsent`: completions that the ingress has not sent in full, as it told last.
    """

    updates: list[Update] = field(default_factory=list)
    results: list[Result] = field(default_factory=list)
    open: set[str] = field(default_factory=set)
    filled: asyncio.Event = field(default_factory=asyncio.Event)
    seen: float = field(default_factory=time.monotonic)
    unsent: int = 0

    @property
    def left(self) -> int:
        """Completions that have not been sent in full; none where the ingress is dead."""
        if time.monotonic() - self.seen > LEASE_S:
            return 0
        return max(self.unsent, len(self.open) + len(self.results))
