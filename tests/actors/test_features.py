"""The states that wait for draft actors."""

import torch

from actors.drafts import features
from actors.drafts.features import Features
from models.drafting.reading import Reading
from models.requests.request import Request, Sampling
from models.requests.sequence import Sequence


def reading(name: str, positions: int, *, drafts: bool = True) -> Reading:
    asked = Request(id=name, prompt=(1, 2), sampling=Sampling(max_tokens=9), drafts=drafts)
    states = torch.zeros(positions, 3, 4)  # 48 bytes a position
    return Reading(sequence=Sequence(asked, eos=()), first=0, states=states, top=None)


def test_states_wait_within_a_bound(monkeypatch) -> None:
    monkeypatch.setattr(features, "MOST_BYTES", 480)
    waiting = Features()
    waiting.read([reading("a", 6), reading("b", 5), reading("c", 4, drafts=False)])
    assert [waiting.is_lost(name) for name in "abc"] == [False, True, False]
    assert [waiting.has(name) for name in "abc"] == [True, False, False]
    taken = waiting.take("a", anew=True)
    assert taken is not None
    assert taken.shape == (6, 3, 4)
    waiting.read([reading("d", 10)])  # there is room again
    assert waiting.has("d")
    waiting.forget("d")
    waiting.read([reading("e", 10)])
    assert waiting.has("e")
