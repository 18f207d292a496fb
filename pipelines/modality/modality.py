"""What differs between texts and images on the way through a generate job; all else is one path.

A row's prompt becomes what the codec encodes, a result what the codec decodes. The modality is
chosen once, by the target's checkpoint, and travels to tasks and actors as a small frozen object.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import pyarrow as pa

from models.requests.request import Result
from models.targets.limits import Limits
from pipelines.errors import InvalidInput
from pipelines.generate.config import GenerateConfig
from pipelines.inputs.rows import PromptText
from pipelines.inputs.shards import ShardPlan


class Codec(Protocol):
    """Prompts to token ids, token ids to what they stand for; see actors/."""

    def encode_batch(
        self, texts: list[str], *, add_special_tokens: bool = True
    ) -> list[list[int]]: ...
    def decode_batch(self, tokens: list[list[int]]) -> Sequence[Any]: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Contents:
    """A shard's generated things: a value per row, and files by their names in the output."""

    values: list[Any]
    files: Mapping[str, bytes] = field(default_factory=dict)


class Modality(Protocol):
    """Equal for equal checkpoints and options, and hashable: its codec is made once per process."""

    @property
    def kind(self) -> str: ...
    def __hash__(self) -> int: ...

    @property
    def column(self) -> pa.Field:
        """The output's column of what was generated."""

    @property
    def limits(self) -> Limits:
        """The target's vocabulary and context."""

    def settled(self, config: GenerateConfig) -> GenerateConfig:
        """The configuration with the defaults that depend on the target.

        Raises:
            InvalidOption: an option makes no sense for such a target.
        """

    def check_plan(self, plan: ShardPlan, config: GenerateConfig) -> None:
        """Raise an error if no row of the input can be run, or their outputs would clash."""

    def prompt(self, value: object, field: str) -> PromptText:
        """A field's value as the codec encodes it; raises ValueError if it is no prompt."""

    def codec(self) -> Codec:
        """The checkpoint's tokenizer, ready to use."""

    def contents(
        self, rows: pa.Table, results: Sequence[Result], codec: Codec, *, samples: int
    ) -> Contents:
        """What the results hold. `rows`: each result's row, so `samples` times each."""

    def beside(self, url: str, parts: Sequence[str]) -> Mapping[str, bytes]:
        """Files to be written beside the rows of these files, in their order, when all is done."""


def refuse_column(
    schema: pa.Schema, field: str, fits: Callable[[pa.DataType], bool], wanted: str
) -> None:
    """Raise InvalidInput if the prompt's column is of a type that holds no prompts."""
    if field in schema.names and not fits(schema.field(field).type):
        others = [found.name for found in schema if found.name != field and fits(found.type)]
        hint = f"; columns that may: {', '.join(others)}" if others else ""
        kind = schema.field(field).type
        raise InvalidInput(
            f"prompt_field={field!r}: the input's column holds {kind}, not {wanted}{hint}"
        )
