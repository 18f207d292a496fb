"""Which column of an input is the prompt, whether it holds chats, and what a chat looks like."""

from collections.abc import Mapping, Sequence
from typing import Any

import pyarrow as pa

from pipelines.errors import InvalidInput

PROMPT, MESSAGES = "prompt", "messages"  # the columns that are looked for if none is named


def prompt_column(asked: str | None, columns: Sequence[str]) -> str:
    """The column to read: the one asked for, else `prompt`, else `messages`.

    Raises:
        InvalidInput: there is none. Without any columns (no row could be read) any name will do.
    """
    if asked is None:
        asked = MESSAGES if MESSAGES in columns and PROMPT not in columns else PROMPT
    if columns and asked not in columns:
        raise InvalidInput(
            f"prompt_field={asked!r}: the input has no such column; it has {', '.join(columns)}"
        )
    return asked


def holds_chats(schema: pa.Schema, column: str) -> bool:
    """Whether a column holds lists of messages: by its name, or by its type."""
    index = schema.get_field_index(column)
    kind = schema.field(index).type if index >= 0 else pa.null()
    return column == MESSAGES or (may_hold_chats(kind) and pa.types.is_struct(kind.value_type))


def may_hold_chats(kind: pa.DataType) -> bool:
    """Whether a column of this type may hold lists of messages.

    Items are texts where JSON values share no type: there a malformed chat is among the others.
    """
    if not (pa.types.is_list(kind) or pa.types.is_large_list(kind)):
        return False
    return bool(pa.types.is_struct(kind.value_type) or pa.types.is_string(kind.value_type))


def messages_of(value: object, field: str) -> list[dict[str, Any]]:
    """A field's value as messages for a chat template.

    Further keys of a message (`name`, `tool_calls`) are handed to the template; null ones are not.

    Raises:
        ValueError: it is no list of {role, content}, or there is nothing to answer.
    """
    if not isinstance(value, Sequence) or isinstance(value, str | bytes):
        kind = type(value).__name__
        raise ValueError(f"field {field!r} is {kind} {value!r:.80}, not a list of messages")
    if not value:
        raise ValueError(f"field {field!r} is an empty list: a chat needs a message")
    messages = [_message(item, f"{field}[{index}]") for index, item in enumerate(value)]
    if messages[-1]["role"] == "assistant":
        raise ValueError(
            f"{field}[{len(messages) - 1}]: the last message is the assistant's, so there is "
            "nothing to answer: end with another role's"
        )
    return messages


def _message(value: object, place: str) -> dict[str, Any]:
    if not isinstance(value, Mapping):
        kind = type(value).__name__
        raise ValueError(f"{place} is {kind} {value!r:.80}, not an object with role and content")
    for name in ("role", "content"):
        text = value.get(name)
        if not isinstance(text, str):
            found = "missing" if text is None else f"{type(text).__name__} {text!r:.80}, not text"
            raise ValueError(f"{place}.{name} is {found}")
    if not value["role"]:
        raise ValueError(f"{place}.role is empty")
    return {name: item for name, item in value.items() if item is not None}
