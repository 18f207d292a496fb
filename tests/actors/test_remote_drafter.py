"""A drafter elsewhere against the same one beside the target: same tokens, whatever it does.

The other end is a real draft actor in this process, reached by futures instead of Ray; models are
tables whose law is known exactly (tests/models/tiny.py).
"""

import pickle
import threading
import time
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from actors.drafts.draft import DraftActor
from actors.drafts.line import Send
from actors.drafts.remote_drafter import RemoteDrafter
from actors.messages import DraftAsk, DraftReply, DraftTeam, Guess
from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.sizing.sizing import FixedSize
from models.loop.token_loop import TokenLoop
from models.requests.request import Request, Result, Sampling
from tests.models.tiny import TableTarget

V, CHAIN, TREE = 12, Shape(depth=4), Shape(depth=3, width=4)
TEAM = DraftTeam(name="model", max_width=8, patience=1e6)
SAMPLINGS = [
    Sampling(max_tokens=20, temperature=0.0),
    Sampling(max_tokens=17, temperature=0.8, top_p=0.9, frequency_penalty=0.7),
    Sampling(max_tokens=12, repetition_penalty=1.4, min_tokens=6, stop_token_ids=(3,)),
    Sampling(max_tokens=9, top_k=5, logit_bias={2: 1.5}),
]


def table(seed: int = 0) -> TableTarget:
    return TableTarget(V, seed, spread=2.0, eos=(7,))


def near_table() -> TableTarget:
    """A model that is often right."""
    model = table()
    model.table = model.table + 0.3 * table(1).table
    return model


def requests(count: int = 11) -> list[Request]:
    return [
        Request(
            id=f"r{i}",
            prompt=tuple(1 + (i + j) % 6 for j in range(2 + i % 5)),
            sampling=SAMPLINGS[i % len(SAMPLINGS)],
            seed=100 + i,
        )
        for i in range(count)
    ]


def run(drafter, shape: Shape = CHAIN, *, verify: str = "match", rows: int = 4):
    """Tokens of every request, and the loop."""
    loop = TokenLoop(
        table(), drafter, FixedSize(shape), rows=rows, max_length=30, scratch=32, verify=verify
    )
    results: list[Result] = loop.run(requests())
    assert len({r.id for r in results}) == len(results) == 11
    return {r.id: r.tokens for r in results}, loop


def actor(rows: int = 8, drafter=None) -> DraftActor:
    made = DraftActor()
    made.serve(
        drafter or ModelDrafter(near_table(), rows=rows, capacity=62), rows=rows, max_length=30
    )
    return made


def carried(message):
    """As a message comes out at the other end."""
    return pickle.loads(pickle.dumps(message))


def direct(drafting: DraftActor) -> Send:
    """Answers at once."""

    def send(ask: DraftAsk) -> Future:
        future: Future = Future()
        future.set_result(carried(drafting.draft(carried(ask))))
        return future

    return send


def remote(*sends: Send, team: DraftTeam = TEAM) -> RemoteDrafter:
    drafter = RemoteDrafter(team, client="target-0")
    drafter.connect({f"draft-{i}": send for i, send in enumerate(sends)})
    return drafter


@pytest.fixture(scope="module")
def plain():
    return run(None)[0]


@pytest.mark.parametrize("shape", [CHAIN, TREE], ids=["chain", "tree"])
@pytest.mark.parametrize("rows", [1, 4])
def test_guesses_as_well_as_beside_the_target(plain, shape, rows):
    local = ModelDrafter(near_table(), rows=rows, capacity=62)
    tokens, near = run(local, shape, rows=rows)
    far_tokens, far = run(remote(direct(actor())), shape, rows=rows)
    assert tokens == far_tokens == plain
    assert far.figures().accepted == near.figures().accepted > 20
    assert far.figures().drafted == near.figures().drafted
    assert far.figures().draft_passes > 0
    assert far.figures().transfer_s > 0


@pytest.mark.parametrize("verify", ["rejection", "block"])
def test_sampled_drafts_carry_what_they_were_drawn_from(verify):
    """Same drafts, same distributions, same coins: the same tokens as beside the target."""
    local = ModelDrafter(near_table(), rows=4, capacity=62)
    tokens, near = run(local, verify=verify)
    far_tokens, far = run(remote(direct(actor())), verify=verify)
    assert tokens == far_tokens
    assert far.figures().accepted == near.figures().accepted > 20


def test_looks_up_elsewhere(plain):
    team = replace(TEAM, name="lookup", deterministic=True, max_width=1)
    near_tokens, near = run(LookupDrafter())
    tokens, far = run(remote(direct(actor(drafter=LookupDrafter())), team=team))
    assert tokens == near_tokens == plain
    assert far.figures().drafted == near.figures().drafted > 0


