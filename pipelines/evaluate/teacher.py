"""The teacher's word on the samples: how likely it finds their tokens."""

from collections.abc import Sequence

import numpy as np
import torch

from cluster.storage.checkpoints import fetched
from models.metrics.likelihood import Likelihood, Score, guided, likelihood, teacher_forced
from models.metrics.scale_likelihood import scale_forced
from models.students.teacher import ScaleTeacher, load_teacher
from models.targets.decoder.decoder import Decoder
from models.targets.load import load_target
from models.targets.next_scale.scale_target import NextScaleTarget
from models.targets.target import Target
from pipelines.errors import InvalidInput
from pipelines.evaluate.config import EvaluateConfig
from pipelines.evaluate.samples import Ints, Samples


class Teacher:
    """A checkpoint that scores rows: images after their label, texts after their prompt."""

    def __init__(self, path: str, config: EvaluateConfig) -> None:
        """Raises InvalidInput if a text model is to be guided."""
        self.path, self._config, self._folder = path, config, fetched(path)
        self._target = load_target(self._folder, dtype=torch.float32, device=config.device)
        self._num_classes = _num_classes(self._target)
        self._score = _scores(self._folder, self._target)
        if config.guidance is None:
            return
        if self._num_classes is None:
            raise InvalidInput(f"guidance={config.guidance}: the teacher {path!r} has no classes")
        nothing = np.array([self._target.vocab_size + self._num_classes])
        self._score = guided(self._score, config.guidance, nothing)

    def read(self, samples: Samples) -> Likelihood:
        """Of each row's tokens.

        Raises:
            InvalidInput: a row has no prompt or label, is too long, or has an unknown token.
        """
        assert samples.tokens is not None
        before, target = self.prefixes(samples), self._target
        longest = max(len(a) + len(b) for a, b in zip(before, samples.tokens, strict=True))
        if longest > target.context_length:
            found = f"{samples.url!r} has a row of {longest} tokens, prompt included"
            raise InvalidInput(f"{found}: the teacher's context has {target.context_length}")
        try:
            return likelihood(self._score, before, samples.tokens, vocab_size=target.vocab_size)
        except ValueError as error:
            told = f"{samples.url!r} does not fit the teacher {self.path!r}: {error}"
            raise InvalidInput(told) from error

    def prefixes(self, samples: Samples) -> Sequence[Ints]:
        """What stands before each row's tokens."""
        if self._num_classes is not None:
            return [np.array([token]) for token in self._classes(samples, self._num_classes)]
        return self._prompts(samples)

    def _classes(self, samples: Samples, count: int) -> Ints:
        """Class k is the input V + k."""
        field = self._config.label_field
        if samples.labels is None:
            told = f"every row needs a label (column {field!r})"
            raise InvalidInput(f"{samples.url!r}: {told} for the teacher {self.path!r}")
        for label in samples.labels:
            if not label.isdecimal() or int(label) >= count:
                told = f"{samples.url!r} has the label {label!r}"
                raise InvalidInput(f"{told}: the teacher {self.path!r} knows 0 to {count - 1}")
        return self._target.vocab_size + np.array([int(label) for label in samples.labels])

    def _prompts(self, samples: Samples) -> Sequence[Ints]:
        """As the teacher's tokenizer reads them."""
        from actors.tokenizer import TokenizerActor

        if samples.prompts is None or not all(samples.prompts):
            told = f"every row needs a prompt (column {self._config.prompt_field!r})"
            raise InvalidInput(f"{samples.url!r}: {told} for the teacher {self.path!r}")
        texts = [str(prompt) for prompt in samples.prompts]
        encoded = TokenizerActor(self._folder).encode_batch(texts)
        return [np.array(ids, dtype=np.int64) for ids in encoded]


def _scores(path: str, target: Target) -> Score:
    if not isinstance(target, NextScaleTarget):
        return teacher_forced(target)
    teacher = load_teacher(path)
    assert isinstance(teacher, ScaleTeacher)
    return scale_forced(teacher)


def _num_classes(target: Target) -> int | None:
    """Of an image target's condition; None of a text target."""
    if isinstance(target, NextScaleTarget):
        return target.config.num_classes
    grid = target.config.grid if isinstance(target, Decoder) else None
    return None if grid is None else grid.num_classes
