"""The target's hidden states on their way to draft actors: each position's are sent once.

They are not kept after that, nor without bound before it. So if a draft actor dies or forgets a
request, or if too much waits while none asks, the request has no more drafts: it goes on by plain
decoding. Letters: P positions, n layers, D width of the target.
"""

from collections.abc import Iterable

import numpy as np
from numpy.typing import NDArray

from models.drafting.reading import Reading

Floats = NDArray[np.float32]
MOST_BYTES = 2 << 30  # that wait to be sent, of all requests


class Features:
    """The states that were read and not sent yet, by request."""

    def __init__(self) -> None:
        self._waiting: dict[str, list[Floats]] = {}
        self._sent: dict[str, int] = {}  # positions
        self._lost: set[str] = set()
        self._num_bytes = 0

    def read(self, readings: Iterable[Reading]) -> None:
        """Keep the states until they are sent."""
        for reading in readings:
            sequence = reading.sequence
            if sequence.id in self._lost or not sequence.request.drafts:
                continue
            assert reading.states is not None
            states = reading.states.float().cpu().numpy()
            if self._num_bytes + states.nbytes > MOST_BYTES:
                self._lost.add(sequence.id)
                self._drop(sequence.id)
                continue
            self._num_bytes += states.nbytes
            self._waiting.setdefault(sequence.id, []).append(states)

    def take(self, request_id: str, *, anew: bool) -> Floats | None:
        """The states [P, n, D] to send now, in order; None if there are none.

        `anew`: the draft actor knows nothing of the request. If some were sent before, it is lost.
        """
        if anew and self._sent.get(request_id):
            self._lost.add(request_id)
        waiting = self._drop(request_id)
        if request_id in self._lost or not waiting:
            return None
        states: Floats = np.concatenate(waiting)
        self._sent[request_id] = self._sent.get(request_id, 0) + len(states)
        return states

    def is_lost(self, request_id: str) -> bool:
        """Whether no draft actor can draft for the request any more."""
        return request_id in self._lost

    def has(self, request_id: str) -> bool:
        """Whether there is anything to send."""
        return request_id in self._waiting

    def forget(self, request_id: str) -> None:
        """The request has ended."""
        self._drop(request_id)
        self._sent.pop(request_id, None)
        self._lost.discard(request_id)

    def _drop(self, request_id: str) -> list[Floats]:
        waiting = self._waiting.pop(request_id, [])
        self._num_bytes -= sum(states.nbytes for states in waiting)
        return waiting
