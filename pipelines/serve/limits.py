"""What one client may take of a server."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """`per_client`: completions at once. `seconds`: of a request, from when it was queued."""

    per_client: int = 0  # 0: no limit
    seconds: float = 0.0  # 0: no limit


NO_LIMITS = Limits()
