"""The prior of a student's first guesses: how often each token stood at a place, for each class.

Letters: N images, n tokens of an image, V vocabulary, K classes.
"""

import torch

MAX_CELLS = 2**25  # of the table; beyond it, all classes share one


def token_shares(
    classes: torch.Tensor, tokens: torch.Tensor, *, num_classes: int, vocab_size: int
) -> torch.Tensor:
    """Frequencies by class and place, with one more image of uniform tokens for each class.

    Args:
        classes: [N] int64. tokens: [N, n] int64.
    Returns:
        [K, n, V] float32, rows sum to 1; [1, n, V] where K tables would be too large.
    """
    length = tokens.shape[1]
    tables = num_classes if num_classes * length * vocab_size <= MAX_CELLS else 1
    cells = (classes % tables)[:, None] * length + torch.arange(length)  # [N, n]
    index = (cells * vocab_size + tokens).flatten()
    counts = torch.bincount(index, minlength=tables * length * vocab_size)
    table = counts.view(tables, length, vocab_size).double() + 1 / vocab_size
    return (table / table.sum(-1, keepdim=True)).float()
