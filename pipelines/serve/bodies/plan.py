"""From a body and its prompts in tokens to the requests that run: pure functions.

Seeds: choice 0 of each prompt uses the seed of the body itself, so the `seed` of a row that
`paceline generate` wrote gives that row's text. Other choices use hashes of seed and choice.
"""

import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from models.errors import InvalidOption
from models.requests.request import Request, Sampling
from pipelines.serve.api_error import ApiError
from pipelines.serve.bodies.fields import ChatBody, CompletionBody, Generation

SAME = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "presence_penalty",
    "frequency_penalty",
    "repetition_penalty",
    "min_tokens",
    "ignore_eos",
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Bounds:
    """Of the target: tokens of a request, prompt and completion, and of its vocabulary."""

    max_length: int
    vocabulary: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Planned:
    """The requests of one body, choice by choice of each prompt in turn; `seed`: of the body.

    `limit`: the tokens that the context leaves a chat, where its body names no limit.
    """

    seed: int
    requests: tuple[Request, ...]
    n: int = 1  # choices of each prompt
    limit: int | None = None
    muted: bool = False  # no completions are wanted, only what is known of the prompts

    @property
    def prompt_tokens(self) -> int:
        """Each prompt counts once, however many choices it has."""
        first = {request.id.rpartition("/")[0]: request for request in self.requests}
        return sum(len(request.prompt) for request in first.values())


def plan(
    body: CompletionBody | ChatBody,
    prompts: Sequence[Sequence[int]],
    bounds: Bounds,
    *,
    name: str,
    grammar: str | None = None,
    prediction: Sequence[int] = (),
    client: str = "",
) -> Planned:
    """The requests, with ids that begin with `name`.

    `grammar`: what their texts follow. `prediction`: the tokens of what they may resemble. Clients
    do not share the KV cache: the time of an answer would tell what others have sent. What follows
    a grammar or logit_bias is not recorded: its tokens are not the target's own choice.

    Raises ApiError (400) for an option out of range, a token that is none of the target's, and a
    prompt that leaves no room.
    """
    seed = drawn_seed() if body.seed is None else body.seed
    for prompt in prompts:
        _check_prompt(prompt, bounds)
    samplings = [_sampling(body, len(prompt), bounds, grammar) for prompt in prompts]
    salt, predicted = _salt(client, body.cache_salt), tuple(prediction)
    echoes = isinstance(body, CompletionBody) and body.echo
    asked = _logprobs(body) if echoes else None
    own = grammar is None and not body.logit_bias
    record = body.store and not body.cache_salt and own and asked is None
    requests = tuple(
        Request(
            id=f"{name}/{p}/{choice}",
            prompt=prompt,
            sampling=samplings[p],
            seed=choice_seed(seed, choice),
            prediction=predicted,
            prompt_logprobs=asked,
            drafts=body.paceline.draft,
            cache_salt=salt,
            priority=body.priority,
            stream=True,
            trace=body.paceline.trace_events,
            record=record,
        )
        for p, prompt in enumerate(map(tuple, prompts))  # which its choices share
        for choice in range(body.n)
    )
    return Planned(
        seed=seed,
        requests=requests,
        n=body.n,
        limit=None if body.limits else samplings[0].max_tokens,
        muted=echoes and body.max_tokens == 0,
    )


def drawn_seed() -> int:
    """A seed for a body that has none; it is returned, so that the answer can be had again."""
    return secrets.randbits(63)


