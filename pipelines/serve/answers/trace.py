"""Who proposed each token of a stream, step by step, with the guesses that were wrong."""

from collections.abc import Callable, Sequence
from typing import Any

from models.requests.output_text import CONTEXT, OutputText
from models.requests.update import Update
from pipelines.serve.answers.choice import Delta


class Trace:
    """Of one answer. Texts of tokens add up to the text: a part of a character has none."""

    def __init__(
        self,
        spell: Callable[[int], str],
        decode: Callable[[list[int]], str],
        prompts: Sequence[Sequence[int]],
        n: int,
    ) -> None:
        """`n`: choices of each prompt."""
        self._spell, self._decode, self._prompts, self._n = spell, decode, prompts, n
        self._texts: dict[int, OutputText] = {}  # by choice

    def of(self, delta: Delta) -> list[dict[str, Any]]:
        """The steps that made a delta."""
        text = self._texts.get(delta.index)
        if text is None:
            head = self._prompts[delta.index // self._n][-CONTEXT:]
            text = self._texts[delta.index] = OutputText(self._decode, head=head, keep=True)
        return [self._step(update, text) for update in delta.updates]

    def _step(self, update: Update, text: OutputText) -> dict[str, Any]:
        tokens = []
        for token, source in zip(update.tokens, update.sources, strict=True):
            text.push(token)
            tokens.append({"text": text.take(), "source": _name(source)})
        return {"tokens": tokens, "rejected": [self._spell(token) for token in update.rejected]}


def _name(source: str) -> str:
    """Draft models are named by their folders, which are nobody's business."""
    return "draft" if "/" in source or "\\" in source else source
