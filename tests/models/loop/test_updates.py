"""What streams is what results: tokens, text, log-probabilities, and who guessed each token."""

from collections import Counter
from dataclasses import replace

import pytest
import torch

from models.batch import Scores
from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import Shape
from models.requests.request import Request, Sampling
from tests.models.bags import SIZE
from tests.models.guessing import Prophet
from tests.models.loop.test_continue import DRAFTERS, SAMPLED, cut
from tests.models.looping import TARGET, loop_of, spell
from tests.models.schedules.test_schedule import TARGETS
from tests.models.schedules.test_schedule import loop_of as group_loop_of
from tests.models.schedules.test_schedule import request_of as group_request_of
from tests.models.test_mixed_batches import ROWS, requests
from tests.models.tiny import TableTarget

RUNS = [*((name, "match") for name in DRAFTERS), *SAMPLED]


def streaming(asked):
    return [replace(request, stream=True) for request in asked]


def run(loop, asked):
    """Results, and by request the updates of each step."""
    for request in asked:
        loop.submit(request)
    results, updates = {}, {}
    while loop.num_unfinished:
        ended = loop.step()
        found = loop.take_updates()
        assert len({u.id for u in found}) == len(found), "one update for a request and step"
        for update in found:
            assert update.id not in results
            updates.setdefault(update.id, []).append(update)
        results |= {r.id: r for r in ended}
    return results, updates


def joined(updates, name):
    return tuple(each for update in updates for each in getattr(update, name))


def text_of(result, decode):
    """A completion's text: without the stop string that its last token completes."""
    text, before = decode(list(result.tokens)), decode(list(result.tokens[:-1]))
    if result.stop_text is None:
        return text
    start = len(before.rstrip("\ufffd")) - len(result.stop_text) + 1
    return text[: text.find(result.stop_text, max(0, start))]


def check(result, updates, decode):
    assert joined(updates, "tokens") == result.tokens
    assert joined(updates, "positions") == tuple(range(len(result.tokens)))
    assert "".join(u.text for u in updates) == text_of(result, decode)
    if result.logprobs is None:
        assert {u.logprobs for u in updates} == {None}
    else:
        assert joined(updates, "logprobs") == result.logprobs
    assert len(joined(updates, "sources")) == len(result.tokens)


@pytest.mark.parametrize(("drafter", "rule"), RUNS)
def test_updates_add_up_to_results(drafter, rule):
    asked = streaming(requests())
    loop = loop_of(DRAFTERS[drafter], target=TARGET, rows=ROWS, rule=rule, chunk=5)
    results, updates = run(loop, asked)
    assert len(results) == len(asked)
    for request in asked:
        check(results[request.id], updates[request.id], spell)
        assert len(updates[request.id]) == results[request.id].target_passes
    sources = Counter(s for each in updates.values() for s in joined(each, "sources"))
    assert sources["target"] == loop.figures().round_rows
    if drafter != "none":
        assert sources[loop.drafter.name] == loop.figures().accepted > 0
    assert sum(sources.values()) == loop.figures().tokens


def test_streaming_changes_no_result_and_only_those_who_ask_are_reported():
    asked = requests()
    plain = {r.id: r for r in loop_of(DRAFTERS["tree"], rows=ROWS).run(asked)}
    half = [replace(r, stream=bool(i % 2)) for i, r in enumerate(asked)]
    results, updates = run(loop_of(DRAFTERS["tree"], rows=ROWS), half)
    assert results == plain
    assert set(updates) == {r.id for r in half if r.stream}


def test_text_that_may_become_a_stop_string_is_held_back():
    """What the stop string would begin with is not in the updates so far."""
    held = 0
    for request in streaming(requests()):
        stops = request.sampling.stop
        _, updates = run(loop_of(), [request])
        steps = updates[request.id]
        for count in range(1, len(steps)):
            shown = "".join(u.text for u in steps[:count])
            text = spell(joined(steps[:count], "tokens"))
            begun = [n for s in stops for n in range(1, len(s)) if text.endswith(s[:n])]
            assert shown == text[: len(text) - max(begun, default=0)]
            held += bool(begun)
    assert held > 3


@pytest.mark.parametrize("drafter", ["none", "chain", "jacobi"])
def test_a_stream_that_moves_goes_on_where_it_was(drafter):
    """Cut after each step, the text held back included, and continued with another drafter."""
    for request in streaming(requests())[::2]:
        results, updates = run(loop_of(DRAFTERS[drafter]), [request])
        result, steps = results[request.id], updates[request.id]
        for count in range(1, len(steps)):
            tokens = len(joined(steps[:count], "tokens"))
            rest = cut(request, result, tokens)
            _, more = run(loop_of(DRAFTERS["lookup"]), [rest])
            check(result, [*steps[:count], *more[rest.id]], spell)