def choice_seed(seed: int, choice: int) -> int:
    """0 <= seed < 2**63, from any int64."""
    if choice == 0:
        return seed % 2**63
    text = f"paceline choice 1\0{seed % 2**63}\0{choice}"
    digest = hashlib.blake2b(text.encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def _salt(client: str, given: str) -> bytes:
    if not (client or given):
        return b""
    text = f"paceline cache 1\0{client}\0{given}"
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest()


def _check_prompt(prompt: Sequence[int], bounds: Bounds) -> None:
    if not prompt:
        raise ApiError("prompt is empty: it must hold a token or more", param="prompt")
    if len(prompt) >= bounds.max_length:  # first: then there are few tokens to look at
        raise _too_long(f"the prompt of {len(prompt)} tokens leaves no room", bounds)
    bad = [token for token in prompt if not 0 <= token < bounds.vocabulary]
    if bad:
        told = f"prompt holds token {bad[0]}, which is not in 0 to {bounds.vocabulary - 1}"
        raise ApiError(told, param="prompt", code="invalid_value")


def _sampling(
    body: CompletionBody | ChatBody, prompt_tokens: int, bounds: Bounds, grammar: str | None
) -> Sampling:
    name, max_tokens = _max_tokens(body, bounds.max_length - prompt_tokens)
    values = {each: getattr(body, each) for each in SAME}
    try:
        sampling = Sampling(
            max_tokens=max_tokens,
            logit_bias=_logit_bias(body, bounds),
            stop=(body.stop,) if isinstance(body.stop, str) else tuple(body.stop),
            stop_token_ids=tuple(body.stop_token_ids),
            logprobs=_logprobs(body),
            grammar=grammar,
            **values,
        )
    except InvalidOption as error:
        field = name if error.field == "max_tokens" else error.field
        raise ApiError(str(error), param=field, code="invalid_value") from None
    _check_tokens("stop_token_ids", body.stop_token_ids, bounds)
    if prompt_tokens + max_tokens > bounds.max_length:
        told = f"prompt of {prompt_tokens} tokens and {name}={max_tokens} do not fit"
        raise _too_long(told, bounds, param=name)
    return sampling


def _max_tokens(body: CompletionBody | ChatBody, room: int) -> tuple[str, int]:
    """The name and the value of the field that bounds the completion."""
    if isinstance(body, CompletionBody):
        return "max_tokens", max(body.max_tokens, int(body.echo))
    given = body.limits
    if len(set(given.values())) > 1:
        told = f"max_tokens={body.max_tokens} and max_completion_tokens differ; give one of them"
        raise ApiError(told, param="max_tokens", code="invalid_value")
    return next(iter(given.items()), ("max_completion_tokens", room))


def _logit_bias(body: Generation, bounds: Bounds) -> dict[int, float]:
    out = {}
    for key, bias in body.logit_bias.items():
        if not (key.isascii() and key.isdecimal() and len(key) < 12):
            told = f"logit_bias has the key {key[:40]!r}; token ids are needed, such as '42'"
            raise ApiError(told, param="logit_bias", code="invalid_value")
        if not -100 <= bias <= 100:
            told = f"logit_bias[{key!r}]={bias} is not accepted: -100 to 100"
            raise ApiError(told, param="logit_bias", code="invalid_value")
        out[int(key)] = bias
    _check_tokens("logit_bias", list(out), bounds)
    return out


def _logprobs(body: CompletionBody | ChatBody) -> int | None:
    if isinstance(body, CompletionBody):
        return body.logprobs
    if body.top_logprobs is not None and not body.logprobs:
        told = f"top_logprobs={body.top_logprobs} needs logprobs=true"
        raise ApiError(told, param="top_logprobs", code="invalid_value")
    return (body.top_logprobs or 0) if body.logprobs else None


def _check_tokens(field: str, tokens: Sequence[int], bounds: Bounds) -> None:
    bad = [token for token in tokens if not 0 <= token < bounds.vocabulary]
    if bad:
        told = f"{field} names token {bad[0]}, which is not in 0 to {bounds.vocabulary - 1}"
        raise ApiError(told, param=field, code="invalid_value")


def _too_long(told: str, bounds: Bounds, *, param: str = "prompt") -> ApiError:
    told += f": the model takes {bounds.max_length} tokens, prompt and completion together"
    return ApiError(told, param=param, code="context_length_exceeded")
