"""The shape of a model's attention."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Heads:
    """`queries` query heads share `keys` key heads of `width` numbers, the same number for each.

    `window`: the number of positions that a query sees, itself included; None: all. `eps` is that
    of the norm of queries and keys, if a layer has one.
    """

    queries: int
    keys: int
    width: int
    window: int | None = None
    eps: float = 0.0
