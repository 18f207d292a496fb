"""Requests go where their prompts were read before, within bounds of load."""

from actors.pool.death import Death, Evidence
from actors.pool.ledger import Ledger
from actors.pool.warmth import BLOCK, Warmth, choose
from models.requests.request import Request
from tests.actors.test_ledger import settle

LONG = tuple(range(3 * BLOCK + 1))
LIMITS = {"x": 8, "y": 8}


def request(name: str, prompt: tuple[int, ...] = LONG, salt: bytes = b"") -> Request:
    return Request(id=name, prompt=prompt, cache_salt=salt)


def test_the_longest_beginning_decides():
    warmth = Warmth()
    warmth.note("x", request("a", LONG[: BLOCK + 1]))
    warmth.note("y", request("b", LONG[: 2 * BLOCK + 1]))
    warmth.note("x", request("c", LONG[: BLOCK + 1]))
    assert warmth.warmest(request("d"), {"x", "y"}) == "y"
    assert warmth.warmest(request("d"), {"x"}) == "x"
    assert warmth.warmest(request("d"), {"z"}) is None


def test_what_is_not_shared_is_cold():
    warmth = Warmth()
    warmth.note("x", request("a"))
    assert warmth.warmest(request("b", (5, *LONG)), {"x"}) is None
    assert warmth.warmest(request("b", LONG[:BLOCK]), {"x"}) is None  # its last token is not read
    assert warmth.warmest(request("b", salt=b"other"), {"x"}) is None
    assert warmth.warmest(request("b"), {"x"}) == "x"


def test_old_beginnings_are_forgotten():
    warmth = Warmth(most=3)
    warmth.note("x", request("a"))
    warmth.note("y", request("b", (9, *LONG)))
    assert warmth.warmest(request("c"), {"x", "y"}) is None
    assert warmth.warmest(request("c", (9, *LONG)), {"x", "y"}) == "y"


def test_load_bounds_warmth():
    warmth = Warmth()
    warmth.note("x", request("a"))
    assert choose(request("b"), {"x": 2, "y": 0}, LIMITS, warmth) == "x"
    assert choose(request("b"), {"x": 3, "y": 0}, LIMITS, warmth) == "y"
    assert choose(request("b"), {"y": 0}, LIMITS, warmth) == "y"


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
    other = next(actor for actor in LIMITS if actor != was)
    assert list(ledger.assign({other: 8})) == [other]
    settle(ledger, other, "a")
    ledger.take()
    ledger.add([request("b")])
    assert list(ledger.assign(LIMITS)) == [other]


def short(number: int) -> Request:
    return request(str(number), (number, 1))
