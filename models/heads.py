"""The shape of a model's attention."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """`queries` heads read `keys` heads of `width` numbers, a whole number of them each.

    `window`: how many positions back a query sees, None if all. `eps` keeps the norm of queries and
    keys from zero, where a layer has one.
    """

    queries: int
    keys: int
    width: int
    window: int | None = None
    eps: float = 0.0
