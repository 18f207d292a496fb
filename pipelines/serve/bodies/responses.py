"""POST /v1/responses: its fields, and the chat that they stand for. No answer is kept for later."""

from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.constraints import JsonSchema, PlainFormat
from pipelines.serve.bodies.fields import (
    MAX_TOP_LOGPROBS,
    NEUTRAL_OF_OTHER_FORMS,
    OF_OTHER_FORMS,
    UNSUPPORTED,
    ChatBody,
    Count,
    Labels,
    Messages,
    Sampled,
    Stop,
    Stops,
    Text,
)
from pipelines.serve.bodies.read_body import validated
from pipelines.serve.bodies.shown import shown
from pipelines.serve.bodies.strict import Items, Strict
from pipelines.serve.bodies.tools import MAX_TOOLS, Function, Named

_STORED = "answers are not stored"
# A chat's fields by the names that they have here.
RENAMED = {"max_completion_tokens": "max_output_tokens", "messages": "input"}


class FlatTool(Function):
    """A function, as this route has it."""

    type: Literal["function"]


class FlatToolChoice(Named):
    """The function that is to be called."""

    type: Literal["function"]


class FlatSchema(JsonSchema):
    """A JSON schema, as this route has it."""

    type: Literal["json_schema"]


class TextOptions(Strict):
    """What the text must look like."""

    format: Annotated[PlainFormat | FlatSchema, Field(discriminator="type")] | None = None


class ResponsesOptions(Strict):
    """What a stream holds besides the text."""

    include_obfuscation: bool = False


class ResponsesBody(Sampled):
    """`input`: a text, or messages, calls and their outputs."""

    unsupported: ClassVar[dict[str, str]] = {
        **OF_OTHER_FORMS,
        "previous_response_id": _STORED,
        "conversation": _STORED,
        "background": _STORED,
        "store": f"{_STORED}; send false, or leave it out",
        "starting_after": f"{_STORED}; send this body with the id of an event as Last-Event-ID",
        "reasoning": "the server does not control how a model reasons",
        "prompt": "there are no prompt templates",
        "max_tool_calls": "send parallel_tool_calls: false for one call at most",
        "service_tier": "there is one tier",
        "truncation": "a prompt that is too long is refused",
        "include": "answers hold all that there is",
        "logprobs": "use top_logprobs",
        "max_tokens": "use max_output_tokens",
        "max_completion_tokens": "use max_output_tokens",
        "messages": "use input",
        "prompt_cache_key": UNSUPPORTED["prompt_cache_key"],
    }
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {
        **NEUTRAL_OF_OTHER_FORMS,
        "store": (False,),
        "background": (False,),
        "service_tier": ("auto", "default"),
        "truncation": ("disabled",),
        "include": ([],),
    }

    input: Text | Messages
    instructions: Text | None = None
    max_output_tokens: Count | None = None
    stop: Stop | Stops = Field(default_factory=list)
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None
    stream_options: ResponsesOptions | None = None
    text: TextOptions | None = None
    tools: Items[FlatTool] = Field(default_factory=list, max_length=MAX_TOOLS)
    tool_choice: Literal["none", "auto", "required"] | FlatToolChoice | None = None
    parallel_tool_calls: bool = True
    metadata: Labels = Field(default_factory=dict)
    user: Text | None = None
    safety_identifier: Text | None = None

    def chat(self) -> ChatBody:
        """The same as a chat. Raises ApiError (400) for an input item that is not known."""
        values: dict[str, Any] = self.sampled() | {
            "messages": self._messages(),
            "max_completion_tokens": self.max_output_tokens,
            "stop": self.stop,
            "logprobs": self.top_logprobs is not None,
            "top_logprobs": self.top_logprobs,
            "tools": [_nested(tool) for tool in self.tools],
            "tool_choice": _choice(self.tool_choice),
            "parallel_tool_calls": self.parallel_tool_calls,
            "response_format": self._format(),
        }
        return validated({k: v for k, v in values.items() if v is not None}, ChatBody)

    def _messages(self) -> list[dict[str, Any]]:
        items: list[dict[str, Any]] = [{"role": "user", "content": self.input}]
        if isinstance(self.input, list):
            items = _as_one([_message(item, f"input[{i}]") for i, item in enumerate(self.input)])
        first = (
            [] if self.instructions is None else [{"role": "system", "content": self.instructions}]
        )
        return first + items

    def _format(self) -> dict[str, Any] | None:
        asked = None if self.text is None else self.text.format
        if not isinstance(asked, FlatSchema):
            return None if asked is None else asked.model_dump()
        schema = {"name": asked.name, "schema": asked.schema_}
        return {"type": "json_schema", "json_schema": schema}


def _nested(tool: FlatTool) -> dict[str, Any]:
    function = tool.model_dump(exclude_none=True, exclude={"type"})
    return {"type": "function", "function": function}


def _choice(asked: str | FlatToolChoice | None) -> Any:
    if isinstance(asked, FlatToolChoice):
        return {"type": "function", "function": {"name": asked.name}}
    return asked


def _as_one(messages: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Calls join the assistant's message before them, as in a chat."""
    out: list[dict[str, Any]] = []
    for message in messages:
        last = out[-1] if out and out[-1]["role"] == "assistant" else None
        if last is not None and "tool_calls" in message:
            calls = [*last.get("tool_calls", []), *message["tool_calls"]]
            out[-1] = {**last, "tool_calls": calls}
        else:
            out.append(message)
    return out


def _message(item: dict[str, Any], place: str) -> dict[str, Any]:
    """A message of a chat from an item of the input."""
    kind = item.get("type", "message")
    if kind == "message":
        content = item.get("content")
        role = "system" if item.get("role") == "developer" else item.get("role")
        return {"role": role, "content": _text(content, place)}
    if kind == "function_call":
        function = {"name": item.get("name"), "arguments": item.get("arguments")}
        call = {"id": item.get("call_id"), "type": "function", "function": function}
        return {"role": "assistant", "content": "", "tool_calls": [call]}
    if kind == "function_call_output":
        content = _text(item.get("output"), place)
        return {"role": "tool", "tool_call_id": item.get("call_id"), "content": content}
    known = "message, function_call or function_call_output"
    told = f"{place}.type={kind!r:.40} is not accepted: {known}"
    raise ApiError(told, param=f"{place}.type", code="invalid_value")


def _text(content: Any, place: str) -> Any:
    """A text, or the texts of parts together."""
    if not isinstance(content, list):
        return content
    texts = []
    for part in content:
        text = part.get("text") if isinstance(part, dict) else None
        kinds = ("input_text", "output_text", "text")
        if not isinstance(text, str) or part.get("type") not in kinds:
            told = f"{place}: part {shown(part)} is no text; only text is read"
            raise ApiError(told, param=place, code="invalid_value")
        texts.append(text)
    return "".join(texts)
