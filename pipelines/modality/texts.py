"""Texts on their way through a generate job: prompts are texts or chats, results completions."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from typing import Any, ClassVar

import pyarrow as pa

from actors.chat_template import ChatTemplate
from actors.tokenizer import TokenizerActor
from models.errors import InvalidOption
from models.requests.request import Result
from models.targets.limits import Limits, read_limits
from pipelines.generate.config import GenerateConfig
from pipelines.inputs.rows import TOKENS, PromptText
from pipelines.inputs.shards import ShardPlan
from pipelines.modality.chat import (
    MESSAGES,
    holds_chats,
    may_hold_chats,
    messages_of,
    prompt_column,
)
from pipelines.modality.modality import Codec, Contents, refuse_column

OF_IMAGES = ("student", "decoder", "window", "coupling", "start", "guidance", "images_as")
CONTEXT = (
    8  # prompt tokens decoded before a completion, so that its first characters come out right
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Texts:
    """See pipelines/modality/modality.py."""

    kind: ClassVar[str] = "text"
    checkpoint: str

    @property
    def column(self) -> pa.Field:
        """Completions."""
        return pa.field("completion", pa.string())

    @property
    def limits(self) -> Limits:
        """As the checkpoint's config.json says."""
        return read_limits(self.checkpoint)

    def settled(self, config: GenerateConfig) -> GenerateConfig:
        """Raises InvalidOption for what only images have."""
        for name in OF_IMAGES:
            value = getattr(config, name)
            if value is not None:
                told = f"only with an image target; {config.target!r} generates text"
                raise InvalidOption(name, value, told)
        return replace(config, max_tokens=config.sampling().max_tokens)

    def check_plan(self, plan: ShardPlan, config: GenerateConfig) -> None:
        """Refuse a column that holds neither texts nor chats, and chats without a template."""
        column = prompt_column(config.prompt_field, plan.schema.names)
        refuse_column(plan.schema, column, self.prompts, "text")
        if holds_chats(plan.schema, column):
            chat_template(self.checkpoint)

    @staticmethod
    def prompts(kind: pa.DataType) -> bool:
        """Whether a column of this type may hold prompts."""
        text = pa.types.is_string(kind) or pa.types.is_large_string(kind)
        return bool(text) or may_hold_chats(kind)

    def prompt(self, value: object, field: str) -> PromptText:
        """A text as it stands, a chat as the template writes it; raises ValueError for others."""
        if value is None:
            raise ValueError(f"field {field!r} is missing")
        if isinstance(value, list) or field == MESSAGES:
            messages = messages_of(value, field)
            text = chat_template(self.checkpoint).render(messages)
            return PromptText(text=text, rendered=True)
        if not isinstance(value, str):
            kind = type(value).__name__
            raise ValueError(f"field {field!r} is {kind} {value!r:.80}, not text")
        if not value:
            raise ValueError(f"field {field!r} is empty")
        return PromptText(text=value)

    def codec(self) -> TokenizerActor:
        """The checkpoint's tokenizer."""
        return TokenizerActor(self.checkpoint)

    def contents(
        self, rows: pa.Table, results: Sequence[Result], codec: Codec, *, samples: int
    ) -> Contents:
        """Completions; None for errors."""
        return Contents(values=list(completions(rows.column(TOKENS).to_pylist(), results, codec)))

    def beside(self, url: str, parts: Sequence[str]) -> Mapping[str, bytes]:
        """Nothing."""
        return {}


@cache
def chat_template(checkpoint: str) -> ChatTemplate:
    """The checkpoint's, loaded once per process."""
    return ChatTemplate(checkpoint)


def completions(
    prompts: Sequence[list[int] | None], results: Sequence[Result], codec: Codec
) -> list[str | None]:
    """The generated texts, without the stop text that ended them; None for errors."""
    heads = [(prompt or [])[-CONTEXT:] for prompt in prompts]
    whole = [[*head, *result.tokens] for head, result in zip(heads, results, strict=True)]
    alone = [list(result.tokens) for result in results]
    texts = codec.decode_batch([*whole, *heads, *alone, *(tokens[:-1] for tokens in whole)])
    count = len(results)
    groups: list[Any] = [texts[i * count : (i + 1) * count] for i in range(4)]
    return [
        None if result.finish_reason == "error" else completion(result.stop_text, *found)
        for result, *found in zip(results, *groups, strict=True)
    ]


def completion(stop: str | None, whole: str, head: str, alone: str, before: str) -> str:
    """The text that follows the prompt, up to the stop text that its last token completed.

    Args:
        whole: the text of the prompt's last tokens and the generated ones.
        head: of those of the prompt; alone: of the generated ones, which may lack a first space.
        before: `whole` without its last token.
    """
    offset = len(head) if whole.startswith(head) else len(whole) - len(alone)
    if stop is None:
        return whole[offset:] if whole.startswith(head) else alone
    start = max(offset, len(before.rstrip("\ufffd")) - len(stop) + 1)
    end = whole.find(stop, start)
    end = end if end >= 0 else whole.rfind(stop, max(offset, 0))
    return whole[offset : end if end >= 0 else None]
