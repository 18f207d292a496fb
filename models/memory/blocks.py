"""The blocks of a pool: which are free, and how many rows use each. Knows no tensors."""

from collections.abc import Iterable
from heapq import heapify, heappop, heappush

BLOCK = 64  # entries; attention reads keys in whole blocks


def num_blocks(entries: int) -> int:
    """The number of blocks that hold a number of entries."""
    return -(-entries // BLOCK)


class Blocks:
    """`count` blocks with reference counts. The lowest free block is taken first."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._users = [0] * count
        self._free = list(range(count))
        heapify(self._free)

    @property
    def num_free(self) -> int:
        return len(self._free)

    def take(self, count: int) -> list[int] | None:
        """Blocks that nobody uses, each now with one user; None if there are fewer."""
        if count > len(self._free):
            return None
        taken = [heappop(self._free) for _ in range(count)]
        for block in taken:
            self._users[block] = 1
        return taken

    def release(self, blocks: Iterable[int]) -> None:
        """Take one user from each block; blocks without a user are free."""
        for block in blocks:
            self._users[block] -= 1
            assert self._users[block] >= 0, block
            if not self._users[block]:
                heappush(self._free, block)
