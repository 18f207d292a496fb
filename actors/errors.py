"""What can go wrong with actors, beyond what their models say."""

from models.errors import PacelineError


class PoolFailed(PacelineError, RuntimeError):
    """A pool cannot keep its actors alive, or cannot start them; the message says why."""


class RankLost(PacelineError, RuntimeError):
    """One of the processes that hold a target together ended; the others are replaced with it."""


class LoopFailed(PacelineError, RuntimeError):
    """A target actor's token loop failed; its requests are run again elsewhere."""
