"""What of a body decides its answer, as a digest in the ids of a stream's events."""

import hashlib

from pipelines.serve.bodies.fields import ChatBody, CompletionBody
from pipelines.serve.bodies.messages import MessagesBody
from pipelines.serve.bodies.responses import ResponsesBody

Streamed = CompletionBody | ChatBody | ResponsesBody | MessagesBody
# `seed` and the model's fingerprint are in the ids themselves; the others decide no text.
LEFT_OUT = {
    "model",
    "seed",
    "stream",
    "stream_options",
    "prediction",
    "cache_salt",
    "store",
    "priority",
    "paceline",
    "user",
    "safety_identifier",
    "metadata",
}
LIMITS = {"max_tokens", "max_completion_tokens", "max_output_tokens"}


def limits_of(body: Streamed) -> list[int]:
    """The tokens that the body allows an answer; none: what the context leaves."""
    given = {getattr(body, name, None) for name in LIMITS}
    return sorted(limit for limit in given if limit is not None)


def digest_of(body: Streamed, *, with_limit: bool = True) -> str:
    """16 hexadecimal digits. `with_limit`: also of the limit of tokens, if the body has one."""
    decides = body.model_dump_json(exclude=LEFT_OUT | LIMITS)
    text = f"paceline body 1\0{limits_of(body) if with_limit else []}\0{decides}"
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()
