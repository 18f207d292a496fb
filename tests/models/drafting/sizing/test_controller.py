"""The controller: what it draws from its rounds. How fast that makes it: test_controller_speed."""

import time

import pytest

from models.drafting.draft import NOTHING, Shape
from models.drafting.sizing.controller import LAST, PROBED, Controller
from models.drafting.sizing.menu import menu
from models.drafting.sizing.sizing import FixedSize


def play(controller, rounds, *, cost, right=lambda shape: 0, rows=1):
    """Rounds of `cost(shape)` seconds in which drafts have `right(shape)` levels right."""
    plans = []
    for _ in range(rounds):
        shape, drafting = controller.plan(rows)
        plans.append((shape, drafting))
        for _ in drafting:
            controller.observe(shape.depth, right(shape), ended=False)
        controller.observe_round(cost(shape))
    return plans


def controller(**options):
    return Controller(**{"max_width": 8, "free": False, **options})


def usual(plans):
    """The shape most often planned in the last rounds."""
    shapes = [shape for shape, _ in plans[-100:]]
    return max(set(shapes), key=shapes.count)


def deep(shape):
    return shape.depth


def flat(shape):
    return 1.2 if shape.depth else 1.0


def by_nodes(shape):
    return 1.0 + 0.4 * shape.budget


def test_the_first_rounds_are_plain_and_drafts_grow_step_by_step():
    plans = [shape for shape, _ in play(controller(), 60, cost=flat, right=deep)]
    assert plans[:3] == [NOTHING] * 3
    new = list(dict.fromkeys(plans))
    assert new[1] == Shape(depth=1)
    assert all(b.budget <= 2 * max(s.budget for s in new[:i]) + 1 for i, b in enumerate(new) if i)


def test_what_is_right_and_cheap_is_drafted_deep():
    assert usual(play(controller(), 300, cost=flat, right=deep)).depth == 8
    free = controller(max_width=1, free=True)
    assert usual(play(free, 300, cost=flat, right=deep)) == Shape(depth=32)


def test_shapes_that_must_be_slower_are_not_tried():
    plans = play(controller(), 400, cost=by_nodes, right=lambda shape: min(shape.depth, 2))
    assert usual(plans) == Shape(depth=2)
    assert max(shape.budget for shape, _ in plans) <= 11


def test_useless_guesses_are_given_up():
    plans = play(controller(), 400, cost=flat)
    assert usual(plans) == NOTHING
    assert sum(shape.depth > 0 for shape, _ in plans) < 80


def test_looks_become_rare_and_find_out_when_the_text_has_changed():
    made = controller(max_width=1)
    late = play(made, 4000, cost=flat)[2000:]
    assert 0 < sum(shape.depth > 0 for shape, _ in late) <= 3 * 2000 / LAST + 3
    assert usual(play(made, 12 * LAST, cost=flat, right=deep)).depth == 8


