"""The likelihood of images under a next-scale target: all maps in one pass.

Letters: B images, L tokens of an image in all maps, V vocabulary.
"""

from collections.abc import Sequence

import numpy as np
import torch

from models.batch import Ints
from models.metrics.likelihood import Score
from models.students.teacher import ScaleTeacher, laws


def scale_forced(teacher: ScaleTeacher) -> Score:
    """Scores with the target: a prefix is a class, as the id V + class; a sequence is an image.

    The logits [L, V] of an image's places are those given the tokens of all earlier maps. Scoring
    raises ValueError for a sequence of another length than L.
    """
    sizes = teacher.config

    def score(prefixes: Sequence[Ints], sequences: Sequence[Ints]) -> list[torch.Tensor]:
        for row, tokens in enumerate(sequences):
            if len(tokens) != sizes.num_tokens:
                told = f"its images have {sizes.num_tokens}"
                raise ValueError(f"row {row} of a batch has {len(tokens)} tokens; {told}")
        classes = torch.from_numpy(np.concatenate(prefixes) - sizes.vocab_size)  # [B]
        logits = laws(teacher, classes, torch.from_numpy(np.stack(sequences)))  # [B, L, V]
        return list(logits)

    return score
