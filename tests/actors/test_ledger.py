"""The ledger: every request ends once, whatever dies; only requests that kill alone are blamed."""

import math
import random
from dataclasses import replace

import pytest

from actors.messages import Ended, Streamed
from actors.pool.requests.death import Death, Evidence
from actors.pool.requests.ledger import Ledger
from models.errors import InvalidRequest
from models.requests.request import Request, Result, TokenLogprob
from models.requests.update import Update

KILLED = Death("killed", Evidence.DEATH)
RAISED = Death("ValueError: no", Evidence.ERROR)
NODE_LOST = Death("its node has died", Evidence.NONE)


def requests(*ids: str) -> list[Request]:
    return [Request(id=request_id, prompt=(1,)) for request_id in ids]


def make(*ids: str) -> Ledger:
    ledger = Ledger()
    ledger.add(requests(*ids))
    return ledger


def placed(ledger: Ledger, **limits: int) -> dict[str, list[str]]:
    given = ledger.assign(limits)
    return {actor: [s.request.id for s in found] for actor, found in given.items()}


def done(ledger: Ledger, request_id: str) -> Ended:
    result = Result(id=request_id, tokens=(1,), finish_reason="length")
    return Ended(ticket=ledger._running.get(request_id, 0), result=result)


def settle(ledger: Ledger, actor: str, *ids: str) -> list[str]:
    return [r.id for r in ledger.settle(actor, [done(ledger, i) for i in ids])]


def test_a_trace_tells_of_every_actor_that_a_request_was_on():
    ledger = Ledger()
    ledger.add([replace(each, trace=each.id == "a") for each in requests("a", "b")])
    placed(ledger, x=2)
    ledger.lose("x", KILLED)
    placed(ledger, y=2)
    found = {r.id: r.spans for r in ledger.settle("y", [done(ledger, "a"), done(ledger, "b")])}
    assert found == {"a": (), "b": ()}  # as the actor said it
    found = {r.id: r.spans for r in ledger.take()}
    assert [span.name for span in found["a"]] == ["waiting", "on an actor"] * 2
    facts = [span.facts for span in found["a"] if span.facts]
    assert facts == [{"actor": "x", "end": "lost: killed"}, {"actor": "y", "end": "length"}]
    assert found["b"] == ()


# --- placing -----------------------------------------------------------------------------------


def test_the_least_loaded_gets_the_next():
    ledger = make(*"abcde")
    assert placed(ledger, x=2, y=2) == {"x": ["a", "c"], "y": ["b", "d"]}
    assert ledger.num_waiting == 1
    assert settle(ledger, "y", "b") == ["b"]
    assert placed(ledger, x=2, y=2) == {"y": ["e"]}


def test_results_count_once_and_only_from_where_the_request_is():
    ledger = make("a", "b")
    placed(ledger, x=2)
    assert ledger.lose("x", KILLED) == []
    assert placed(ledger, y=2) == {"y": ["a", "b"]}
    assert settle(ledger, "x", "a") == []  # heard from the dead
    again = [done(ledger, "a")] * 2
    assert len(ledger.settle("y", again)) == 1
    assert ledger.settle("y", again) == []
    assert [r.id for r in ledger.take()] == ["a"]
    assert ledger.take() == []


def test_lost_requests_come_before_those_that_wait():
    ledger = make(*"abc")
    placed(ledger, x=2)
    ledger.lose("x", KILLED)
    assert placed(ledger, y=9) == {"y": ["a", "b", "c"]}


def test_streams_leave_a_stalled_actor_under_new_tickets():
    ledger = Ledger()
    plain, *streams = requests(*"abc")
    ledger.add([plain, *(replace(r, stream=True) for r in streams)])
    assert placed(ledger, x=9) == {"x": ["a", "b", "c"]}
    assert ledger.has_streams
    old = [done(ledger, i) for i in "bc"]
    ledger.note("x", [Streamed(ticket=old[0].ticket, update=update_of("b", range(1), 7))])
    assert ledger.hand_over("x") == [each.ticket for each in old]
    assert ledger.hand_over("x") == []
    given = ledger.assign({"y": 9})["y"]
    assert [(s.request.id, s.request.generated) for s in given] == [("b", (7,)), ("c", ())]
    assert not {s.ticket for s in given} & {each.ticket for each in old}
    late = update_of("b", range(1, 2), 8)  # it wakes up
    ledger.note("x", [Streamed(ticket=old[0].ticket, update=late)])
    assert ledger.settle("x", old) == []
    assert [u.tokens for u in ledger.take_updates()] == [(7,)]
    assert settle(ledger, "y", "b", "c") == ["b", "c"]
    assert settle(ledger, "x", "a") == ["a"]
    assert not ledger.has_streams
    assert len(ledger.take()) == 3
    assert ledger.num_running == 0


