"""The shapes of drafts that the controller chooses from."""

from models.drafting.draft import Shape

CHAINS = (1, 2, 3, 4, 5, 6, 8)
LONG_CHAINS = (12, 16, 24, 32)  # where guesses cost nothing to make
# Depth, width, nodes kept of the guesses grown; with the root they fill groups of 6 rows.
TREES = ((4, 2, 5), (5, 4, 11), (6, 8, 23), (8, 8, 47))


def menu(max_width: int, *, free: bool) -> list[Shape]:
    """Chains, and trees of at most `max_width`. `free`: guesses cost nothing to make."""
    chains = [Shape(depth=depth) for depth in CHAINS + LONG_CHAINS * free]
    return chains + [Shape(depth=d, width=w, nodes=n) for d, w, n in TREES if w <= max_width]
