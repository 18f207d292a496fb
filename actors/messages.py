"""Everything that actors say to each other: small frozen objects, numbers as numpy arrays.

Requests and results themselves are in models/requests/request.py. Letters: N nodes of a draft, M
tokens with mass, summed over its nodes.
"""

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from actors.tally import Counts
from models.loop.figures import Figures
from models.requests.request import Request, Result, Sampling
from models.requests.update import Update

if TYPE_CHECKING:  # drivers, which read what targets hand over, do without torch
    from models.drafting.draft import Shape
    from models.loop.load import Load

Ints = NDArray[np.int64]


@dataclass(frozen=True, slots=True, kw_only=True)
class Submission:
    """A request on its way to a target actor. `ticket` is unique to this submission."""

    ticket: int
    request: Request


@dataclass(frozen=True, slots=True, kw_only=True)
class Ended:
    """What became of a submission."""

    ticket: int
    result: Result


@dataclass(frozen=True, slots=True, kw_only=True)
class Streamed:
    """New tokens of a submission that asks for them as they come."""

    ticket: int
    update: Update


@dataclass(frozen=True, slots=True, kw_only=True)
class Taken:
    """What a target actor hands over: requests that ended, and all it has counted so far.

    `streamed`: the updates of all steps since the last message, those of requests in `ended`
    included. `shares`: whether prompts may begin with what the KV cache holds, see
    TokenLoop.shares. `failure`: the token loop failed after these; the actor is of no use any more.
    """

    ended: tuple[Ended, ...] = ()
    streamed: tuple[Streamed, ...] = ()
    figures: Figures = field(default_factory=Figures)
    shares: bool = True
    failure: Exception | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Opening:
    """What a draft actor must know of a request besides its tokens, told at first contact."""

    num_prompt: int
    seed: int
    sampling: Sampling
    stop_tokens: tuple[int, ...]  # as the target knows them, EOS included
    noise: str
    cache_salt: bytes = b""


@dataclass(frozen=True, slots=True, kw_only=True)
class Growth:
    """A request has grown from `base` to `base + len(tokens)` committed tokens, its new version.

    With an `opening`, `base` is 0 and `tokens` begins with the prompt. `choices`: what the target
    would choose next, as far as its last pass says; for drafters that guess by it. `states`: the
    target's hidden states of the positions after those told before; for drafters that read them.
    """

    id: str
    base: int
    tokens: Ints  # [new]
    opening: Opening | None = None
    choices: Ints | None = None
    states: NDArray[np.float32] | None = None  # [P, n, D]

    @property
    def version(self) -> int:
        """Committed length: what the draft asked for continues."""
        return self.base + len(self.tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftAsk:
    """Guess how these requests go on. `client` tells one target actor's requests from another's."""

    client: str
    vocab_size: int
    growths: tuple[Growth, ...]
    shape: "Shape"
    sampled: bool  # the rule needs the distributions that the tokens were drawn from
    ended: tuple[str, ...] = ()  # requests to forget


@dataclass(frozen=True, slots=True, kw_only=True)
class SparseRows:
    """Distributions by their tokens with mass; row i is the slice bounds[i] : bounds[i + 1]."""

    bounds: Ints  # [N + 1]
    tokens: NDArray[np.int32]  # [M]
    probs: NDArray[np.float32]  # [M]


@dataclass(frozen=True, slots=True, kw_only=True)
class Guess:
    """A draft of one request, good for one version of it."""

    id: str
    version: int
    tokens: Ints  # [N]
    parents: Ints  # [N]
    probs: SparseRows | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftReply:
    """The guesses; `missing` are requests that must be opened anew."""

    guesses: tuple[Guess, ...]
    missing: tuple[str, ...] = ()
    passes: int = 0  # of the draft model, for this reply
    seconds: float = 0.0  # at work on this reply


@dataclass(frozen=True, slots=True, kw_only=True)
class DraftTeam:
    """What a target actor must know of the draft actors before it meets them.

    `deterministic`: their guesses are not drawn from a distribution. `by_choices`: they are made
    from the target's own, which must be told. `layers`: those of the target that they read,
    numbered as in models/readout.py. `patience`: how long a late draft is waited for, in rounds of
    the target.
    """

    name: str
    max_width: int
    deterministic: bool = False
    by_choices: bool = False
    layers: tuple[int, ...] = ()
    patience: float = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class News:
    """What the requests of one ingress have gained since its last call.

    All updates of a request come before or together with its result. `manager`: who tells; one that
    took the place of another knows nothing of the requests that the other one had.
    """

    manager: str = ""
    updates: tuple[Update, ...] = ()
    results: tuple[Result, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Row:
    """A request that a server may learn from, and its answer, in token ids."""

    prompt: tuple[int, ...]
    tokens: tuple[int, ...]
    seed: int
    temperature: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Learning:
    """How far a server has trained its drafter. Lengths are 0 before the first round.

    `rows`: recorded so far. `better`, `no_better` and `failed`: rounds by how they ended.
    `present_length` and `new_length`: of the last round, tokens per round of the loop with the
    drafter in use then and with the trained one.
    """

    rows: int = 0
    better: int = 0
    no_better: int = 0
    failed: int = 0
    present_length: float = 0.0
    new_length: float = 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class PoolState:
    """A pool at one moment. `figures` are those of requests until they ended.

    `target_died`, `draft_died`: when one of the actors died last, in Unix seconds; 0: none did.
    `lack`: why no target will take requests soon; None: one does, or starts.
    """

    figures: Figures
    target_actors: int  # that can be called
    draft_actors: int
    target_deaths: int = 0
    draft_deaths: int = 0
    target_died: float = 0.0
    draft_died: float = 0.0
    resumed: int = 0  # requests that continued on another actor
    replayed: int = 0  # tokens that they had streamed before
    lack: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Measured:
    """All that a manager knows in numbers. `loads`: of the target actors that answered."""

    counts: Counts
    pool: PoolState
    loads: "tuple[Load, ...]"
    queued: int  # requests that have not ended
    learning: Learning = field(default_factory=Learning)