def test_suspects_stay_on_a_stalled_actor():
    ledger = Ledger()
    ledger.add([replace(r, stream=True) for r in requests("a", "b")])
    placed(ledger, x=2)
    ledger.lose("x", RAISED)
    assert placed(ledger, y=2) == {"y": ["a"]}
    assert ledger.hand_over("y") == []


def test_urgent_requests_come_first_and_lost_ones_before_others_of_their_priority():
    ledger = make(*"abcd")
    assert placed(ledger, x=2) == {"x": ["a", "b"]}
    ledger.add([Request(id="late", prompt=(1,), priority=1)])
    ledger.add([Request(id="urgent", prompt=(1,), priority=-1)])
    ledger.lose("x", KILLED)
    assert placed(ledger, y=3) == {"y": ["urgent", "a", "b"]}
    ledger.drop("c")
    assert placed(ledger, y=9) == {"y": ["d", "late"]}


# --- ids ---------------------------------------------------------------------------------------


def test_a_batch_is_added_as_a_whole_or_not_at_all():
    ledger = make("a")
    with pytest.raises(InvalidRequest, match="'a' is running already"):
        ledger.add(requests("b", "a"))
    with pytest.raises(InvalidRequest, match="'c' is given twice"):
        ledger.add(requests("b", "c", "c"))
    assert placed(ledger, x=9) == {"x": ["a"]}
    assert len(ledger) == 1


def test_an_id_is_in_use_until_its_result_is_taken():
    ledger = make("a")
    placed(ledger, x=9)
    settle(ledger, "x", "a")
    with pytest.raises(InvalidRequest, match="'a' has ended and its result was not taken"):
        ledger.add(requests("a"))
    assert len(ledger.take()) == 1
    ledger.add(requests("a"))
    assert len(ledger) == 1


def test_a_dropped_request_is_nowhere():
    ledger = make("a", "b")
    placed(ledger, x=1)
    assert ledger.drop("a").actor == "x"
    assert ledger.drop("b").actor is None
    assert ledger.drop("c") is None
    assert len(ledger) == ledger.num_waiting == ledger.load("x") == 0
    assert placed(ledger, x=1) == {}


def test_an_older_result_does_not_answer_a_new_request_of_its_id():
    ledger = make("a")
    placed(ledger, x=1)
    old = done(ledger, "a")
    ledger.drop("a")
    ledger.add(requests("a"))
    placed(ledger, x=1)
    assert ledger.settle("x", [old]) == []
    assert settle(ledger, "x", "a") == ["a"]


def test_a_dropped_result_is_not_handed_out():
    ledger = make("a", "b")
    placed(ledger, x=2)
    settle(ledger, "x", "a", "b")
    assert ledger.drop("a") is None
    ledger.add(requests("a"))
    assert [r.id for r in ledger.take()] == ["b"]
    assert placed(ledger, x=2) == {"x": ["a"]}


# --- suspects ----------------------------------------------------------------------------------


def test_suspects_run_in_halves_that_have_an_actor_to_themselves():
    ledger = make(*"abcd")
    for actor in ("x", "y"):
        assert placed(ledger, **{actor: 4}) == {actor: [*"abcd"]}
        ledger.lose(actor, KILLED)
    ledger.add(requests("e"))
    assert placed(ledger, z=4) == {"z": ["a", "b"]}
    assert placed(ledger, z=4) == {}
    settle(ledger, "z", "a", "b")
    assert placed(ledger, z=4) == {"z": ["c", "d"]}
    ledger.lose("z", KILLED)
    assert placed(ledger, u=4) == {"u": ["c"]}
    settle(ledger, "u", "c")
    assert placed(ledger, u=4) == {"u": ["d"]}
    settle(ledger, "u", "d")
    assert placed(ledger, u=4) == {"u": ["e"]}