def test_spreads_requests_over_draft_actors(plain):
    asked = [0, 0]

    def counting(i: int) -> Send:
        send = direct(actor())

        def count(ask: DraftAsk) -> Future:
            asked[i] += len(ask.growths)
            return send(ask)

        return count

    tokens, loop = run(remote(counting(0), counting(1)))
    assert tokens == plain
    assert loop.figures().accepted > 20
    assert min(asked) > 5


def test_forgotten_requests_are_opened_anew(plain):
    tokens, loop = run(remote(direct(actor(rows=3))))  # two batches of two share three places
    assert tokens == plain
    assert loop.figures().accepted > 10


def test_a_trace_tells_which_draft_actor_worked_how_long(plain):
    drafter = remote(direct(actor()), direct(actor()))
    loop = TokenLoop(table(), drafter, FixedSize(CHAIN), rows=4, max_length=30, scratch=32)
    results = loop.run(replace(each, trace=each.id != "r0") for each in requests())
    assert {r.id: r.tokens for r in results} == plain
    drafts = {r.id: [s for s in r.spans if s.where.startswith("draft-")] for r in results}
    assert {s.where for found in drafts.values() for s in found} == {"draft-0", "draft-1"}
    assert not drafts.pop("r0")
    for spans in drafts.values():
        assert all(0 <= s.facts["at_work_us"] <= s.took_us + 1 for s in spans), spans


def test_only_what_is_new_is_sent():
    sizes: list[int] = []
    send = direct(actor())

    def measuring(ask: DraftAsk) -> Future:
        sizes.extend(len(growth.tokens) for growth in ask.growths if growth.opening is None)
        return send(ask)

    run(remote(measuring))
    assert len(sizes) > 10
    assert max(sizes) <= CHAIN.depth + 1


def test_ended_requests_are_forgotten_at_the_other_end():
    drafting = actor(rows=32)
    run(remote(direct(drafting)))
    assert len(drafting._mirrors) <= 4


# --- faults ------------------------------------------------------------------------------------


def never(ask: DraftAsk) -> Future:
    return Future()


def refuse(ask: DraftAsk) -> Future:
    raise ConnectionError("no such actor")


def fail(ask: DraftAsk) -> Future:
    future: Future = Future()
    future.set_exception(ConnectionError("the actor died"))
    return future


QUICK = replace(TEAM, patience=0.5)


@pytest.mark.parametrize("send", [never, refuse, fail])
def test_a_silent_or_dead_draft_actor_is_plain_decoding(plain, send):
    began = time.perf_counter()
    tokens, loop = run(remote(send, team=QUICK))
    assert tokens == plain
    assert loop.figures().drafted == 0
    assert time.perf_counter() - began < 5


@pytest.mark.parametrize("send", [never, refuse, fail])
def test_another_draft_actor_takes_over(plain, send):
    tokens, loop = run(remote(send, direct(actor()), team=QUICK))
    assert tokens == plain
    assert loop.figures().accepted > 0


def test_without_draft_actors(plain):
    drafter = remote()
    assert not drafter.remote
    assert run(drafter)[0] == plain


def test_late_drafts_are_dropped_by_their_version(plain):
    with ThreadPoolExecutor(1) as pool:
        drafting = actor()

        def late(ask: DraftAsk) -> "Future[DraftReply]":
            def work() -> DraftReply:
                time.sleep(0.004)
                return drafting.draft(ask)

            return pool.submit(work)

        tokens, _ = run(remote(late, team=replace(TEAM, patience=0.01)))
    assert tokens == plain


