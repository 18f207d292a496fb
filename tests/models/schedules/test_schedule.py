"""Schedules of groups through the whole loop: exact laws, invariants, refusals."""

from itertools import permutations

import numpy as np
import pytest

from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import NOTHING
from models.drafting.sizing.sizing import FixedSize
from models.errors import InvalidOption, InvalidRequest
from models.exactness import exactness
from models.loop.token_loop import TokenLoop
from models.requests.canvas import Canvas
from models.requests.request import Request, Sampling
from models.sampling.noise import NoiseStore
from models.schedules.feed import Feed
from models.schedules.schedule import RASTER, Plan, Scales
from tests.models.bags import (
    PROMPT,
    SIZE,
    BagTarget,
    ByValue,
    Diagonals,
    RandomGroups,
    diagonal_law,
    feed_diagonal,
    feed_queries,
    query_law,
)
from tests.models.looping import TARGET as TABLE
from tests.models.test_law import fit
from tests.models.tiny import TableTarget

DIAGONALS = BagTarget(Diagonals(), feed_diagonal)
RANDOM = BagTarget(RandomGroups(), feed_queries, seed=1)
BY_VALUE = BagTarget(ByValue(), feed_queries, seed=1)
TARGETS = {"diagonals": DIAGONALS, "random": RANDOM}
SETTINGS = [
    {},
    {"temperature": 0},
    {"temperature": 0.7, "top_p": 0.8},
    {"top_k": 2},
    {"min_p": 0.3},
    {"logit_bias": {1: 1.5}},
    {"presence_penalty": 0.7, "repetition_penalty": 1.4},
]


def loop_of(target, rows=32, **options):
    return TokenLoop(
        target, None, FixedSize(NOTHING), rows=rows, max_length=1 + SIZE, scratch=8, **options
    )


def request_of(number, **sampling):
    asked = Sampling(**({"max_tokens": SIZE} | SETTINGS[number % len(SETTINGS)] | sampling))
    return Request(id=str(number), prompt=(PROMPT,), sampling=asked, seed=number)


def plain(number):
    return Request(
        id=str(number), prompt=(PROMPT,), sampling=Sampling(max_tokens=SIZE), seed=number
    )


def tokens_of(results):
    return {result.id: result.tokens for result in results}


def canvas_of(size, number=0):
    return Canvas(plain(number), size)


@pytest.mark.parametrize(
    ("schedule", "size"),
    [(RASTER, 7), (Scales((1, 2, 3, 4)), 30), (Scales((2, 3)), 13), (Diagonals(), SIZE),
     (RandomGroups(), SIZE), (ByValue(), SIZE)],
    ids=lambda value: getattr(value, "name", value),
)  # fmt: skip
def test_plans_partition_the_positions(schedule, size):
    for number in range(5):
        canvas, seen = canvas_of(size, number), []
        while len(canvas.undecided):
            plan = schedule.next(canvas)
            seen += plan.positions.tolist()
            ended = canvas.place(plan.positions, plan.positions % 3)
        assert sorted(seen) == list(range(size))
        assert ended
        assert canvas.finish_reason == "length"
        assert canvas.generated == [position % 3 for position in range(size)]


def test_scales_decide_a_map_a_pass():
    schedule, canvas = Scales((1, 2, 3)), canvas_of(14)
    for scale, size in enumerate((1, 4, 9)):
        assert schedule.scale_of(canvas) == scale
        plan = schedule.next(canvas)
        assert len(plan.positions) == size
        canvas.place(plan.positions, np.zeros(size, dtype=np.int64))


@pytest.mark.usefixtures("little_noise_ahead")
def test_diagonals_have_the_law_of_their_model():
    samples = tokens_of(loop_of(DIAGONALS).run(plain(i) for i in range(2000))).values()
    law = diagonal_law(DIAGONALS)
    assert abs(sum(law.values()) - 1) < 1e-9
    assert fit(list(samples), law) > 1e-3


@pytest.mark.usefixtures("little_noise_ahead")
def test_random_orders_have_the_law_of_their_model():
    """Each seed draws its order, so the law is the mean over orders; one order alone fails."""
    samples = list(tokens_of(loop_of(RANDOM).run(plain(i) for i in range(2000))).values())
    laws = [query_law(RANDOM, order) for order in permutations(range(SIZE))]
    mean = {values: float(np.mean([law[values] for law in laws])) for values in laws[0]}
    assert fit(samples, mean) > 1e-3
    assert fit(samples, laws[0]) < 1e-6


@pytest.mark.parametrize("name", TARGETS)
def test_batch_and_time_of_joining_change_nothing(name):
    requests = [request_of(number) for number in range(40)]
    alone = tokens_of(result for r in requests for result in loop_of(TARGETS[name], 1).run([r]))
    for rows in (8, 32):
        assert tokens_of(loop_of(TARGETS[name], rows).run(requests)) == alone
    late, results = loop_of(TARGETS[name], 5), []
    for request in requests:  # one more joins before every step
        late.submit(request)
        results += late.step()
    assert tokens_of([*results, *late.run([])]) == alone


