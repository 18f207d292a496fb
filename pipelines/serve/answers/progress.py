"""How far a stream has come: the id of its events, from which the same body can go on.

Nothing is stored: the answer is a function of the body and the seed, so it is made once more, and
what was sent before is left out.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

from pipelines.serve.answers.choice import Delta
from pipelines.serve.api_error import ApiError

HEADER = "last-event-id"
LONGEST = 2000  # characters of an id
MOST_CHOICES = 64
FORM = re.compile(
    r"(\w+)\.(\d{1,19})(?:m(\d{1,9}))?\.([0-9a-f]{16})"
    rf"((?:\.\d{{1,9}}-\d{{1,9}}e?){{1,{MOST_CHOICES}}})"
)


@dataclass(slots=True)
class Sent:
    """Of one choice: characters, log-probabilities, and whether its end was told."""

    text: int = 0
    logprobs: int = 0
    ended: bool = False

    def add(self, delta: Delta) -> None:
        """A delta was sent."""
        self.text += len(delta.text)
        self.logprobs += len(delta.logprobs)
        self.ended = self.ended or delta.finish_reason is not None

    def told(self) -> str:
        """`12-0e`: twelve characters, and the end."""
        return f"{self.text}-{self.logprobs}{'e' if self.ended else ''}"


class Progress:
    """Of all choices of one stream, from a server with this fingerprint.

    `digest`: of what the body says that decides the answer. `limit`: the tokens that the server
    gave an answer whose body names no limit.
    """

    def __init__(
        self,
        fingerprint: str,
        seed: int,
        digest: str,
        sent: Sequence[Sent],
        limit: int | None = None,
    ) -> None:
        self.fingerprint, self.seed, self.limit = fingerprint, seed, limit
        self.digest = digest
        self._sent = list(sent)
        self._before = [replace(each) for each in sent]  # at the beginning of this connection
        self._seen = [Sent() for _ in sent]

    @property
    def begins(self) -> bool:
        """Whether nothing was sent on an earlier connection."""
        return not any(each.text or each.logprobs or each.ended for each in self._before)

    @property
    def count(self) -> int:
        """The number of choices."""
        return len(self._sent)

    def split(self, delta: Delta) -> tuple[Delta | None, Delta | None]:
        """What was sent before, and what is to be sent; None: nothing."""
        before, seen = self._before[delta.index], self._seen[delta.index]
        text = min(max(before.text - seen.text, 0), len(delta.text))
        logprobs = min(max(before.logprobs - seen.logprobs, 0), len(delta.logprobs))
        seen.add(delta)
        if not (text or logprobs or before.ended):
            return None, delta
        end = delta.finish_reason
        old = replace(
            delta,
            text=delta.text[:text],
            logprobs=delta.logprobs[:logprobs],
            finish_reason=end if before.ended else None,
        )
        new = replace(
            delta,
            text=delta.text[text:],
            logprobs=delta.logprobs[logprobs:],
            offset=delta.offset + text,
            finish_reason=None if before.ended else end,
        )
        return old, None if new.is_empty else new

    def note(self, delta: Delta) -> str:
        """A delta is sent; returns the id of its event."""
        self._sent[delta.index].add(delta)
        head = self.fingerprint, with_limit(self.seed, self.limit), self.digest
        return ".".join([*head, *(each.told() for each in self._sent)])


def beginning(
    fingerprint: str, seed: int, digest: str, choices: int, limit: int | None = None
) -> Progress:
    """Of a new stream."""
    return Progress(fingerprint, seed, digest, [Sent() for _ in range(choices)], limit)


def with_limit(seed: int, limit: int | None) -> str:
    """`7m96`: seed 7, and 96 tokens at most; `7`: the limit is the body's."""
    return str(seed) if limit is None else f"{seed}m{limit}"


def parse_progress(text: str) -> Progress:
    """From the id of the last event that a client has seen. Raises ApiError (400)."""
    found = FORM.fullmatch(text) if len(text) <= LONGEST else None
    if found is None:
        told = f"Last-Event-ID {text[:80]!r} is not an id of this server's events"
        raise ApiError(told, param="Last-Event-ID", code="invalid_value")
    sent = []
    for each in found[5].split(".")[1:]:
        characters, entries = each.removesuffix("e").split("-")
        sent.append(Sent(int(characters), int(entries), each.endswith("e")))
    limit = None if found[3] is None else int(found[3])
    return Progress(found[1], int(found[2]), found[4], sent, limit)
