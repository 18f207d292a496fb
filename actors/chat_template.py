"""A checkpoint's chat template: a list of messages as the text that the model continues.

The template is the one that transformers' `apply_chat_template` uses, rendered by its own sandbox:
chat_template.jinja, else `chat_template` in tokenizer_config.json.
"""

import json
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from cluster.storage.checkpoints import present
from models.errors import UnsupportedCheckpoint
from models.targets.decoder.config import read_json

FILE, SETTINGS, SPECIAL = "chat_template.jinja", "tokenizer_config.json", "special_tokens_map.json"
NAME = "default"  # of several templates
Message = Mapping[str, Any]  # role, content


class ChatTemplate:
    """Renders chats. Loading it imports no torch."""

    def __init__(self, checkpoint: str) -> None:
        """Raises UnsupportedCheckpoint if the folder has no template, or a malformed one."""
        self.checkpoint = checkpoint = present(checkpoint)
        self._source = _source(Path(checkpoint))
        self._special = _special_tokens(Path(checkpoint), self._source)
        self._check()

    def mentions(self, text: str) -> bool:
        """Whether the template writes this text, such as the tag of a tool call."""
        return text in self._source

    def render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        """The chat, and the beginning of the assistant's answer. `tools` may be called in it.

        The text holds its special tokens: encode it without adding any.

        Raises:
            ValueError: the template refuses the messages.
        """
        try:
            return self._render_calls(messages, tools)
        except Exception as error:  # a template is a program: it may fail in any way
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ValueError(f"the target's chat template refuses the messages: {reason}") from None

    def _render_calls(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]]) -> str:
        """Arguments of calls are texts in chats; most templates want objects, others the texts."""
        objects = [_with_objects(message) for message in messages]
        try:
            return self._render(objects, tools)
        except Exception:
            if objects == list(messages):
                raise
            return self._render(messages, tools)

    def _render(self, messages: Sequence[Message], tools: Sequence[Mapping[str, Any]] = ()) -> str:
        from transformers.utils import chat_template_utils  # takes a second to import

        render: Any = chat_template_utils.render_jinja_template
        ((text,), _) = render(
            [messages],
            tools=list(tools) or None,
            chat_template=self._source,
            add_generation_prompt=True,
            **self._special,
        )
        return str(text)

    def _check(self) -> None:
        from jinja2 import TemplateSyntaxError

        try:
            self._render([{"role": "user", "content": "Hello"}])
        except TemplateSyntaxError as error:
            told = f"{self.checkpoint!r}: the chat template is malformed: {error}"
            raise UnsupportedCheckpoint(told) from error
        except Exception:  # it wants other messages
            return


def _with_objects(message: Message) -> Message:
    """A message whose calls have their arguments as objects, where these are JSON."""
    calls = message.get("tool_calls")
    if not isinstance(calls, Sequence) or isinstance(calls, str):
        return message
    return {**message, "tool_calls": [_with_object(call) for call in calls]}


def _with_object(call: object) -> object:
    function = call.get("function") if isinstance(call, Mapping) else None
    given = function.get("arguments") if isinstance(function, Mapping) else None
    if not isinstance(given, str):
        return call
    try:
        value = json.loads(given)
    except (ValueError, RecursionError):
        return call
    if not isinstance(value, dict):
        return call
    return {**call, "function": {**function, "arguments": value}}  # type: ignore[dict-item]


def _source(folder: Path) -> str:
    """The template's text."""
    file = folder / FILE
    if file.exists():
        return file.read_text(encoding="utf-8")
    found = _settings(folder, SETTINGS).get("chat_template")
    if isinstance(found, list):  # several, by name
        found = {entry["name"]: entry["template"] for entry in found}.get(NAME)
    if not isinstance(found, str):
        raise UnsupportedCheckpoint(
            f"{str(folder)!r} has no chat template, so it cannot read chats ({FILE}, or "
            f"chat_template in {SETTINGS}): use a checkpoint tuned for chat, or give texts"
        )
    return found


def _special_tokens(folder: Path, template: str) -> dict[str, str]:
    """The special tokens by their names, such as bos_token, as templates use them."""
    found: dict[str, str] = {}
    for name, value in (_settings(folder, SPECIAL) | _settings(folder, SETTINGS)).items():
        text = value.get("content") if isinstance(value, dict) else value
        if name.endswith("_token") and isinstance(text, str):
            found[name] = text
    if set(re.findall(r"\b[a-z]+_token\b", template)) <= found.keys():
        return found
    from transformers import AutoTokenizer  # knows the defaults of tokenizer classes; slow to load

    tokens: dict[str, str] = AutoTokenizer.from_pretrained(folder).special_tokens_map
    return tokens


def _settings(folder: Path, name: str) -> dict[str, Any]:
    file = folder / name
    return read_json(file) if file.exists() else {}
