"""Tool calls that a model makes when it chooses to: tags around one line of JSON.

    I will look.
    <tool_call>
    {"name":"weather","arguments":{"city":"Bern"}}
    </tool_call>

The form of Hermes, Qwen 2.5 and 3, and SmolLM 3, with JSON as for calls that are required.
"""

from pathlib import Path

from models.requests import constraint
from models.targets.decoder.config import read_json
from pipelines.serve.bodies.constraints import Schema

OPEN, CLOSE = "<tool_call>", "</tool_call>"


def tags_of(checkpoint: str) -> tuple[str, str] | None:
    """The tags as a grammar names them: as text, or as a token of their own.

    None if they are special tokens, which are no part of a text.
    """
    file = Path(checkpoint) / "tokenizer.json"
    added = read_json(file).get("added_tokens", []) if file.exists() else []
    tokens = {entry["content"]: entry for entry in added}
    if any(tokens[tag].get("special") for tag in (OPEN, CLOSE) if tag in tokens):
        return None
    opened, closed = (tag if tag in tokens else f'"{tag}"' for tag in (OPEN, CLOSE))
    return opened, closed


def of_calls(schema: Schema, tags: tuple[str, str], *, several: bool) -> str:
    """The grammar of a text, or of a text and one call or several; `schema`: of a call.

    Raises InvalidOption if it would be too long.
    """
    opened, closed = tags
    # Text is read until the tag: a lazy lexeme where the tag is text, and a token ends any lexeme.
    first = rf"first[lazy]: /(.|\n)*{OPEN}/" if opened.startswith('"') else f"first: TEXT {opened}"
    more = rf'("\n" {opened} call)*' if several else ""
    return constraint.of_lark(
        "%llguidance {}\n"
        f"start: TEXT | first call {more}\n"
        f"{first}\n"
        f'call: "\\n" %json {constraint.compact(schema)} "\\n" {closed}\n'
        "TEXT: /(.|\\n)*/\n",
        "tools",
    )
