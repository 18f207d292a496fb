"""The list of metrics: what each measures, and what rows must hold. Computes nothing."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class About:
    """One metric.

    A `distance` is beyond its floor if it is larger; any other metric, if it is different.
    `needs`: images, labels (of images), tokens, grids (the same number of tokens in every row) or
    teacher (tokens, and a checkpoint that scores them).
    """

    told: str
    needs: str
    distance: bool = False
    bounds: tuple[float, float] = (-math.inf, math.inf)


SHARE = (0.0, 1.0)
POSITIVE = (0.0, math.inf)

METRICS = {
    "fd-clf": About(
        told="Fréchet distance of the classifier's features (no FID: another network)",
        needs="images",
        distance=True,
        bounds=POSITIVE,
    ),
    "fd-pixel": About(
        told="Fréchet distance of pixels, images area-averaged to 8 x 8 at most",
        needs="images",
        distance=True,
        bounds=POSITIVE,
    ),
    "kd-clf": About(
        told="kernel distance (unbiased MMD, cubic kernel) of the classifier's features",
        needs="images",
        distance=True,
    ),
    "precision": About(
        told="share of samples among the reference's nearest neighbours: fidelity",
        needs="images",
        bounds=SHARE,
    ),
    "recall": About(
        told="share of the reference among the samples' nearest neighbours: diversity",
        needs="images",
        bounds=SHARE,
    ),
    "accuracy": About(
        told="share of samples that the classifier takes for the label they were made for",
        needs="labels",
        bounds=SHARE,
    ),
    "label-entropy": About(
        told="entropy of the classes that the classifier sees, nats",
        needs="images",
        bounds=POSITIVE,
    ),
    "token-tv": About(
        told="total variation between token tables, mean over positions",
        needs="grids",
        distance=True,
        bounds=SHARE,
    ),
    "bigram-tv": About(
        told="total variation between tables of neighbouring tokens",
        needs="tokens",
        distance=True,
        bounds=SHARE,
    ),
    "token-entropy": About(
        told="entropy of a position's tokens, mean over positions, nats",
        needs="grids",
        bounds=POSITIVE,
    ),
    "nll": About(
        told="what the teacher pays for a token: mean -log p, nats",
        needs="teacher",
        bounds=POSITIVE,
    ),
    "nll-excess": About(
        told="nll above what the teacher expected to pay: 0 for its own samples, unprocessed",
        needs="teacher",
    ),
}
