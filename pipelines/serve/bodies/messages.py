"""POST /v1/messages, Anthropic's interface: its fields, and the chat that they stand for."""

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.constraints import Schema
from pipelines.serve.bodies.fields import (
    MAX_MESSAGES,
    MAX_STOPS,
    NEUTRAL_OF_OTHER_FORMS,
    OF_OTHER_FORMS,
    Body,
    ChatBody,
    Count,
    Messages,
    Sampled,
    Stop,
    Text,
)
from pipelines.serve.bodies.read_body import validated
from pipelines.serve.bodies.shown import shown
from pipelines.serve.bodies.strict import Items, Strict
from pipelines.serve.bodies.tools import MAX_TOOLS, Name

# A chat's fields by the names that they have here.
RENAMED = {"max_completion_tokens": "max_tokens", "stop": "stop_sequences"}


class CacheControl(Strict):
    """Without effect: prompts share the KV cache by their tokens."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class TextBlock(Strict):
    """A text."""

    cache_control: CacheControl | None = None
    type: Literal["text"]
    text: str


class MessagesTool(Strict):
    """A tool. `input_schema`: a JSON schema of its input."""

    type: Literal["custom"] = "custom"
    cache_control: CacheControl | None = None
    name: Name
    description: str | None = None
    input_schema: Schema


class MessagesToolChoice(Strict):
    """`auto`: a text, or calls; `any`: the model must call a tool; `tool`: the one of this name."""

    type: Literal["auto", "any", "tool", "none"]
    name: Name | None = None
    disable_parallel_tool_use: bool = False


class Metadata(Strict):
    """A label without effect."""

    user_id: Text | None = None


class CountBody(Body):
    """POST /v1/messages/count_tokens."""

    model: str | None = None
    messages: Messages
    system: Text | Annotated[Items[TextBlock], Field(max_length=MAX_MESSAGES)] | None = None
    tools: Items[MessagesTool] = Field(default_factory=list, max_length=MAX_TOOLS)
    tool_choice: MessagesToolChoice | None = None

    def chat(self) -> ChatBody:
        """The same as a chat. Raises ApiError (400) for a block that is not known."""
        return validated(self._values(), ChatBody)

    def _values(self) -> dict[str, Any]:
        choice = self.tool_choice
        values = {
            "messages": self._messages(),
            "tools": [_function(tool) for tool in self.tools],
            "tool_choice": _choice(self.tool_choice),
            "parallel_tool_calls": not (choice and choice.disable_parallel_tool_use),
        }
        return {name: value for name, value in values.items() if value is not None}

    def _messages(self) -> list[dict[str, Any]]:
        out: list[dict[str, Any]] = []
        if self.system is not None:
            parts = self.system if isinstance(self.system, str) else [b.text for b in self.system]
            out.append({"role": "system", "content": "".join(parts)})
        for index, message in enumerate(self.messages):
            out += _chat_messages(message, f"messages[{index}]")
        return out


class MessagesBody(CountBody, Sampled):
    """The fields of an answer, besides those that decide the prompt."""

    unsupported: ClassVar[dict[str, str]] = {
        **OF_OTHER_FORMS,
        "stop": "use stop_sequences",
        "max_completion_tokens": "use max_tokens",
        "logprobs": "answers in this form have none; use /v1/chat/completions",
        "top_logprobs": "answers in this form have none; use /v1/chat/completions",
        "stream_options": "streams in this form have the usage, and nothing else to choose",
        "thinking": "the server does not control how a model reasons",
        "mcp_servers": "only the client's own tools are known",
        "container": "there is no code execution",
        "service_tier": "there is one tier",
        "store": "answers are not stored",
    }
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {
        **NEUTRAL_OF_OTHER_FORMS,
        "logprobs": (False,),
        "thinking": ({"type": "disabled"},),
        "service_tier": ("auto", "standard_only"),
        "store": (False,),
    }

    max_tokens: Count
    stop_sequences: Items[Stop] = Field(default_factory=list, max_length=MAX_STOPS)
    metadata: Metadata | None = None

    def _values(self) -> dict[str, Any]:
        own = {"max_completion_tokens": self.max_tokens, "stop": self.stop_sequences}
        sampled = {name: value for name, value in self.sampled().items() if value is not None}
        return CountBody._values(self) | sampled | own


def _function(tool: MessagesTool) -> dict[str, Any]:
    function: dict[str, Any] = {"name": tool.name, "parameters": tool.input_schema}
    if tool.description is not None:
        function["description"] = tool.description
    return {"type": "function", "function": function}


def _choice(asked: MessagesToolChoice | None) -> Any:
    if asked is None or asked.type in ("auto", "none"):
        return None if asked is None else asked.type
    if asked.type == "any":
        return "required"
    if asked.name is None:
        raise ApiError("tool_choice.name is missing", param="tool_choice.name")
    return {"type": "function", "function": {"name": asked.name}}


def _chat_messages(message: dict[str, Any], place: str) -> list[dict[str, Any]]:
    """One message, or several where it holds results of tools."""
    content = message.get("content")
    if not isinstance(content, list):
        return [message]
    texts, calls, results = "", [], []
    for index, block in enumerate(content):
        kind = block.get("type") if isinstance(block, dict) else None
        if kind == "text" and isinstance(block.get("text"), str):
            texts += block["text"]
        elif kind == "tool_use":
            arguments = json.dumps(block.get("input", {}))
            function = {"name": block.get("name"), "arguments": arguments}
            calls.append({"id": block.get("id"), "type": "function", "function": function})
        elif kind == "tool_result":
            results.append(_result(block, f"{place}.content[{index}]"))
        else:
            told = f"{place}.content[{index}] is {shown(block)}: text, tool_use or tool_result"
            raise ApiError(told, param=place, code="invalid_value")
    said = {"role": message.get("role"), "content": texts}
    if calls:
        said["tool_calls"] = calls
    return results + ([said] if texts or calls or not results else [])


def _result(block: dict[str, Any], place: str) -> dict[str, Any]:
    content = block.get("content", "")
    if isinstance(content, list):
        texts = [part.get("text") if isinstance(part, dict) else None for part in content]
        if not all(isinstance(text, str) for text in texts):
            raise ApiError(f"{place}: only text is read", param=place, code="invalid_value")
        content = "".join(map(str, texts))
    return {"role": "tool", "tool_call_id": block.get("tool_use_id"), "content": content}
