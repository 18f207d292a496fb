"""The ledger: every request ends once, whatever dies."""

import random

import pytest

from actors.ledger import Ledger
from models.errors import InvalidRequest
from models.request import Request, Result


def make(*ids: str) -> Ledger:
    ledger = Ledger()
    for request_id in ids:
        ledger.add(Request(id=request_id, prompt=(1,)))
    return ledger


def placed(ledger: Ledger, **limits: int) -> dict[str, list[str]]:
    return {actor: [r.id for r in found] for actor, found in ledger.assign(limits).items()}


def done(request_id: str) -> Result:
    return Result(id=request_id, tokens=(1,), finish_reason="length")


def test_the_least_loaded_gets_the_next():
    ledger = make(*"abcde")
    assert placed(ledger, x=2, y=2) == {"x": ["a", "c"], "y": ["b", "d"]}
    assert ledger.num_waiting == 1
    assert [r.id for r in ledger.settle("y", [done("b")])] == ["b"]
    assert placed(ledger, x=2, y=2) == {"y": ["e"]}


def test_a_running_id_is_refused():
    ledger = make("a")
    with pytest.raises(InvalidRequest, match="'a' is running already"):
        ledger.add(Request(id="a", prompt=(1,)))


def test_results_count_once_and_only_from_where_the_request_is():
    ledger = make("a", "b")
    placed(ledger, x=2)
    assert ledger.lose("x", "killed") == []
    assert placed(ledger, y=2) == {"y": ["a", "b"]}
    assert ledger.settle("x", [done("a")]) == []  # heard from the dead
    assert len(ledger.settle("y", [done("a"), done("a")])) == 1
    assert ledger.settle("y", [done("a")]) == []


def test_lost_requests_come_before_those_that_wait():
    ledger = make(*"abc")
    placed(ledger, x=2)
    ledger.lose("x", "killed")
    assert placed(ledger, y=9) == {"y": ["a", "b", "c"]}


def test_a_dropped_request_is_nowhere():
    ledger = make("a", "b")
    placed(ledger, x=1)
    assert ledger.drop("a") == "x"
    assert ledger.drop("b") is None
    assert ledger.drop("c") is None
    assert len(ledger) == ledger.num_waiting == ledger.load("x") == 0


def test_a_suspect_runs_alone_and_is_given_up_when_that_kills_again():
    ledger = make("bad", "good")
    for actor in ("x", "y"):
        placed(ledger, **{actor: 4})
        assert ledger.lose(actor, "killed") == []
    assert placed(ledger, z=4) == {"z": ["bad"]}
    assert placed(ledger, z=4) == {}
    (given_up,) = ledger.lose("z", "SIGSEGV")
    assert (given_up.id, given_up.finish_reason) == ("bad", "error")
    assert "3 target actors died" in given_up.error
    assert "SIGSEGV" in given_up.error
    assert placed(ledger, z=4) == {"z": ["good"]}
    assert len(ledger.settle("z", [done("good")])) == 1
    assert len(ledger) == 0


def test_a_suspect_waits_for_an_actor_to_become_free():
    ledger = make("a")
    for actor in ("x", "y"):
        placed(ledger, **{actor: 4})
        ledger.lose(actor, "killed")
    ledger.add(Request(id="b", prompt=(1,)))
    assert placed(ledger, z=4) == {"z": ["a"]}
    ledger.settle("z", [done("a")])
    assert placed(ledger, z=4) == {"z": ["b"]}


def test_none_lost_none_twice_under_random_deaths():
    dice = random.Random(5)
    ids = [str(i) for i in range(200)]
    ledger, ended, actors, born = make(*ids), [], {}, 0
    while len(ledger):
        while len(actors) < 3:
            actors[f"actor-{born}"], born = [], born + 1
        for actor, requests in ledger.assign(dict.fromkeys(actors, 8)).items():
            actors[actor] += [r.id for r in requests]
        actor = dice.choice(sorted(actors))
        if dice.random() < 0.1:
            ended += [r.id for r in ledger.lose(actor, "killed")]
            del actors[actor]
        elif actors[actor]:
            result = done(actors[actor].pop(dice.randrange(len(actors[actor]))))
            ended += [r.id for r in ledger.settle(actor, [result, result])]
    assert sorted(ended) == sorted(ids)
