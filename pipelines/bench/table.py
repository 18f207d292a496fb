"""Measurements as a table, for a terminal and for Markdown alike."""

from collections.abc import Iterable, Sequence

from pipelines.bench.measurement import PARTS, Measurement

HEADS = (
    "recipe",
    "batch",
    "tokens/s",
    "speed-up",
    "accepted length",
    "round ms",
    *PARTS,
    "target passes",
    "draft passes",
    "exactness",
    "same tokens",
)
UNKNOWN = "–"


def table(lines: Iterable[Measurement]) -> str:
    """One row per measurement, in their order."""
    return markdown(HEADS, [cells(line) for line in lines])


def cells(line: Measurement) -> list[str]:
    """A measurement's row."""
    rounds = line.round_ms
    parts = [UNKNOWN if rounds is None else f"{rounds[part]:.2f}" for part in ("round", *PARTS)]
    return [
        line.name,
        str(line.batch_size),
        f"{line.tokens_per_second:.1f}",
        f"{line.speed_up:.2f}×",
        _number(line.accepted_length, ".2f"),
        *parts,
        _number(line.target_passes, "d"),
        _number(line.draft_passes, "d"),
        line.exactness or UNKNOWN,
        same_tokens(line),
    ]


def same_tokens(line: Measurement) -> str:
    """Whether the outputs are plain's, or how many of them."""
    if line.same is None:
        return UNKNOWN
    return "yes" if line.same == line.compared else f"{line.same} of {line.compared}"


def markdown(
    heads: Sequence[str], rows: Sequence[Sequence[str]], *, texts: Sequence[int] = (0,)
) -> str:
    """A Markdown table, padded so that it reads well as it is; `texts` are aligned left."""
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]

    def line(row: Sequence[str]) -> str:
        aligned = [
            cell.ljust(width) if i in texts else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        return f"| {' | '.join(aligned)} |"

    rules = [
        "-" * width if i in texts else "-" * (width - 1) + ":" for i, width in enumerate(widths)
    ]
    return "\n".join([line(heads), line(rules), *map(line, rows)])


def _number(value: float | None, how: str) -> str:
    return UNKNOWN if value is None else format(value, how)