def test_noise_belongs_to_the_place_not_to_the_order_of_generation():
    """Where nothing depends on the others, every order gives the same tokens."""
    targets = [
        BagTarget(s, f) for s, f in ((Diagonals(), feed_diagonal), (RandomGroups(), feed_queries))
    ]
    for target in targets:
        target.weight.zero_()
    first, second = (tokens_of(loop_of(t).run(plain(i) for i in range(20))) for t in targets)
    assert first == second


class OneByOne:
    """The order of plain decoding, told as groups."""

    name, in_order, sample_dependent, num_positions = "one by one", False, False, None

    def next(self, canvas):
        return Plan(canvas.undecided[:1])


class TableInGroups(TableTarget):
    schedule, scratch = OneByOne(), 0

    def check(self, request):
        pass

    def feed(self, canvases, plans):
        one = np.zeros(1, dtype=np.int64)
        return [
            Feed(tokens=np.array(c.tokens[-1:]), depths=one, visible=np.ones((1, 1), bool),
                 wanted=one, kept=one)
            for c in canvases
        ]  # fmt: skip


def test_groups_of_one_are_plain_decoding():
    grouped = TableInGroups(5, 1)
    requests = [
        Request(id=str(i), prompt=(i % 5, 2, 1), seed=i,
                sampling=Sampling(max_tokens=9, logprobs=2, **SETTINGS[i % len(SETTINGS)]))
        for i in range(30)
    ]  # fmt: skip
    expected, found = (
        TokenLoop(t, None, FixedSize(NOTHING), rows=4, max_length=12, scratch=1, prefill_chunk=2)
        for t in (TableTarget(5, 1), grouped)
    )
    for one, other in zip(
        sorted(expected.run(requests), key=lambda r: r.id),
        sorted(found.run(requests), key=lambda r: r.id),
        strict=True,
    ):
        assert one == other
    assert expected.figures().tokens == found.figures().tokens


def test_figures_and_results_count_passes():
    loop = loop_of(DIAGONALS)
    results = loop.run(plain(i) for i in range(6))
    for result in results:
        assert (result.target_passes, result.accepted_length) == (3, 4 / 3)
        assert (result.exactness, result.finish_reason) == ("identical", "length")
    figures = loop.figures()
    assert (figures.target_passes, figures.round_rows, figures.tokens) == (3, 18, 24)
    assert loop.describe()["schedule"] == "diagonals"


def test_logprobs_are_in_the_order_of_output():
    (result,) = loop_of(RANDOM).run([request_of(3, logprobs=1)])
    assert tuple(entry.token for entry in result.logprobs) == result.tokens


def test_a_schedule_that_looks_at_values_is_not_exact():
    (result,) = loop_of(BY_VALUE).run([plain(0)])
    assert result.exactness == "approximate"
    assert exactness("rejection", RASTER, steady=True) == "distribution"


def test_a_cancelled_request_frees_its_row():
    loop = loop_of(DIAGONALS, rows=2)
    for number in range(3):
        loop.submit(plain(number))
    loop.step()
    assert loop.cancel("0")
    rest = tokens_of(loop.run([]))
    assert rest == tokens_of(loop_of(DIAGONALS).run([plain(1), plain(2)]))
    assert loop.num_unfinished == 0


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        ({"max_tokens": 3}, "this target writes 4 tokens"),
        ({"stop_token_ids": (1,)}, "stop_token_ids has no meaning"),
        ({"min_tokens": 2}, "min_tokens has no meaning"),
    ],
)
def test_what_groups_cannot_give_is_refused(asked, told):
    loop = loop_of(DIAGONALS)
    with pytest.raises(InvalidRequest, match=told):
        loop.submit(request_of(0, **asked))
    assert loop.num_unfinished == 0


def test_drafts_and_other_rules_are_refused():
    with pytest.raises(InvalidOption, match="verify='rejection'"):
        loop_of(DIAGONALS, verify="rejection")
    with pytest.raises(InvalidOption, match="drafter='lookup'"):
        TokenLoop(DIAGONALS, LookupDrafter(), FixedSize(NOTHING), rows=1, max_length=5, scratch=8)
    assert TABLE.schedule is RASTER


def test_noise_of_a_plan_wider_than_the_store(monkeypatch):
    """Groups larger than what is drawn ahead get the same numbers."""
    expected = tokens_of(loop_of(DIAGONALS).run(plain(i) for i in range(8)))
    monkeypatch.setattr(NoiseStore, "NUMBERS", 1)
    assert tokens_of(loop_of(DIAGONALS).run(plain(i) for i in range(8))) == expected
