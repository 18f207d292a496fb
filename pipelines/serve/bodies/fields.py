"""The fields of request bodies: their types, and what is known but not supported.

Ranges of sampling options are checked by models/requests/request.py.
"""

import math
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, StringConstraints

from pipelines.serve.bodies.constraints import ResponseFormat, StructuredOutputs
from pipelines.serve.bodies.strict import Item, Items, Strict, at_most
from pipelines.serve.bodies.tools import ToolChoice, Tools

MAX_PROMPTS = 2**16
MAX_CHOICES = 16
MAX_STOPS = 16
MAX_BIASES = 1024
MAX_LABELS = 16
MAX_MESSAGES = 4096
MAX_TOP_LOGPROBS = 20
MAX_IMAGES = 10
MAX_PARTIAL = 3

_STRUCTURED = "use structured_outputs"
_TOOLS = "use tools and tool_choice"
_THINKING = "the server does not control how a model reasons"

# What other servers know: why it is refused here. Values in NEUTRAL ask for nothing: accepted.
UNSUPPORTED: dict[str, str] = {
    "functions": _TOOLS,
    "function_call": _TOOLS,
    "guided_json": _STRUCTURED,
    "guided_regex": _STRUCTURED,
    "guided_choice": _STRUCTURED,
    "guided_grammar": _STRUCTURED,
    "grammar": _STRUCTURED,
    "regex": _STRUCTURED,
    "best_of": "each choice is returned; use n",
    "suffix": "text can only be continued, not filled in",
    "prompt_logprobs": "use echo and logprobs of /v1/completions",
    "store": "answers are not stored",
    "audio": "only text is generated",
    "modalities": "only text is generated",
    "reasoning_effort": _THINKING,
    "verbosity": _THINKING,
    "web_search_options": "the server does not search the web",
    "moderation": "answers are not moderated",
    "service_tier": "there is one tier",
    "prompt_cache_key": "prompts share the KV cache by their tokens; cache_salt keeps them apart",
    "chat_template": "the template of the model is used",
    "chat_template_kwargs": "the template of the model is used without options",
    "skip_special_tokens": "special tokens are left out of texts",
    "include_stop_str_in_output": "stop strings are left out of texts",
    "return_token_ids": "use logprobs, or /tokenize",
    "stream_interval": "updates come every 20 ms, or more seldom where many stream",
    "use_beam_search": "beam search is not supported",
    "length_penalty": "beam search is not supported",
}
NEUTRAL: dict[str, tuple[Any, ...]] = {
    "best_of": (1,),
    "suffix": ("",),
    "store": (False,),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "skip_special_tokens": (True,),
    "include_stop_str_in_output": (False,),
    "return_token_ids": (False,),
    "use_beam_search": (False,),
}

# Of /v1/responses and /v1/messages.
OF_OTHER_FORMS: dict[str, str] = {
    "n": "an answer has one choice",
    "echo": "prompts are returned by /v1/completions",
    "response_format": "use text.format of /v1/responses, or structured_outputs",
    **{
        name: UNSUPPORTED[name]
        for name in ("skip_special_tokens", "include_stop_str_in_output", "return_token_ids")
    },
}
NEUTRAL_OF_OTHER_FORMS: dict[str, tuple[Any, ...]] = {"n": (1,), "echo": (False,)}

_PNG = "images are PNGs of the model's size"
OF_IMAGES: dict[str, str] = {
    "size": _PNG,
    "quality": _PNG,
    "style": _PNG,
    "background": _PNG,
    "output_compression": _PNG,
    "moderation": "images are not moderated",
    "decoder": "a decoder changes no image, and images are served by plain decoding",
    "window": "images are served by plain decoding",
    "guidance": "the scale is that of the model's generation_config.json",
    "student": "choose a student by its name as the model",
}
AUTO = ("auto",)
NEUTRAL_OF_IMAGES: dict[str, tuple[Any, ...]] = {
    "size": AUTO,
    "quality": AUTO,
    "background": AUTO,
    "moderation": AUTO,
    "decoder": ("sequential",),
}

Text = Annotated[str, StringConstraints(max_length=2**20)]
Stop = Annotated[str, StringConstraints(max_length=1024)]
Stops = Annotated[Items[Stop], Field(max_length=MAX_STOPS)]
Priority = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Count = Annotated[int, Field(ge=0, lt=2**31)]
Tokens = Items[Annotated[int, Field(ge=0, lt=2**31)]]
Prompts = Annotated[Items[Item], Field(max_length=MAX_PROMPTS)]
Messages = Annotated[Items[dict[str, Any]], Field(min_length=1, max_length=MAX_MESSAGES)]
Labels = Annotated[dict[str, str], Field(max_length=MAX_LABELS), at_most(MAX_LABELS)]
Bias = Annotated[float, Field(gt=-math.inf, lt=math.inf)]


class Body(Strict):
    """The JSON object that is sent."""

    unsupported: ClassVar[dict[str, str]] = {}
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = {}


class StreamOptions(Strict):
    """What a stream holds besides the text."""

    include_usage: bool = False
    include_obfuscation: bool = False
    continuous_usage_stats: Literal[False] = False


