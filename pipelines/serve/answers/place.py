"""How far a stream of /v1/responses or /v1/messages has come: the id of its events.

Some events come once, in an order that does not depend on how the text was cut into steps; others
add to a part of the answer. So a place is how many came once, and how much the others have added.
Nothing is stored: the answer is made once more, and what was sent before is left out.
"""

import re
from collections.abc import Sequence
from dataclasses import astuple, dataclass, replace

from models.requests.request import TokenLogprob
from pipelines.serve.answers.heading import Heading
from pipelines.serve.answers.progress import with_limit
from pipelines.serve.api_error import ApiError

FORM = re.compile(
    r"(\w+)\.(\d{1,19})(?:m(\d{1,9}))?\.([0-9a-f]{16})"
    r"\.(\d{1,12})\.([0-9a-f]{32})((?:\.\d{1,9}){4})"
)
LONGEST = 200  # characters of an id
KEPT = 22  # characters of the key in the ids of calls

Logprobs = Sequence[TokenLogprob]


@dataclass(slots=True)
class Told:
    """Events that came `once`; `deltas` that added characters of `text` and `logprobs`."""

    once: int = 0
    deltas: int = 0
    text: int = 0
    logprobs: int = 0


class Place:
    """Of a stream of the answer with this `key`, which is a part of all ids in it.

    `named`: whether its events have ids; only answers that can be made again have. `limit` and
    `digest`: as of Progress.
    """

    def __init__(
        self,
        *,
        fingerprint: str,
        seed: int,
        digest: str,
        created: int,
        key: str,
        told: Told | None = None,
        named: bool = True,
        limit: int | None = None,
    ) -> None:
        self.fingerprint, self.seed, self._named = fingerprint, seed, named
        self.limit, self.digest = limit, digest
        self._created, self._key = created, key
        self._told = told or Told()
        self._before = replace(self._told)  # at the beginning of this connection
        self._seen = Told()

    @property
    def number(self) -> int:
        """Of the next event, from 0 in all connections."""
        return self._told.once + self._told.deltas

    @property
    def id(self) -> str | None:
        """Of the last event."""
        if not self._named:
            return None
        seed = with_limit(self.seed, self.limit)
        head = self.fingerprint, seed, self.digest, self._created, self._key
        return ".".join(map(str, (*head, *astuple(self._told))))

    def heading(self, heading: Heading) -> Heading:
        """With the id and the time that the answer began with."""
        prefix = heading.id.partition("-")[0]
        return replace(heading, id=f"{prefix}-{self._key}", created=self._created)

    def call_id(self, index: int) -> str:
        """Of the call that is the part `index`: the same in all connections."""
        return f"call_{self._key[:KEPT]}{index:02x}"

    def once(self) -> bool:
        """An event that comes once: whether it is to be sent."""
        self._seen.once += 1
        sent = self._seen.once > self._before.once
        self._told.once += sent
        return sent

    def more(self, text: str, logprobs: Logprobs) -> tuple[str, Logprobs] | None:
        """What of a delta is to be sent; None: nothing."""
        seen, before, told = self._seen, self._before, self._told
        new = text[max(0, before.text - seen.text) :]
        entries = logprobs[max(0, before.logprobs - seen.logprobs) :]
        seen.text += len(text)
        seen.logprobs += len(logprobs)
        if not (new or entries):
            return None
        told.deltas += 1
        told.text += len(new)
        told.logprobs += len(entries)
        return new, entries


def first_place(heading: Heading, digest: str, *, named: bool) -> Place:
    """Of a new stream of a body with this digest."""
    return Place(
        fingerprint=heading.fingerprint,
        seed=heading.seed % 2**63,
        digest=digest,
        created=heading.created,
        key=heading.key,
        named=named,
        limit=heading.limit,
    )


def parse_place(text: str) -> Place:
    """From the id of the last event that a client has seen. Raises ApiError (400)."""
    found = FORM.fullmatch(text) if len(text) <= LONGEST and text.isascii() else None
    if found is None:
        told = f"Last-Event-ID {text[:80]!r} is not an id of this route's events"
        raise ApiError(told, param="Last-Event-ID", code="invalid_value")
    once, deltas, characters, logprobs = map(int, found[7].split(".")[1:])
    return Place(
        fingerprint=found[1],
        seed=int(found[2]),
        digest=found[4],
        created=int(found[5]),
        key=found[6],
        told=Told(once, deltas, characters, logprobs),
        limit=None if found[3] is None else int(found[3]),
    )
