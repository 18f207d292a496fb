"""A wrong value as an error shows it."""

from collections.abc import Iterator

SHOWN = 80  # characters


def shown(value: object) -> str:
    """Of the value's representation, which may be far too long to be made."""
    text = ""
    for piece in _pieces(value):
        text += piece
        if len(text) > SHOWN:
            return f"{text[:SHOWN]}..."
    return text


def _pieces(value: object) -> Iterator[str]:
    if isinstance(value, list):
        yield "["
        for index, each in enumerate(value):
            yield ", " if index else ""
            yield from _pieces(each)
        yield "]"
    elif isinstance(value, dict):
        yield "{"
        for index, (name, each) in enumerate(value.items()):
            yield f"{', ' if index else ''}{name[:SHOWN]!r}: "
            yield from _pieces(each)
        yield "}"
    else:
        yield repr(value[: SHOWN + 1] if isinstance(value, str) else value)