def test_suspects_take_half_of_the_actors_and_wait_for_them_to_be_free():
    ledger = make(*"abcdef")
    for actor in ("x", "y"):
        placed(ledger, **{actor: 6})
        ledger.lose(actor, KILLED)
    ledger.add(requests(*"ghijkl"))
    limits = {"p": 2, "q": 2, "r": 2, "s": 2}
    first = placed(ledger, **limits)
    assert sorted(first.values()) == [["a", "b", "c"], ["d", "e", "f"], ["g", "i"], ["h", "j"]]


def test_a_request_that_kills_alone_is_blamed():
    ledger = make("bad", "good")
    for actor in ("x", "y"):
        placed(ledger, **{actor: 4})
        assert ledger.lose(actor, KILLED) == []
    assert placed(ledger, z=4) == {"z": ["bad"]}
    assert ledger.lose("z", Death("SIGSEGV", Evidence.DEATH)) == []
    assert placed(ledger, u=4) == {"u": ["good"]}
    settle(ledger, "u", "good")
    assert placed(ledger, u=4) == {"u": ["bad"]}
    (given_up,) = ledger.lose("u", Death("SIGSEGV", Evidence.DEATH))
    assert (given_up.id, given_up.finish_reason, given_up.retryable) == ("bad", "error", True)
    assert "4 target actors failed" in given_up.error
    assert "the last 2 of them with no other request: SIGSEGV" in given_up.error
    assert {r.id for r in ledger.take()} == {"good", "bad"}
    assert len(ledger) == 0


def test_an_exception_makes_suspects_at_once():
    ledger = make("a", "b")
    placed(ledger, x=4)
    ledger.lose("x", RAISED)
    assert placed(ledger, y=4) == {"y": ["a"]}


def test_a_lost_node_says_nothing_about_requests():
    ledger = make("a", "b")
    for i in range(20):
        assert placed(ledger, **{f"x{i}": 4}) == {f"x{i}": ["a", "b"]}
        assert ledger.lose(f"x{i}", NODE_LOST) == []
    for i in range(2):  # now they are suspects
        placed(ledger, **{f"y{i}": 4})
        ledger.lose(f"y{i}", KILLED)
    for i in range(20):
        assert placed(ledger, **{f"z{i}": 4}) == {f"z{i}": ["a"]}
        assert ledger.lose(f"z{i}", NODE_LOST) == []


def test_an_idle_or_starting_actor_that_dies_costs_nothing():
    ledger = make("a")
    for _ in range(20):
        assert ledger.lose("idle", KILLED) == []
    for actor in ("x", "y", "z"):
        placed(ledger, **{actor: 1})
        assert ledger.lose(actor, KILLED) == []
    placed(ledger, u=1)
    assert settle(ledger, "u", "a") == ["a"]


def test_two_actors_with_suspects_die_at_once():
    """Each group is halved by itself; nobody is lost, blamed, or taken for alone."""
    ledger = make(*"abcdefgh")
    for actor in ("x", "y"):
        placed(ledger, **{actor: 8})
        ledger.lose(actor, KILLED)
    actors = {"p": 8, "q": 8, "r": 8, "s": 8}
    assert placed(ledger, **actors) == {"p": [*"abcd"], "q": [*"efgh"]}
    assert ledger.lose("p", KILLED) == ledger.lose("q", KILLED) == []
    new = {"t": 8, "u": 8, "v": 8, "w": 8, "r": 8, "s": 8}
    assert sorted(placed(ledger, **new).values()) == [["a", "b"], ["c", "d"], ["e", "f"]]
    assert ledger.num_waiting == 2
    ended = [i for actor in new for i in settle(ledger, actor, *"abcdef")]
    assert sorted(ended) == [*"abcdef"]
    assert list(placed(ledger, **new).values()) == [["g", "h"]]


def test_a_dropped_suspect_leaves_its_group():
    ledger = make(*"abc")
    for actor in ("x", "y"):
        placed(ledger, **{actor: 8})
        ledger.lose(actor, KILLED)
    ledger.drop("c")
    ledger.drop("a")
    assert placed(ledger, z=4) == {"z": ["b"]}
    ledger.drop("b")
    ledger.add(requests("d"))
    assert placed(ledger, z=4) == {"z": ["d"]}


# --- everything that can happen ----------------------------------------------------------------


