"""A request, its sampling options and its result.

These objects are sent between processes. They do not depend on models, batches or Ray.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from models.errors import InvalidOption
from models.registry import GUMBEL
from models.requests.spans import Span


def require(ok: bool, field_name: str, value: object, accepted: str) -> None:
    """Raise InvalidOption unless `ok`."""
    if not ok:
        raise InvalidOption(field_name, value, accepted)


@dataclass(frozen=True, slots=True, kw_only=True)
class Sampling:
    """How tokens are sampled, and when a request ends.

    Penalties follow the OpenAI convention (presence, frequency: generated tokens only) and CTRL's
    (repetition: prompt and generated tokens). `grammar` is what the output must follow, as
    models/requests/constraint.py writes it. `logprobs=k` reports the log-probability of each
    token and of the k likeliest, from the target's unprocessed distribution.
    """

    temperature: float = 1.0
    top_p: float = 1.0
    top_k: int = 0  # 0: off
    min_p: float = 0.0
    presence_penalty: float = 0.0
    frequency_penalty: float = 0.0
    repetition_penalty: float = 1.0
    logit_bias: Mapping[int, float] = field(default_factory=dict)
    max_tokens: int = 128
    min_tokens: int = 0
    stop: tuple[str, ...] = ()
    stop_token_ids: tuple[int, ...] = ()
    ignore_eos: bool = False
    logprobs: int | None = None
    grammar: str | None = None

    def __post_init__(self) -> None:
        require(
            0 <= self.temperature < 100, "temperature", self.temperature, "0 (greedy) to below 100"
        )
        require(0 < self.top_p <= 1, "top_p", self.top_p, "above 0, at most 1")
        require(self.top_k >= 0, "top_k", self.top_k, "0 (off) or a positive number of tokens")
        require(0 <= self.min_p <= 1, "min_p", self.min_p, "0 (off) to 1")
        for name in ("presence_penalty", "frequency_penalty"):
            require(-2 <= getattr(self, name) <= 2, name, getattr(self, name), "-2 to 2")
        require(
            0 < self.repetition_penalty <= 10,
            "repetition_penalty",
            self.repetition_penalty,
            "above 0, at most 10; 1 is off",
        )
        finite = all(bias < math.inf for bias in self.logit_bias.values())  # nan is not
        require(finite, "logit_bias", self.logit_bias, "numbers, or -inf to exclude a token")
        require(self.max_tokens >= 1, "max_tokens", self.max_tokens, "1 or more")
        require(
            0 <= self.min_tokens <= self.max_tokens,
            "min_tokens",
            self.min_tokens,
            f"0 to max_tokens ({self.max_tokens})",
        )
        ends = self.grammar is None or not self.ignore_eos
        require(ends, "ignore_eos", self.ignore_eos, "false with a grammar, which says what ends")
        require(all(self.stop), "stop", self.stop, "texts that are not empty")
        require(
            self.logprobs is None or 0 <= self.logprobs <= 20, "logprobs", self.logprobs, "0 to 20"
        )

    @property
    def has_penalties(self) -> bool:
        """Whether the distribution depends on the counts of earlier tokens."""
        return (
            self.presence_penalty != 0
            or self.frequency_penalty != 0
            or self.repetition_penalty != 1
        )


@dataclass(frozen=True, slots=True, kw_only=True)
class TokenLogprob:
    """Log-probability (nats) of a token, and of the most likely tokens, in descending order."""

    token: int
    logprob: float
    top: tuple[tuple[int, float], ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Request:
    """One sequence to be generated.

    `prompt` holds at least one token id. Random numbers depend only on `seed` (0 <= seed < 2**63)
    and the absolute position in the sequence. `noise` names the map from random numbers to tokens,
    one of MAPS in models/registry.py.

    `generated` holds tokens that the request has generated elsewhere: it continues after them, and
    they are part of its result. `generated_logprobs` are their log-probabilities, exactly if
    `sampling.logprobs` is set. `generated_positions` are their places in the output, ascending; ():
    from 0 on. Only targets that decide groups of positions have others.

    `prediction`: tokens that the output is expected to resemble, to be drafted from.

    `prompt_logprobs=k`: report the log-probabilities of the prompt's tokens after the first, and of
    the k likeliest, 0 to 20, in the result. Such a request reads its whole prompt.

    `cache_salt`: entries of the KV cache are shared between requests with the same one only.
    `drafts`: false: decode plainly, whatever the drafter; under `match` the tokens are the same.

    `stream`: report new tokens as they come; see models/requests/update.py.

    `record`: a server that learns may keep it, and its answer.

    `priority`: of requests that wait, those with lower ones begin first; it decides no token.
    `steps`: passes of a student that makes an image; None: as many as it was started with.
    `trace`: report in the result where its time went; it decides no token.
    """

    id: str
    prompt: tuple[int, ...]
    sampling: Sampling = field(default_factory=Sampling)
    seed: int = 0
    noise: str = GUMBEL
    generated: tuple[int, ...] = ()
    generated_logprobs: tuple[TokenLogprob, ...] = ()
    generated_positions: tuple[int, ...] = ()
    prediction: tuple[int, ...] = ()
    prompt_logprobs: int | None = None
    drafts: bool = True
    cache_salt: bytes = b""
    stream: bool = False
    record: bool = False
    priority: int = 0
    steps: int | None = None
    trace: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Result:
    """The outcome of a request.

    `tokens` and `logprobs` cover all generated tokens, those that the request began with and a stop
    token or EOS included. `stop_text` is the stop string that ended the request, if any.
    `accepted_length` is tokens per target pass, the bonus token included. `target_passes` counts
    passes after prefill. `accepted_histogram` holds the rounds with a draft by the number of
    accepted draft tokens, 0 to the depth of the deepest draft. These and `draft_tokens` count what
    happened since the request began or continued. `retryable`: the request may not have caused the
    error, or more memory would do, so it may succeed when it runs again; `invalid`: the reason is
    the request itself, no other one and no failure. `predicted` tokens of the request's prediction
    were accepted, `mispredicted` ones were not. `spans`: where the time went, if the request asks
    by `trace`.
    """

    id: str
    tokens: tuple[int, ...]
    finish_reason: str  # stop | length | error | cancelled
    exactness: str = "identical"  # see models/exactness.py
    accepted_length: float = 0.0
    target_passes: int = 0
    draft_tokens: int = 0  # proposed over all rounds
    accepted_histogram: tuple[int, ...] = ()
    stop_text: str | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    error: str | None = None
    retryable: bool = False
    invalid: bool = False
    prompt_logprobs: tuple[TokenLogprob, ...] | None = None
    cached_tokens: int = 0  # of the prompt, that were in the KV cache and not read
    predicted: int = 0
    mispredicted: int = 0
    spans: tuple[Span, ...] = ()
