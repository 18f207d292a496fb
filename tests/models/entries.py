"""What a row of a KV cache holds, for tests."""

import numpy as np


def entries(cache, row, count=None):
    """The row's first `count` entries (None: the committed ones): [L, 2, Hkv, count, D], a copy."""
    places = np.arange(cache.lengths[row] if count is None else count)
    return cache.kv.flatten(3, 4)[:, :, :, cache.slots(row, places)]