def test_draft_actors_come_and_go(plain):
    drafter = remote(direct(actor()))
    loop = TokenLoop(table(), drafter, FixedSize(CHAIN), rows=4, max_length=30, scratch=8)
    for request in requests():
        loop.submit(request)
    teams = [{}, {"b": direct(actor())}, {"b": never, "c": direct(actor())}, {"d": fail}]
    results, step = [], 0
    while loop.num_unfinished:
        results += loop.step()
        step += 1
        if step % 5 == 0:
            drafter.connect(teams[step // 5 % len(teams)])
    assert {r.id: r.tokens for r in results} == plain
    assert loop.figures().accepted > 0


PENALTIES = [
    {"frequency_penalty": 1.2},
    {"presence_penalty": 1.5},
    {"repetition_penalty": 1.8},
    {"frequency_penalty": 0.7, "presence_penalty": -0.4, "repetition_penalty": 1.3},
]


def penalised() -> list[Request]:
    """Long requests that end together, so that the batch's halves keep their members."""
    return [
        replace(r, sampling=Sampling(max_tokens=22, ignore_eos=True, **PENALTIES[i % 4]))
        for i, r in enumerate(requests(8))
    ]


def test_a_continued_request_is_opened_with_what_it_has_generated():
    """The draft actor counts the given tokens as generated: the target itself guesses all right."""
    plain = TokenLoop(table(), None, FixedSize(CHAIN), rows=4, max_length=30, scratch=8)
    expected = {r.id: r.tokens for r in plain.run(penalised())}
    rest = [replace(r, generated=expected[r.id][:9]) for r in penalised()]
    drafting = actor(drafter=ModelDrafter(table(), rows=8, capacity=62))
    loop = TokenLoop(
        table(), remote(direct(drafting)), FixedSize(CHAIN), rows=4, max_length=30, scratch=8
    )
    assert {r.id: r.tokens for r in loop.run(rest)} == expected
    assert loop.figures().accepted == loop.figures().drafted > 0, "it drafts as the target chooses"


@pytest.mark.parametrize("period", [1, 2, 3, 4])
def test_penalties_count_all_tokens_while_draft_actors_come_and_go(period):
    """Rounds of half the batch and of all of it alternate, over the same requests."""
    plain = TokenLoop(table(), None, FixedSize(CHAIN), rows=4, max_length=30, scratch=8)
    expected = {r.id: r.tokens for r in plain.run(penalised())}
    drafter = remote()
    loop = TokenLoop(table(), drafter, FixedSize(CHAIN), rows=4, max_length=30, scratch=8)
    for request in penalised():
        loop.submit(request)
    halves, results, step = {True: 0, False: 0}, [], 0
    while loop.num_unfinished:
        if step % period == 0:
            there = step // period % 2 == 0
            drafter.connect({f"draft-{step}": direct(actor())} if there else {})
        halves[drafter.remote] += 1
        results += loop.step()
        step += 1
    assert {r.id: r.tokens for r in results} == expected
    assert min(halves.values()) >= 3
    assert loop.figures().accepted > 0


def spoil(reply: DraftReply, **changed: object) -> DraftReply:
    return replace(reply, guesses=tuple(replace(g, **changed) for g in reply.guesses))


NONSENSE = {
    "not a reply": lambda reply: "hello",
    "nothing": lambda reply: None,
    "no guesses": lambda reply: replace(reply, guesses=None),
    "other guesses": lambda reply: replace(reply, guesses=(1, 2)),
    "no passes": lambda reply: replace(reply, passes="many"),
    "no seconds": lambda reply: replace(reply, seconds=None),
    "missing strangers": lambda reply: replace(reply, missing=("who",)),
    "strangers": lambda reply: spoil(reply, id="who"),
    "another version": lambda reply: spoil(reply, version=1),
    "beyond the vocabulary": lambda reply: spoil(reply, tokens=np.full(4, V)),
    "below it": lambda reply: spoil(reply, tokens=np.full(4, -1)),
    "lists": lambda reply: spoil(reply, tokens=[1], parents=[-1]),
    "floats": lambda reply: spoil(reply, tokens=np.ones(4), parents=np.arange(-1, 3)),
    "a circle": lambda reply: spoil(reply, tokens=np.ones(2, int), parents=np.array([1, 0])),
    "too many": lambda reply: spoil(
        reply, tokens=np.ones(500, int), parents=np.arange(-1, 499), probs=None
    ),
    "no probabilities": lambda reply: spoil(reply, probs=None),
    "wrong guesses": lambda reply: spoil(
        reply, tokens=np.full(4, 5), parents=np.arange(-1, 3), probs=None
    ),
}


@pytest.mark.parametrize("verify", ["match", "rejection"])
@pytest.mark.parametrize("name", NONSENSE)
def test_nonsense_is_ignored(plain, name, verify):
    drafting = actor()

    def send(ask: DraftAsk) -> Future:
        future: Future = Future()
        future.set_result(NONSENSE[name](drafting.draft(ask)))
        return future

    tokens, _ = run(remote(send), verify=verify)
    if verify == "match":
        assert tokens == plain


def test_random_nonsense_is_ignored(plain):
    dice = np.random.default_rng(3)

    def send(ask: DraftAsk) -> Future:
        future: Future = Future()
        guesses = tuple(
            Guess(
                id=growth.id,
                version=growth.version + int(dice.integers(-1, 2) * (dice.random() < 0.3)),
                tokens=dice.integers(-1, V + 1, size=n),
                parents=dice.integers(-2, max(n, 1), size=n),
            )
            for growth in ask.growths
            for n in [int(dice.integers(0, 6))]
        )
        future.set_result(DraftReply(guesses=guesses))
        return future

    assert run(remote(send, send))[0] == plain


def test_drafts_while_the_other_half_is_verified(plain):
    """With a draft actor that takes its time, replies of one half come during the other's round."""
    with ThreadPoolExecutor(1) as pool:
        drafting, main = actor(), threading.get_ident()

        def send(ask: DraftAsk) -> "Future[DraftReply]":
            assert threading.get_ident() == main
            return pool.submit(drafting.draft, ask)

        tokens, loop = run(remote(send))
    assert tokens == plain
    assert loop.figures().accepted > 20
