"""Small parts that tests register by one line each: see models/registry.py."""

import numpy as np

from models.drafting.draft import chain_draft
from models.drafting.drafter import useful_depth
from models.sampling.noise import Purpose, row_keys, uniform
from models.verify.match import match


def quantile_map(target):
    """The inverse of the cumulative distribution, at the position's uniform number."""

    def choose(values, seeds, positions):
        at = uniform(row_keys(seeds, positions, Purpose.TOKEN))  # [R]
        below = values.double().softmax(-1).cumsum(-1).cpu().numpy()  # [R, V]
        return np.array(
            [
                np.searchsorted(row, u * row[-1], side="right")
                for row, u in zip(below, at, strict=True)
            ],
            dtype=np.int64,
        )

    return choose


class RepeatDrafter:
    """The last token, again and again."""

    name, max_width, passes, transfer_s, wants, remote = "repeat", 1, 0, 0.0, None, False
    bytes_per_entry = 0

    def propose(self, sequences, shape, context):
        return [
            chain_draft(np.full(useful_depth(s, shape), s.tokens[-1], dtype=np.int64))
            for s in sequences
        ]

    def observe(self, round_, commits):
        pass

    def forget(self, request_id):
        pass


def build_repeat(config, target, *, rows, max_length, scratch, budget):
    return RepeatDrafter()


calls = []  # the rounds that `counted` verified


def counted(round_):
    """`match`, with a count of its rounds."""
    calls.append(len(round_.sequences))
    return match(round_)
