"""What one client may take of a server, all its models together."""

from collections import Counter
from dataclasses import dataclass

from pipelines.serve.api_error import ApiError, overloaded


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`per_client`: completions at once. `seconds`: of a request, from its arrival."""

    per_client: int = 0  # 0: no limit
    seconds: float = 0.0  # 0: no limit


NO_LIMITS = Limits()


class Clients:
    """The completions that have not ended here, by client."""

    def __init__(self, limits: Limits = NO_LIMITS) -> None:
        self.limits = limits
        self._held: Counter[str] = Counter()

    def hold(self, client: str, number: int) -> None:
        """Count completions. Raises ApiError (400, 429) if the client may not have so many."""
        held, most = self._held[client], self.limits.per_client
        if most and number > most:
            told = f"prompts times n are {number} completions; a key may have {most}"
            raise ApiError(told, param="n")
        if most and held + number > most:
            raise overloaded(f"{held} completions of this key run, {most} are allowed at once")
        self._held[client] += number

    def let_go(self, client: str, number: int) -> None:
        """They have ended."""
        self._held[client] -= number
        self._held += Counter()  # without zeros