def test_where_drafting_is_far_from_paying_most_looks_ask_few_requests_and_each_in_turn():
    """Every so often all are asked: that is what the costs are measured by."""
    plans = play(controller(max_width=1), 6000, cost=lambda s: 2.0 if s.depth else 1.0, rows=8)
    looks = [drafting for shape, drafting in plans[100:] if shape.depth]
    probes = [drafting for drafting in looks if len(drafting) < 8]
    assert all(len(drafting) == 8 // PROBED for drafting in probes)
    assert len(looks) * 0.7 < len(probes) < len(looks)
    assert {b for drafting in probes for b in drafting} == set(range(8))


def test_a_slow_machine_changes_nothing():
    made = controller(max_width=1)
    best = usual(play(made, 300, cost=by_nodes, right=lambda shape: min(shape.depth, 2)))
    plans = play(made, 300, cost=lambda s: 5 * by_nodes(s), right=lambda s: min(s.depth, 2))
    assert usual(plans) == best == Shape(depth=2)
    assert sum(shape == best for shape, _ in plans) > 250


def test_one_held_up_round_does_not_decide():
    made, seen = controller(max_width=1), []

    def cost(shape):
        seen.append(shape)
        return 50.0 if seen.count(Shape(depth=1)) == 2 else flat(shape)

    assert usual(play(made, 400, cost=cost, right=deep)).depth == 8


def test_batches_of_another_size_have_costs_of_their_own():
    made = controller(max_width=1)
    assert usual(play(made, 300, cost=flat, right=deep)).depth == 8
    dear = usual(play(made, 300, cost=lambda s: 1 + 10 * s.depth, right=deep, rows=16))
    assert dear == NOTHING
    shape, drafting = made.plan(1)
    assert shape.depth == 8  # it is known from before
    assert drafting == [0]


def test_the_end_of_a_request_says_nothing_of_deeper_levels():
    rates = []
    for ended in (False, True):
        made = controller(max_width=1)
        play(made, 30, cost=flat, right=deep)
        while made.plan(1)[0].depth < 3:
            made.observe_round(1.0)
        for _ in range(100):
            made.observe(1, 1, ended=ended)
        rates.append(made._chains.rates()[1])
    assert rates[0] < 0.4 < 0.7 < rates[1]


def test_drafts_from_elsewhere_are_judged_when_they_have_the_new_shape():
    """Those of the first two rounds after a change were asked for before it."""
    plans = play(controller(max_width=1, lag=2), 30, cost=flat, right=deep)
    first = next(i for i, (shape, _) in enumerate(plans) if shape.depth)
    assert [shape.depth for shape, _ in plans[first : first + 4]] == [1] * 4

    made = controller(max_width=1, lag=2)
    for _ in range(100):
        changed = made._shape
        shape, drafting = made.plan(1)
        fresh = made._unsettled > 0
        for _ in drafting:  # wrong only where the draft is still of another shape
            made.observe(shape.depth, 0 if fresh else shape.depth, ended=False)
        made.observe_round(flat(shape))
    assert changed.depth > 1
    assert min(made._chains.rates()) > 0.6


def test_a_look_that_the_batch_s_size_cuts_short_was_in_vain():
    """A drafter elsewhere halves the batch while it drafts: that must not go to and fro."""
    made, drafted = controller(max_width=1, lag=2), 0
    idle = 9
    for _ in range(2000):
        rows = 8 if idle >= 4 else 4
        shape, drafting = made.plan(rows)
        idle = 0 if drafting else idle + 1
        drafted += rows == 4
        for _ in drafting:
            made.observe(shape.depth, 0, ended=False)
        made.observe_round(1.0 if not drafting else 1.5)
    assert drafted < 300


def test_the_plan_is_the_same_for_the_same_history():
    one, two = (play(controller(), 200, cost=by_nodes, right=deep, rows=3) for _ in range(2))
    assert one == two


def test_its_own_time_is_short():
    """40 microseconds a round where each is cold; here they are warm."""
    made = controller()
    began = time.thread_time()
    play(made, 2000, cost=flat, right=deep)
    assert (time.thread_time() - began) / 2000 < 40e-6


def test_a_fixed_size_is_kept():
    fixed = FixedSize(Shape(depth=3, width=2))
    assert fixed.plan(2) == (Shape(depth=3, width=2), [0, 1])
    assert FixedSize(NOTHING).plan(2) == (NOTHING, [])


@pytest.mark.parametrize("free", [False, True])
def test_the_menu_fits_the_cache_s_scratch(free):
    assert max(shape.budget for shape in menu(8, free=free)) <= 64
    assert max(shape.depth * shape.width for shape in menu(8, free=free)) <= 64


@pytest.mark.parametrize("most", [1, 2, 4, 8])
def test_no_tree_of_the_menu_is_wider_than_allowed(most):
    trees = [shape for shape in menu(most, free=False) if shape.width > 1]
    assert {shape.width for shape in trees} == {w for w in (2, 4, 8) if w <= most}
    assert all(s.depth < s.budget <= s.depth * s.width for s in trees)


def test_useless_guesses_are_looked_at_in_batches_of_a_new_size():
    """What is known of their acceptance rules out every shape; one is tried all the same."""
    made = controller()
    play(made, 2000, cost=by_nodes, rows=7)
    for rows in (1, 16):
        plans = play(made, 200, cost=by_nodes, rows=rows)
        assert usual(plans) == NOTHING
        assert any(shape.depth for shape, _ in plans)
