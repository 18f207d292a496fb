"""The new tokens of one step, of a request that asks for them as they come."""

from dataclasses import dataclass

from models.requests.request import TokenLogprob

TARGET = "target"


@dataclass(frozen=True, slots=True, kw_only=True)
class Update:
    """What a request with `stream` gained in one step.

    `positions` [n] are the places of `tokens` [n] in the output, from 0 on: a range, unless the
    target decides groups of positions. `sources` [n] says who proposed each token: the drafter's
    name for an accepted draft token, "target" for a token that the target added. The last token of
    a round counts as the target's, also if the draft held it.

    `rejected` are draft tokens at the place of the last token, which the target chose otherwise.

    `text` is new text that no later token can change: text that may become part of a stop string
    and incomplete characters are held back. A stop string that ends the request is left out, and so
    is all text after it. None without a tokenizer. `logprobs` [n]: as `sampling.logprobs` asks.
    """

    id: str
    positions: range | tuple[int, ...]
    tokens: tuple[int, ...]
    sources: tuple[str, ...]
    text: str | None = None
    rejected: tuple[int, ...] = ()
    logprobs: tuple[TokenLogprob, ...] | None = None
