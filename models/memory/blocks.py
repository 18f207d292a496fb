"""The blocks of a pool: how many rows use each, and which have known contents. Knows no tensors.

A full block has a key, a hash of all tokens from the start of its text to its own end. A block that
nobody uses any more keeps its contents until the pool has no other block to give: then the least
recently used one is taken.
"""

from array import array
from collections import OrderedDict
from collections.abc import Sequence
from hashlib import blake2b
from heapq import heappop, heappush

BLOCK = 64  # entries; attention reads keys in whole blocks


def num_blocks(entries: int) -> int:
    """The number of blocks that hold a number of entries."""
    return -(-entries // BLOCK)


def key_after(keys: Sequence[bytes], tokens: Sequence[int], salt: bytes = b"") -> bytes:
    """The key of a text's next block, after blocks with these keys; `salt` begins the text."""
    begin = len(keys) * BLOCK
    own = array("q", tokens[begin : begin + BLOCK]).tobytes()
    return blake2b((keys[-1] if keys else salt) + own, digest_size=16).digest()


class Blocks:
    """`count` blocks with reference counts. The lowest free block is taken first."""

    def __init__(self, count: int) -> None:
        self.count = count
        self._users = [0] * count
        self._free = list(range(count))  # without contents, a heap
        self._unused: OrderedDict[int, None] = OrderedDict()  # with contents, the oldest first
        self._block_of: dict[bytes, int] = {}
        self._key_of: dict[int, bytes] = {}

    @property
    def num_free(self) -> int:
        """Blocks that nobody uses."""
        return len(self._free) + len(self._unused)

    def take(self, count: int) -> list[int] | None:
        """Blocks that nobody uses, each now with one user; None if there are fewer."""
        if count > self.num_free:
            return None
        taken = [heappop(self._free) if self._free else self._evict() for _ in range(count)]
        for block in taken:
            self._users[block] = 1
        return taken

    def _evict(self) -> int:
        block, _ = self._unused.popitem(last=False)
        del self._block_of[self._key_of.pop(block)]
        return block

    def note(self, block: int, key: bytes) -> None:
        """A block in use is full. Another one in use with the same contents stays the known one."""
        known = self._block_of.get(key)
        if known is not None:
            if known not in self._unused:
                return
            del self._unused[known], self._key_of[known]
            heappush(self._free, known)
        self._block_of[key], self._key_of[block] = block, key

    def find(self, key: bytes) -> int | None:
        """The block with the contents of a key, now with one user more; None: there is none."""
        block = self._block_of.get(key)
        if block is not None:
            self._unused.pop(block, None)
            self._users[block] += 1
        return block

    def is_fixed(self, block: int) -> bool:
        """Whether a block must not be written to: others use it, or may find it."""
        return self._users[block] > 1 or block in self._key_of

    def release(self, blocks: Sequence[int]) -> None:
        """Take one user from each block of a text; the last one is taken first by others."""
        for block in reversed(blocks):
            self._users[block] -= 1
            assert self._users[block] >= 0, block
            if not self._users[block]:
                if block in self._key_of:
                    self._unused[block] = None
                else:
                    heappush(self._free, block)
