"""The target's texts that a drafter learns from: prompts and what the target wrote, as token ids.

Letters: B texts, N positions.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch

from models.batch import Ints
from models.errors import UnsupportedCheckpoint
from models.training.engines.worker import CPU

PROMPT, TOKENS = "prompt_ids", "tokens"
SCHEMA = pa.schema([(PROMPT, pa.list_(pa.int32())), (TOKENS, pa.list_(pa.int32()))])


@dataclass(frozen=True, slots=True, kw_only=True)
class Text:
    """One text; the first `num_prompt` tokens are its prompt."""

    tokens: tuple[int, ...]
    num_prompt: int

    @property
    def num_places(self) -> int:
        """Tokens that the target wrote."""
        return len(self.tokens) - self.num_prompt


@dataclass(frozen=True, slots=True, kw_only=True)
class TextBatch:
    """Texts filled up with 0: tokens [B, N]; written [B, N] bool, what the target wrote."""

    texts: tuple[Text, ...]
    tokens: torch.Tensor
    written: torch.Tensor

    @property
    def before(self) -> torch.Tensor:
        """[B, N] bool: the places before tokens that the target wrote."""
        found = torch.zeros_like(self.written)
        found[:, :-1] = self.written[:, 1:]
        return found


def write_texts(file: Path, texts: Iterable[Text]) -> None:
    """As Parquet."""
    rows = [(list(t.tokens[: t.num_prompt]), list(t.tokens[t.num_prompt :])) for t in texts]
    prompts, tokens = zip(*rows, strict=True) if rows else ((), ())
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table([list(prompts), list(tokens)], schema=SCHEMA), file)


def read_texts(files: Sequence[str], *, length: int, num_ids: int) -> list[Text]:
    """The texts of Parquet files, in order, cut to `length` tokens; those without any place go.

    Raises:
        UnsupportedCheckpoint: a token is none of the target's `num_ids` input ids, or nothing is
            left.
    """
    found = []
    for file in files:
        table = pq.read_table(file, columns=[PROMPT, TOKENS])
        for prompt, tokens in zip(*(column.to_pylist() for column in table), strict=True):
            whole = tuple([*prompt, *tokens][:length])
            if tokens and len(whole) > len(prompt) > 0:
                found.append(Text(tokens=whole, num_prompt=len(prompt)))
    if not found:
        told = f"no text with a prompt and tokens of the target within {length} tokens"
        raise UnsupportedCheckpoint(f"{files[0] if files else 'the records'}: {told}")
    largest = max(max(text.tokens) for text in found)
    if largest >= num_ids:
        told = f"token {largest}; the target knows 0 to {num_ids - 1}"
        raise UnsupportedCheckpoint(f"{files[0]}: {told}")
    return found


def batch_of(texts: Sequence[Text], some: Ints, device: torch.device = CPU) -> TextBatch:
    """The texts with these numbers, on a device."""
    chosen = tuple(texts[number] for number in some.tolist())
    longest = max(len(text.tokens) for text in chosen)
    tokens = torch.zeros(len(chosen), longest, dtype=torch.int64)
    written = torch.zeros(len(chosen), longest, dtype=torch.bool)
    for row, text in enumerate(chosen):
        tokens[row, : len(text.tokens)] = torch.tensor(text.tokens)
        written[row, text.num_prompt : len(text.tokens)] = True
    return TextBatch(texts=chosen, tokens=tokens.to(device), written=written.to(device))
