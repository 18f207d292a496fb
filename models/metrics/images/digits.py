"""scikit-learn's handwritten digits: 1,797 grey images of 8 x 8 pixels, with a fixed split."""

from dataclasses import dataclass

import numpy as np
import torch
from torch.nn import functional

LABELS = tuple(str(digit) for digit in range(10))


@dataclass(frozen=True, slots=True, kw_only=True)
class Digits:
    """Images [N, 1, 8, 8] in 0 to 1 (1: ink) and their digits [N]."""

    images: torch.Tensor
    classes: torch.Tensor


def load_digits() -> tuple[Digits, Digits]:
    """(training, test): every fifth image of each digit, in the data set's order, is for testing.

    Source: Alpaydin and Kaynak 1998, Optical Recognition of Handwritten Digits, UCI, test part.
    """
    from sklearn import datasets

    found = datasets.load_digits()
    images = torch.from_numpy(found.images.astype(np.float32) / 16)[:, None]
    classes = torch.from_numpy(found.target.astype(np.int64))
    before = functional.one_hot(classes).cumsum(0).gather(1, classes[:, None])[:, 0]
    test = before % 5 == 0
    return (
        Digits(images=images[~test], classes=classes[~test]),
        Digits(images=images[test], classes=classes[test]),
    )