class Sim:
    """Actors that are replaced when they die, and requests some of which kill."""

    def __init__(self, ids, *, actors=2, limit=4, poison=frozenset()):
        self.ledger, self.limit, self.poison = make(*ids), limit, poison
        self.actors: dict[str, list[str]] = {}
        self.born = self.deaths = 0
        self.results: list[Result] = []
        self.num_actors = actors
        self.settle()

    def settle(self):
        """Replace the dead, place requests, kill actors that got poison until none has any."""
        while True:
            while len(self.actors) < self.num_actors:
                self.actors[f"{self.born}"], self.born = [], self.born + 1
            limits = dict.fromkeys(self.actors, self.limit)
            for actor, given in self.ledger.assign(limits).items():
                self.actors[actor] += [s.request.id for s in given]
            self.results += self.ledger.take()
            doomed = [a for a, ids in self.actors.items() if self.poison & set(ids)]
            for actor in doomed:
                self.kill(actor)
            if not doomed:
                return

    def kill(self, actor, death=KILLED):
        self.deaths += 1
        del self.actors[actor]
        self.ledger.lose(actor, death)

    def finish(self, actor, request_id):
        self.actors[actor].remove(request_id)
        assert settle(self.ledger, actor, request_id) == [request_id]

    def finish_all(self):
        while True:
            self.settle()
            busy = [a for a, ids in self.actors.items() if ids]
            if not busy:
                assert len(self.ledger) == 0
                return
            self.finish(busy[0], self.actors[busy[0]][0])


@pytest.mark.parametrize(("ids", "actors"), [("a", 1), ("ab", 1), ("abc", 2)])
def test_three_kills_at_any_moments_blame_nobody(ids, actors):
    """Every order of ends and kills, three kills at most: all requests complete."""
    plays, pending = 0, [()]
    while pending:
        choices = pending.pop()
        sim, kills = Sim(ids, actors=actors, limit=2), 0
        for choice in choices:
            moves = [("kill", a, None) for a in sim.actors if kills < 3]
            moves += [("end", a, i) for a, found in sim.actors.items() for i in found]
            move, actor, request_id = moves[choice]
            if move == "kill":
                kills += 1
                sim.kill(actor)
            else:
                sim.finish(actor, request_id)
            sim.settle()
        count = sum(map(len, sim.actors.values())) + (kills < 3) * len(sim.actors)
        if len(sim.ledger) == 0 or len(choices) == 6:
            plays += 1
            sim.finish_all()
            assert sorted(r.id for r in sim.results) == [*ids]
            assert all(r.finish_reason == "length" for r in sim.results)
        else:
            pending += [(*choices, i) for i in range(count)]
    assert plays > 3


@pytest.mark.parametrize("actors", [1, 2, 5])
@pytest.mark.parametrize("place", [0, 7, 15])
def test_one_that_kills_is_found_in_few_deaths(actors, place):
    ids = [f"r{i}" for i in range(16)]
    sim = Sim(ids, actors=actors, limit=16, poison={ids[place]})
    sim.finish_all()
    blamed = [r.id for r in sim.results if r.finish_reason == "error"]
    assert blamed == [ids[place]]
    assert len(sim.results) == 16
    assert sim.deaths <= 2 + math.log2(16) + 2


def test_many_that_kill_are_all_found():
    ids, poison = [f"r{i}" for i in range(64)], {f"r{i}" for i in range(0, 64, 7)}
    sim = Sim(ids, actors=3, limit=8, poison=poison)
    sim.finish_all()
    assert {r.id for r in sim.results if r.finish_reason == "error"} == poison
    assert sorted(r.id for r in sim.results) == sorted(ids)
    assert sim.deaths <= len(poison) * (2 + 3 + 2)


@pytest.mark.parametrize("seed", range(6))
def test_none_lost_none_twice_under_random_deaths(seed):
    """Kills, lost nodes, exceptions, cancels, ids that are used again; some requests kill."""
    dice = random.Random(seed)
    ids = [str(i) for i in range(200)]
    poison = {"13", "14", "77"} if seed % 2 else frozenset()
    sim = Sim(ids, actors=3, limit=8, poison=poison)
    cancelled, kills = set(), 0
    while len(sim.ledger):
        sim.settle()
        actor = dice.choice(sorted(sim.actors))
        if dice.random() < 0.05:
            kills += 1
            sim.kill(actor, dice.choice([KILLED, NODE_LOST, NODE_LOST, RAISED]))
        elif dice.random() < 0.1:
            victim = dice.choice(ids)
            if victim in sim.ledger._running and victim not in poison:
                sim.ledger.drop(victim)
                for found in sim.actors.values():
                    found[:] = [i for i in found if i != victim]
                if dice.random() < 0.5:
                    sim.ledger.add(requests(victim))
                else:
                    cancelled.add(victim)
        elif sim.actors[actor]:
            sim.finish(actor, dice.choice(sim.actors[actor]))
        sim.results += sim.ledger.take()
    assert kills > 5
    assert len(cancelled) > 2
    assert sorted(r.id for r in sim.results) == sorted(set(ids) - cancelled)
    assert poison <= {r.id for r in sim.results if r.finish_reason == "error"}


