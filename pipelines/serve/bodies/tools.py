"""Tool calls: fields, the grammar that makes any model call a tool, and calls read from its text.

The text of a call is `{"name":"...","arguments":{...}}`, JSON without whitespace, so the name and
the arguments can be sent as they come.
"""

import json
import uuid
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from pydantic import Field, StringConstraints

from models.errors import InvalidOption
from models.requests import constraint
from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.constraints import Schema
from pipelines.serve.bodies.strict import Items, Strict
from pipelines.serve.bodies.tool_tags import of_calls

MAX_TOOLS = 128
HEAD, ARGUMENTS, END = '{"name":"', '","arguments":', "}"
DEFINITIONS = ("$defs", "definitions")
Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]


class Function(Strict):
    """A function. `parameters`: a JSON schema of its arguments; none: it takes none."""

    name: Name
    description: str | None = None
    parameters: Schema | None = None
    strict: bool | None = None


class Tool(Strict):
    """A tool that may be called."""

    type: Literal["function"]
    function: Function


class Named(Strict):
    """The name of a function."""

    name: Name


class NamedTool(Strict):
    """The tool that is to be called."""

    type: Literal["function"]
    function: Named


ToolChoice = Literal["none", "auto", "required"] | NamedTool
Tools = Annotated[Items[Tool], Field(max_length=MAX_TOOLS)]


def is_free(tools: Sequence[Tool], choice: ToolChoice | None) -> bool:
    """Whether the model chooses between a text and calls."""
    return bool(tools) and choice in (None, "auto")


def free_grammar(tools: Sequence[Tool], tags: tuple[str, str], *, several: bool) -> str:
    """What holds the calls that a model makes to the tools' schemas. Raises ApiError (400)."""
    try:
        return of_calls(_schema([tool.function for tool in tools]), tags, several=several)
    except InvalidOption as error:
        raise _refused("tools", str(error)) from None


def tool_grammar(tools: Sequence[Tool], choice: ToolChoice | None) -> str | None:
    """What makes the model call one of the tools; None if it is not to call any.

    Raises ApiError (400): the tool is not there.
    """
    if choice is not None and choice != "none" and not tools:
        raise _refused("tool_choice", "tool_choice needs tools")
    if not tools or choice == "none":
        return None
    called = [tool.function for tool in tools]
    if isinstance(choice, NamedTool):
        called = [function for function in called if function.name == choice.function.name]
        if not called:
            names = ", ".join(tool.function.name for tool in tools)
            raise _refused("tool_choice", f"no tool {choice.function.name!r}; there are {names}")
    try:
        return constraint.of_json_schema(_schema(called), "tools")
    except InvalidOption as error:
        raise _refused("tools", str(error)) from None


def _schema(functions: Sequence[Function]) -> Schema:
    definitions: dict[str, Schema] = {}
    calls = [_call(function, definitions) for function in functions]
    return {**(calls[0] if len(calls) == 1 else {"anyOf": calls}), **definitions}


def _call(function: Function, definitions: dict[str, Schema]) -> Schema:
    parameters = dict(function.parameters or {"type": "object", "additionalProperties": False})
    for name in DEFINITIONS:  # references count from the root
        given = parameters.pop(name, {})
        if not isinstance(given, dict):
            raise _refused("tools", f"{name} of {function.name!r} is no object")
        for key, value in given.items():
            if definitions.setdefault(name, {}).setdefault(key, value) != value:
                raise _refused("tools", f"two tools define {name}/{key} in different ways")
    return {
        "type": "object",
        "properties": {"name": {"const": function.name}, "arguments": parameters},
        "required": ["name", "arguments"],
        "additionalProperties": False,
    }


@dataclass(slots=True)
class CallText:
    """The growing text of one call. `feed` returns what is new of its name and its arguments."""

    id: str = field(default_factory=lambda: f"call_{uuid.uuid4().hex[:24]}")
    name: str = ""
    text: str = ""
    _sent: int = 0  # characters of the arguments

    def feed(self, text: str, *, ended: bool = False) -> tuple[str, str]:
        """The name, when it is complete, and more of the arguments."""
        self.text += text
        name, found, _ = self.text.removeprefix(HEAD).partition(ARGUMENTS)
        if not found:
            return "", ""
        told = "" if self.name else name
        self.name = name
        known = self.arguments if ended else self._all[: -len(END)]  # it may be the call's end
        more = known[self._sent :]
        self._sent += len(more)
        return told, more

    def chunk(self, text: str, *, index: int = 0, ended: bool = False) -> dict[str, Any] | None:
        """What a stream tells of the call after more `text`; None: nothing new."""
        name, arguments = self.feed(text, ended=ended)
        if not (name or arguments):
            return None
        if not name:
            return {"index": index, "function": {"arguments": arguments}}
        function = {"name": name, "arguments": arguments}
        return {"index": index, "id": self.id, "type": "function", "function": function}

    @property
    def _all(self) -> str:
        return self.text.partition(ARGUMENTS)[2]

    @property
    def is_whole(self) -> bool:
        """Whether all of the call is there."""
        try:
            json.loads(self.text)
        except ValueError:
            return False
        return True

    @property
    def arguments(self) -> str:
        """All that is known of the arguments; a call that was cut may have no whole JSON."""
        return self._all.removesuffix(END) if self.is_whole else self._all

    def told(self) -> dict[str, Any]:
        """The call as a message has it."""
        function = {"name": self.name, "arguments": self.arguments}
        return {"id": self.id, "type": "function", "function": function}


def _refused(name: str, told: str) -> ApiError:
    return ApiError(told, param=name, code="invalid_value")
