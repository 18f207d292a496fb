"""The rounds that a chain of drafts takes to write a text, from the chances of its tokens.

Under `match`, the tokens are the target's whatever was drafted, and a draft is accepted or not by
the noise of its own position. So given the text, rounds are a Markov chain over its places.
Letters: N tokens of a text, K depths of a chain.
"""

import torch


def rounds_of(chances: torch.Tensor) -> tuple[float, float]:
    """The mean and the variance of the number of rounds from the first token on.

    Args:
        chances: [N, K] that the draft of token i + k is accepted, in a chain whose first token is
            i, if all before it are accepted. Those of tokens after the end do not matter.
    """
    count, depth = chances.shape
    runs = run_lengths(chances.double())  # [N, K + 1]
    mean = torch.zeros(count + depth + 1, dtype=torch.float64)  # from each place on; 0 at the end
    square = mean.clone()
    for place in range(count - 1, -1, -1):
        after = slice(place + 1, place + depth + 2)
        rest = runs[place] @ mean[after]
        mean[place] = 1 + rest
        square[place] = 1 + 2 * rest + runs[place] @ square[after]
    return float(mean[0]), max(0.0, float(square[0] - mean[0] ** 2))


def run_lengths(chances: torch.Tensor) -> torch.Tensor:
    """[..., K + 1] the chances that a round gives 1 to K + 1 tokens, from chances [..., K]."""
    reached = torch.cat([torch.ones_like(chances[..., :1]), chances.cumprod(-1)], dim=-1)
    missed = torch.cat([1 - chances, torch.ones_like(chances[..., :1])], dim=-1)
    return reached * missed