# --- streams -----------------------------------------------------------------------------------


def update_of(request_id: str, positions, *tokens: int, logprobs: bool = False) -> Update:
    said = tuple(TokenLogprob(token=t, logprob=-1.0, top=()) for t in tokens)
    return Update(
        id=request_id,
        positions=positions,
        tokens=tokens,
        sources=("target",) * len(tokens),
        logprobs=said if logprobs else None,
    )


def note(ledger: Ledger, actor: str, update: Update) -> list[Update]:
    """What comes of it."""
    ticket = ledger._running.get(update.id, 0)
    ledger.note(actor, [Streamed(ticket=ticket, update=update)])
    return ledger.take_updates()


def rest_of(ledger: Ledger, actor: str) -> Request:
    ((_, (submission,)),) = ledger.assign({actor: 9}).items()
    return submission.request


def test_a_stream_continues_after_what_was_received():
    ledger = make("a")
    placed(ledger, x=1)
    first = update_of("a", range(2), 7, 8, logprobs=True)
    assert note(ledger, "x", first) == [first]
    ledger.lose("x", KILLED)
    assert note(ledger, "x", update_of("a", range(2, 3), 9)) == []  # heard from the dead
    rest = rest_of(ledger, "y")
    assert rest.generated == (7, 8)
    assert [entry.token for entry in rest.generated_logprobs] == [7, 8]
    second = update_of("a", range(2, 3), 9, logprobs=True)
    assert note(ledger, "y", second) == [second]
    ledger.lose("y", NODE_LOST)
    assert rest_of(ledger, "z").generated == (7, 8, 9)


def test_a_stream_that_began_with_tokens_keeps_them():
    ledger = Ledger()
    ledger.add([Request(id="a", prompt=(1,), generated=(4, 5))])
    placed(ledger, x=1)
    note(ledger, "x", update_of("a", range(2, 3), 6))
    ledger.lose("x", KILLED)
    assert rest_of(ledger, "y").generated == (4, 5, 6)


@pytest.mark.parametrize("given", [{}, {"generated": (9,), "generated_positions": (1,)}])
def test_positions_in_any_order_continue_in_the_order_of_output(given):
    ledger = Ledger()
    ledger.add([Request(id="a", prompt=(1,), **given)])
    placed(ledger, x=1)
    note(ledger, "x", update_of("a", (3,), 30))
    note(ledger, "x", update_of("a", (2, 0), 20, 0))
    ledger.lose("x", KILLED)
    rest = rest_of(ledger, "y")
    if given:
        assert (rest.generated, rest.generated_positions) == ((0, 9, 20, 30), ())
    else:
        assert (rest.generated, rest.generated_positions) == ((0, 20, 30), (0, 2, 3))


def test_a_stream_dropped_after_its_end_is_not_heard_of_again():
    ledger = make("a")
    placed(ledger, x=1)
    ticket = ledger._running["a"]
    ledger.note("x", [Streamed(ticket=ticket, update=update_of("a", range(1), 5))])
    settle(ledger, "x", "a")
    ledger.drop("a")
    assert ledger.take_updates() == ledger.take() == []


def test_a_dropped_stream_is_not_heard_of_again():
    ledger = make("a", "b")
    placed(ledger, x=2)
    for name in ("a", "b"):
        update = update_of(name, range(1), 5)
        ledger.note("x", [Streamed(ticket=ledger._running[name], update=update)])
    old = ledger._running["a"]
    ledger.drop("a")
    ledger.add(requests("a"))  # the id is used again at once
    placed(ledger, x=2)
    ledger.note("x", [Streamed(ticket=old, update=update_of("a", range(1, 2), 6))])
    assert [u.id for u in ledger.take_updates()] == ["b"]
    assert not ledger.has_updates