class ContentPart(Strict):
    """A part of a text."""

    type: Literal["text"]
    text: Text


class PredictedContent(Strict):
    """A text that the answer is expected to resemble."""

    type: Literal["content"]
    content: Text | Annotated[Items[ContentPart], Field(min_length=1, max_length=MAX_MESSAGES)]

    @property
    def text(self) -> str:
        """All parts together."""
        parts = self.content
        return parts if isinstance(parts, str) else "".join(part.text for part in parts)


class Ours(Strict):
    """`trace`: who proposed each token of a stream. `draft`: false for plain decoding.

    `trace_events`: where the time of the answer went, at its end.
    """

    trace: bool = False
    trace_events: bool = False
    draft: bool = True


class Sampled(Body):
    """What all answers have in common: how tokens are drawn, and what does not change them.

    `store`: false: a server that learns does not record the request.

    `min_p` and the like are no fields of the official clients, which take them as `extra_body`.
    """

    model: str | None = None
    seed: Seed | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: Count = 0
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Annotated[dict[str, Bias], Field(max_length=MAX_BIASES), at_most(MAX_BIASES)] = (
        Field(default_factory=dict)
    )
    min_tokens: Count = 0
    stop_token_ids: Annotated[Tokens, Field(max_length=MAX_BIASES)] = Field(default_factory=list)
    ignore_eos: bool = False
    structured_outputs: StructuredOutputs | None = None
    prediction: PredictedContent | None = None
    cache_salt: Annotated[str, StringConstraints(max_length=1024)] = ""
    store: bool = True
    priority: Priority = 0
    paceline: Ours = Ours()
    stream: bool = False

    def sampled(self) -> dict[str, Any]:
        """These fields, for a body of another route."""
        return {name: getattr(self, name) for name in Sampled.model_fields if name != "model"}


class Generation(Sampled):
    """What completions and chats have in common. `user` and the like are labels without effect."""

    unsupported: ClassVar[dict[str, str]] = UNSUPPORTED
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = NEUTRAL

    n: Annotated[int, Field(ge=1, le=MAX_CHOICES)] = 1
    stop: Stop | Stops = Field(default_factory=list)
    stream_options: StreamOptions | None = None
    response_format: ResponseFormat | None = None
    user: Text | None = None
    safety_identifier: Text | None = None
    metadata: Labels = Field(default_factory=dict)


class CompletionBody(Generation):
    """POST /v1/completions. `logprobs`: how many of the most likely tokens to report.

    With `echo`, of the prompt, too; then `max_tokens` may be 0.
    """

    prompt: Text | Annotated[Prompts[Text] | Tokens | Prompts[Tokens], Field(min_length=1)]
    max_tokens: Count = 16
    echo: bool = False
    logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None

    @property
    def limits(self) -> dict[str, int]:
        """The fields that bound an answer's tokens, by name."""
        return {"max_tokens": self.max_tokens}


class ChatBody(Generation):
    """POST /v1/chat/completions. `max_tokens`: by default, what the context leaves."""

    messages: Messages
    max_tokens: Count | None = None
    max_completion_tokens: Count | None = None
    tools: Tools = Field(default_factory=list)
    tool_choice: ToolChoice | None = None
    parallel_tool_calls: bool = True
    logprobs: bool = False
    top_logprobs: Annotated[int, Field(ge=0, le=MAX_TOP_LOGPROBS)] | None = None

    @property
    def limits(self) -> dict[str, int]:
        """The fields that bound an answer's tokens, by name; none: it may fill the context."""
        given = {name: getattr(self, name) for name in ("max_completion_tokens", "max_tokens")}
        return {name: value for name, value in given.items() if value is not None}


class ImageBody(Body):
    """POST /v1/images/generations. `prompt`: the number of a class.

    `partial_images`: previews of a streamed image. `steps`: a student's passes.
    """

    unsupported: ClassVar[dict[str, str]] = OF_IMAGES
    neutral: ClassVar[dict[str, tuple[Any, ...]]] = NEUTRAL_OF_IMAGES

    prompt: Text | int
    model: str | None = None
    n: Annotated[int, Field(ge=1, le=MAX_IMAGES)] = 1
    seed: Seed | None = None
    temperature: float = 1.0
    top_p: float = 1.0
    top_k: Count = 0
    min_p: float = 0.0
    steps: Count | None = None
    priority: Priority = 0
    response_format: Literal["b64_json"] = "b64_json"
    output_format: Literal["png"] = "png"
    stream: bool = False
    partial_images: Annotated[int, Field(ge=0, le=MAX_PARTIAL)] = 0
    user: Text | None = None


class TokenizeBody(Body):
    """POST /tokenize: a text, or a chat as its template writes it."""

    model: str | None = None
    prompt: Text | None = None
    messages: Messages | None = None
    add_special_tokens: bool = True


class DrafterBody(Body):
    """POST /drafter."""

    model: str | None = None
    drafter: str


class DetokenizeBody(Body):
    """POST /detokenize."""

    model: str | None = None
    tokens: Tokens
