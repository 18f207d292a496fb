"""Which recorded requests a round learns from, and which are held out to judge it by.

A prompt is held out or not once and for all, by its hash: no held-out answer is ever learned.
"""

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from actors.messages import Row
from models.drafting.distil.texts import Text

PART = 8  # one of so many prompts is held out


@dataclass(frozen=True, slots=True, kw_only=True)
class Chosen:
    """`learned`: texts to learn from. `held_out`: one text for each prompt; their temperatures."""

    learned: tuple[Text, ...]
    held_out: tuple[Text, ...]
    temperatures: tuple[float, ...]


def choose(
    rows: Iterable[Row], *, length: int, depth: int, most_learned: int, most_held_out: int
) -> Chosen:
    """From rows, the newest first.

    `length`: of a text; longer ones lose the end of the answer and the beginning of the prompt.
    `depth`: of the chains that held-out texts are judged by: their answers are longer than that.
    """
    learned: list[Text] = []
    held_out: dict[tuple[int, ...], tuple[Text, float]] = {}
    for row in rows:
        text = cut(row, length)
        if not is_held_out(row.prompt):
            if len(learned) < most_learned:
                learned.append(text)
        elif len(held_out) < most_held_out and text.num_places > depth + 1:
            held_out.setdefault(row.prompt, (text, row.temperature))
    return Chosen(
        learned=tuple(learned),
        held_out=tuple(text for text, _ in held_out.values()),
        temperatures=tuple(temperature for _, temperature in held_out.values()),
    )


def is_held_out(prompt: tuple[int, ...]) -> bool:
    """Whether requests with this prompt are never learned from."""
    data = np.asarray(prompt, dtype="<i8").tobytes()
    return hashlib.blake2b(data, digest_size=1).digest()[0] % PART == 0


def cut(row: Row, length: int) -> Text:
    """At most `length` tokens around the beginning of the answer, half of them of the answer.

    A part that is shorter leaves its room to the other one.
    """
    half = length // 2
    answer = row.tokens[: max(half, length - len(row.prompt))]
    prompt = row.prompt[-(length - len(answer)) :]
    return Text(tokens=(*prompt, *answer), num_prompt=len(prompt))
