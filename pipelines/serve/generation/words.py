"""A target's tokenizer and chat template in an ingress, off the event loop."""

import asyncio
from collections.abc import Sequence
from functools import cache
from typing import Any

from actors.chat_template import ChatTemplate
from actors.tokenizer import TokenizerActor
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.requests.grammar import Grammars, load_grammars
from pipelines.modality.chat import messages_of
from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.shown import shown
from pipelines.serve.bodies.tool_tags import OPEN, tags_of


class Words:
    """Texts and chats to tokens, and back."""

    def __init__(self, checkpoint: str) -> None:
        """Raises UnsupportedCheckpoint if the folder has no tokenizer."""
        self._checkpoint = checkpoint
        self._tokenizer = TokenizerActor(checkpoint)
        self._template: ChatTemplate | None = None
        self._grammars: Grammars | None = None
        self._tags: tuple[str, str] | None = None
        self.spell = cache(self._tokenizer.spell)

    async def encode(
        self, texts: Sequence[str], *, add_special_tokens: bool = True
    ) -> list[list[int]]:
        """Token ids of each text."""
        encode = self._tokenizer.encode_batch
        return await asyncio.to_thread(encode, texts, add_special_tokens=add_special_tokens)

    async def encode_chat(self, messages: Sequence[Any], tools: Sequence[Any] = ()) -> list[int]:
        """Token ids of a chat and of the beginning of its answer; `tools` as the template has them.

        Raises ApiError (400) for messages that the template refuses, and without a template.
        """
        text = await asyncio.to_thread(self._render, messages, tools)
        return (await self.encode([text], add_special_tokens=False))[0]

    async def tool_tags(self) -> tuple[str, str]:
        """The tags of tool calls, for grammars. Raises ApiError (400) if the model has none."""
        tags = await asyncio.to_thread(self._tool_tags)
        if tags is None:
            told = (
                "tool_choice auto is not supported by this model: its chat template has no "
                f"{OPEN}, or its texts leave that out; name a tool, or use 'required' or 'none'"
            )
            raise ApiError(told, param="tool_choice", code="unsupported_parameter")
        return tags

    def _tool_tags(self) -> tuple[str, str] | None:
        if not self._chat_template().mentions(OPEN):
            return None
        self._tags = self._tags or tags_of(self._tokenizer.checkpoint)
        return self._tags

    async def check_grammar(self, grammar: str, field: str) -> None:
        """Raise ApiError (400), which names the field, if the grammar cannot be compiled."""
        try:
            await asyncio.to_thread(self._check_grammar, grammar, field)
        except InvalidOption as error:
            raise ApiError(str(error), param=field, code="invalid_value") from None
        except UnsupportedCheckpoint as error:
            raise ApiError(str(error), param=field, code="unsupported_parameter") from None

    def _check_grammar(self, grammar: str, field: str) -> None:
        self._grammars = self._grammars or load_grammars(self._checkpoint, 0, ())
        self._grammars.check(grammar, field)

    async def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens."""
        return (await asyncio.to_thread(self._tokenizer.decode_batch, [tokens]))[0]

    def decode_now(self, tokens: list[int]) -> str:
        """The text of a few tokens."""
        return self._tokenizer.decode_batch([tokens])[0]

    def _render(self, messages: Sequence[Any], tools: Sequence[Any]) -> str:
        try:
            chat = messages_of([_joined(message) for message in messages], "messages")
            return self._chat_template().render(chat, tools)
        except ValueError as error:
            raise ApiError(str(error), param="messages", code="invalid_value") from None

    def _chat_template(self) -> ChatTemplate:
        try:
            self._template = self._template or ChatTemplate(self._checkpoint)
        except UnsupportedCheckpoint:
            told = "the model has no chat template: send texts to /v1/completions"
            raise ApiError(told, param="messages", code="no_chat_template") from None
        return self._template


def _joined(message: Any) -> Any:
    """A message whose content is a list of parts, with their texts joined; a call may have none."""
    content = message.get("content") if isinstance(message, dict) else None
    if content is None and isinstance(message, dict) and message.get("tool_calls"):
        return {**message, "content": ""}
    if not isinstance(content, list):
        return message
    texts = []
    for part in content:
        if not (isinstance(part, dict) and part.keys() == {"type", "text"}):
            raise ValueError(f"messages: part {shown(part)} is no text; only text is read")
        if part["type"] != "text" or not isinstance(part["text"], str):
            raise ValueError(f"messages: part {shown(part)} is no text; only text is read")
        texts.append(part["text"])
    return {**message, "content": "".join(texts)}
