"""Rows of JSON Lines and text files: where they are, and what one line says.

A row is a line that is not blank; its number is the line's, counted from 1, as editors do. The byte
order mark that some editors write before a file's text is no part of the line.
"""

import json
from codecs import BOM_UTF8
from collections.abc import Iterator
from typing import Any, BinaryIO

STRIDE = 256  # a mark every so many rows, so that reading can start near any row


def lines(file: BinaryIO, *, line: int = 1) -> Iterator[tuple[int, bytes]]:
    """(number, content) of the lines that are not blank, from where the file stands."""
    for number, content in enumerate(file, line):
        if not content.isspace():
            yield number, content


def parse_text(content: bytes) -> str:
    """A line of a text file without its end, and without a byte order mark before it.

    Raises:
        ValueError: says what is wrong with it.
    """
    try:
        return content.removeprefix(BOM_UTF8).decode().rstrip("\r\n")
    except UnicodeDecodeError as error:
        raise ValueError(f"not UTF-8 text: {error.reason} at byte {error.start}") from error


def parse_json(content: bytes) -> dict[str, Any]:
    """A line of a JSON Lines file.

    Raises:
        ValueError: says what is wrong with it.
    """
    text = parse_text(content)
    try:
        value = json.loads(text)
    except json.JSONDecodeError as error:
        raise ValueError(f"not JSON: {error.msg} at column {error.colno}") from error
    except RecursionError as error:
        raise ValueError("not JSON that can be read: nested too deeply") from error
    if not isinstance(value, dict):
        hint = "; the file may be one JSON array" if text[0] == "[" else ""
        raise ValueError(f"not a JSON object but {type(value).__name__}{hint}")
    if "\\u" in text:
        _check_unicode(value)
    return value


def _check_unicode(value: dict[str, Any]) -> None:
    try:
        json.dumps(value, ensure_ascii=False).encode()
    except UnicodeEncodeError as error:
        raise ValueError("not Unicode: a surrogate without its other half") from error
