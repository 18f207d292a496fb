"""Requests go where their prompts were read before, within bounds of load."""

import pytest

from actors.pool.requests.death import Death, Evidence
from actors.pool.requests.ledger import Ledger
from actors.pool.requests.warmth import BLOCK, Warmth, beginnings, choose
from models.requests.request import Request
from tests.actors.test_ledger import settle

LONG = tuple(range(8 * BLOCK + 1))
LIMITS = {"x": 8, "y": 8}


def request(name: str, prompt: tuple[int, ...] = LONG, salt: bytes = b"") -> Request:
    return Request(id=name, prompt=prompt, cache_salt=salt)


def keys(prompt: tuple[int, ...] = LONG, salt: bytes = b"") -> list[bytes]:
    return beginnings(request("a", prompt, salt))


def test_the_longest_beginning_decides():
    warmth = Warmth()
    warmth.note("x", keys(LONG[: BLOCK + 1]))
    warmth.note("y", keys(LONG[: 2 * BLOCK + 1]))
    warmth.note("x", keys(LONG[: BLOCK + 1]))
    assert warmth.warmest(keys(), {"x", "y"}) == ("y", 2)
    assert warmth.warmest(keys(), {"x"}) == ("x", 1)
    assert warmth.warmest(keys(), {"z"}) == (None, 0)


def test_what_is_not_shared_is_cold():
    warmth = Warmth()
    warmth.note("x", keys())
    assert warmth.warmest(keys((5, *LONG)), {"x"}) == (None, 0)
    assert warmth.warmest(keys(LONG[:BLOCK]), {"x"}) == (None, 0)  # its last token is not read
    assert warmth.warmest(keys(salt=b"other"), {"x"}) == (None, 0)
    assert warmth.warmest(keys(), {"x"}) == ("x", 8)


def test_old_beginnings_are_forgotten():
    warmth = Warmth(most=8)
    warmth.note("x", keys())
    warmth.note("y", keys((9, *LONG)))
    assert warmth.warmest(keys(), {"x", "y"}) == (None, 0)
    assert warmth.warmest(keys((9, *LONG)), {"x", "y"}) == ("y", 8)


@pytest.mark.parametrize(("blocks", "most"), [(3, 0), (4, 1), (8, 2)])
def test_load_bounds_warmth(blocks, most):
    warmth, prompt = Warmth(), LONG[: blocks * BLOCK + 1]
    warmth.note("x", keys(prompt))
    assert choose(keys(prompt), {"y": 1, "x": 1 + most}, LIMITS, warmth) == "x"
    assert choose(keys(prompt), {"y": 1, "x": 2 + most}, LIMITS, warmth) == "y"
    assert choose(keys(prompt), {"y": 1}, LIMITS, warmth) == "y"


def test_a_short_beginning_that_all_have_leaves_nobody_idle():
    ledger, system = Ledger(), LONG[: 3 * BLOCK]
    for number in range(4):
        ledger.add([request(str(number), (*system, number, 1))])
        ledger.assign(LIMITS)
    assert [ledger.load(actor) for actor in LIMITS] == [2, 2]


def test_a_conversation_stays_where_it_was():
    ledger, places, cold = Ledger(), set(), set()
    for turn in range(4):  # the least loaded actor is another one every time
        talk = request("talk", LONG + tuple(range(turn)))
        ledger.add([*map(short, range(turn % 2)), talk, short(8)])
        placed = ledger.assign(LIMITS)
        on = {each.request.id: actor for actor, found in placed.items() for each in found}
        places.add(on["talk"])
        cold.add(on["8"])
        for name, actor in on.items():
            settle(ledger, actor, name)
        ledger.take()
    assert len(places) == 1
    assert places != cold


def test_a_lost_actor_s_conversations_go_on_elsewhere():
    ledger = Ledger()
    ledger.add([request("a")])
    (was,) = ledger.assign(LIMITS)
    ledger.lose(was, Death("killed", Evidence.DEATH))
    (now,) = ledger.assign({"z": 8, "v": 8})
    settle(ledger, now, "a")
    ledger.take()
    ledger.add([request("b")])
    assert list(ledger.assign({**LIMITS, "z": 8, "v": 8})) == [now]


def short(number: int) -> Request:
    return request(str(number), (number, 1))


@pytest.mark.parametrize(("cold", "chosen"), [((), "x"), (("x",), "y"), (("x", "y"), "y")])
def test_an_actor_that_reads_prompts_from_their_beginnings_is_never_warm(cold, chosen):
    """As with a drafter that reads the target."""
    ledger = Ledger()
    ledger.add([request("first")])
    assert list(ledger.assign(LIMITS, cold)) == ["x"]
    ledger.add([request("second")])
    assert list(ledger.assign(LIMITS, cold)) == [chosen]


def test_what_was_warm_before_the_drafter_changed_counts_no_more():
    ledger = Ledger()
    ledger.add([request("first")])
    ledger.assign(LIMITS)
    ledger.add([request("second")])
    assert list(ledger.assign(LIMITS, {"x", "y"})) == ["y"]
