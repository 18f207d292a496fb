"""The sizes of drafts that the controller chooses from."""

from models.draft import Shape

# Of trees to choose from: a root and these guesses fill whole groups of rows of the kernels. Few:
# each looks better than it is until it was tried.
TREE_NODES, TREE_DEPTHS, TREE_WIDTHS = (5, 11, 23, 47), (2, 3, 4, 5, 6, 8), (2, 4, 8)
GROWN = 1.3  # guesses that a tree grows, at least, for each that is kept


def menu(max_width: int, *, deep: bool) -> list[Shape]:
    """The sizes to choose from. `deep`: guesses cost nothing to make, so long chains may pay."""
    chains = (1, 2, 3, 4, 5, 6, 8, 12, 16, 24, 32) if deep else (1, 2, 3, 4, 5, 6, 8)
    trees = (_tree(nodes, depth, max_width) for nodes in TREE_NODES for depth in TREE_DEPTHS)
    return [*(Shape(depth=d) for d in chains), *(shape for shape in trees if shape)]


def _tree(nodes: int, depth: int, max_width: int) -> Shape | None:
    """The narrowest that grows enough to choose from; None where there is none."""
    widths = [w for w in TREE_WIDTHS if w <= max_width and depth < nodes <= w * depth]
    if not widths:
        return None
    ample = [w for w in widths if w * depth >= GROWN * nodes]
    return Shape(depth=depth, width=min(ample, default=widths[-1]), nodes=nodes)
