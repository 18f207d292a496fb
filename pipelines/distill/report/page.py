"""Parts of a page of HTML that needs nothing else: no scripts, no files, light and dark."""

import base64
from collections.abc import Mapping, Sequence
from html import escape
from importlib.resources import files
from string import Template

from pipelines.distill.findings import BEYOND, Bars, Table


def page(name: str, parts: Sequence[str]) -> bytes:
    """The whole page."""
    template = Template((files("pipelines.distill") / "page.html").read_text(encoding="utf-8"))
    return template.substitute(title=escape(name), body="\n".join(parts)).encode()


def title(text: str) -> str:
    """Of the page."""
    return f"<h1>{escape(text)}</h1>"


def heading(text: str) -> str:
    """Of a section."""
    return f"<h2>{escape(text)}</h2>"


def paragraph(text: str, kind: str = "") -> str:
    """`kind`: a class of the page's style."""
    return f'<p class="{kind}">{escape(text)}</p>' if kind else f"<p>{escape(text)}</p>"


def table(shown: Table) -> str:
    """Its cells; those beyond the floor stand out."""
    heads = "".join(f"<th>{escape(head)}</th>" for head in shown.heads)
    rows = [_row(cells, floor=place == shown.floor) for place, cells in enumerate(shown.rows)]
    note = paragraph(shown.note, "note") if shown.note else ""
    return f'<div class="wide"><table><tr>{heads}</tr>{"".join(rows)}</table></div>{note}'


def bars(shown: Bars) -> str:
    """A bar for each length, the longest as wide as there is room."""
    longest = max(shown.lengths.values(), default=0) or 1
    lines = [
        f"<span>{escape(name)}</span>"
        f'<span><i style="width:{100 * length / longest:.1f}%"></i></span>'
        f"<span>{length:.3g} {escape(shown.unit)}</span>"
        for name, length in shown.lengths.items()
    ]
    return figure(f'<div class="bars">{"".join(lines)}</div>', shown.title)


def figure(inside: str, caption: str) -> str:
    """A chart or picture with what it shows."""
    return f"<figure>{inside}<figcaption>{escape(caption)}</figcaption></figure>"


def picture(data: bytes, caption: str) -> str:
    """A PNG."""
    text = base64.b64encode(data).decode()
    return figure(f'<img alt="{escape(caption)}" src="data:image/png;base64,{text}">', caption)


def side_by_side(parts: Sequence[str]) -> str:
    """Figures that share a line where there is room."""
    return f'<div class="pair">{"".join(parts)}</div>'


def facts(told: Mapping[str, object], summary: str = "") -> str:
    """Names and values; behind `summary` if it is given."""
    lines = "".join(
        f"<dt>{escape(name)}</dt><dd>{escape(str(value))}</dd>" for name, value in told.items()
    )
    inside = f"<dl>{lines}</dl>"
    if not summary:
        return inside
    return f"<details><summary>{escape(summary)}</summary>{inside}</details>"


def _row(cells: Sequence[str], *, floor: bool) -> str:
    inside = "".join(
        f'<td class="beyond">{escape(cell)}</td>'
        if cell.endswith(BEYOND)
        else f"<td>{escape(cell)}</td>"
        for cell in cells
    )
    return f'<tr class="floor">{inside}</tr>' if floor else f"<tr>{inside}</tr>"
