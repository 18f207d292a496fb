"""The teacher's word on the samples: how likely it finds their tokens."""

from collections.abc import Sequence

import numpy as np
import torch

from models.load import load_target
from models.metrics.likelihood import Likelihood, likelihood, teacher_forced
from pipelines.errors import InvalidInput
from pipelines.evaluation.samples import Ints, Samples


def read_likelihood(path: str, samples: Samples, *, device: str) -> Likelihood:
    """Of each row's tokens after its prompt, under the checkpoint at `path`.

    Raises:
        InvalidInput: a row has no prompt, or a token that the teacher does not know.
    """
    assert samples.tokens is not None
    target = load_target(path, dtype=torch.float32, device=device)
    before = prefixes(path, samples)
    longest = max(len(a) + len(b) for a, b in zip(before, samples.tokens, strict=True))
    if longest > target.context_length:
        told = f"the teacher's context has {target.context_length}"
        raise InvalidInput(
            f"{samples.url!r} has a row of {longest} tokens, prompt included: {told}"
        )
    try:
        return likelihood(
            teacher_forced(target), before, samples.tokens, vocab_size=target.vocab_size
        )
    except ValueError as error:
        raise InvalidInput(f"{samples.url!r} does not fit the teacher {path!r}: {error}") from error


def prefixes(path: str, samples: Samples) -> Sequence[Ints]:
    """What stands before each row's tokens: the prompt, as the teacher's tokenizer reads it."""
    from actors.tokenizer import TokenizerActor

    if samples.prompts is None or any(not prompt for prompt in samples.prompts):
        raise InvalidInput(f"{samples.url!r}: every row needs a prompt for the teacher {path!r}")
    texts = [str(prompt) for prompt in samples.prompts]
    return [np.array(ids, dtype=np.int64) for ids in TokenizerActor(path).encode_batch(texts)]