def test_a_cancelled_request_leaves_no_updates():
    loop = loop_of()
    for request in streaming(requests()[:2]):
        loop.submit(request)
    loop.step()
    loop.cancel("0")
    assert {u.id for u in loop.take_updates()} == {"1"}
    while loop.num_unfinished:
        loop.step()
        assert {u.id for u in loop.take_updates()} == {"1"}


def test_without_a_tokenizer_there_are_tokens_alone():
    """As with a raster image target."""
    asked = Request(id="a", prompt=(1,), sampling=Sampling(max_tokens=9), stream=True)
    results, updates = run(loop_of(DRAFTERS["jacobi"], decode=None), [asked])
    assert joined(updates["a"], "tokens") == results["a"].tokens
    assert {u.text for u in updates["a"]} == {None}


@pytest.mark.parametrize("name", TARGETS)
def test_groups_are_reported_by_their_positions(name):
    asked = streaming([group_request_of(i, logprobs=1) for i in range(14)])
    results, updates = run(group_loop_of(TARGETS[name], 3), asked)
    for request in asked:
        steps, result = updates[request.id], results[request.id]
        assert [len(u.tokens) for u in steps] == ([1, 2, 1] if name == "diagonals" else [1, 1, 2])
        placed = dict(zip(joined(steps, "positions"), joined(steps, "tokens"), strict=True))
        assert tuple(placed[p] for p in range(SIZE)) == result.tokens
        said = dict(zip(joined(steps, "positions"), joined(steps, "logprobs"), strict=True))
        assert tuple(said[p] for p in range(SIZE)) == result.logprobs
        for count in (1, 2):  # continued: only what is new
            known = sorted(joined(steps[:count], "positions"))
            rest = replace(
                request,
                id="rest",
                generated=tuple(placed[p] for p in known),
                generated_logprobs=tuple(said[p] for p in known),
                generated_positions=tuple(known),
            )
            _, more = run(group_loop_of(TARGETS[name]), [rest])
            again = [(u.positions, u.tokens, u.logprobs) for u in more["rest"]]
            assert again == [(u.positions, u.tokens, u.logprobs) for u in steps[count:]]


# Characters of several tokens


BYTES = "für 10 €: 日本 🚲 STOP it".encode()


def read_bytes(tokens):
    return bytes(tokens).decode(errors="replace")


class Script(TableTarget):
    """Says BYTES, one byte a token, whatever came before."""

    def __init__(self):
        super().__init__(2, 0)
        self.vocab_size = self.input_size = 256

    def score(self, cache, batch):
        lengths = cache.lengths[batch.rows].repeat(batch.counts)
        places = lengths + batch.depths if batch.wanted is None else batch.wanted
        start = 0
        for row, count in zip(batch.rows.tolist(), batch.counts.tolist(), strict=True):
            first = int(cache.lengths[row])
            cache.entries[row, first : first + count] = batch.tokens[start : start + count]
            start += count
        said = [BYTES[p] if p < len(BYTES) else 32 for p in places.tolist()]
        return Scores(50 * torch.eye(256)[said])


@pytest.mark.parametrize("right", [None, 1.0, 0.8])
@pytest.mark.parametrize("stop", [(), ("STOP",), ("本 🚲",), ("P it?", "zz")])
def test_characters_come_whole(right, stop):
    sampling = Sampling(temperature=0, max_tokens=len(BYTES) - 2, stop=stop)
    asked = Request(id="a", prompt=(65,), sampling=sampling, stream=True)
    script = Script()
    drafter = (LookupDrafter, Shape(depth=3))
    if right is not None:
        drafter = (lambda: Prophet({"a": tuple(BYTES)}, 256, right=right), Shape(depth=5))
    results, updates = run(loop_of(drafter, target=script, decode=read_bytes), [asked])
    check(results["a"], updates["a"], read_bytes)
    assert all("\ufffd" not in u.text for u in updates["a"])


def test_a_character_that_never_ends_is_reported_at_the_end():
    count = BYTES.index("日".encode()) + 2
    sampling = Sampling(temperature=0, max_tokens=count)
    asked = Request(id="a", prompt=(65,), sampling=sampling, stream=True)
    results, updates = run(loop_of(target=Script(), decode=read_bytes), [asked])
    check(results["a"], updates["a"], read_bytes)
    assert [u.text for u in updates["a"][-2:]] == ["", "\ufffd"]
