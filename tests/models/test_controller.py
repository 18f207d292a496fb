"""The draft-size controller: what it picks, how rarely it probes, whom it leaves out."""

import numpy as np
import pytest

from models.acceptance import MOST_SURE, expected_tokens, narrow, widen
from models.controller import Controller
from models.costs import PassCost
from models.draft import NOTHING, Shape
from models.menu import menu
from models.request import Request
from models.sequence import Sequence
from models.sizing import FixedSize

SIZES = (1, 2, 4, 8, 16, 32, 64, 128)


def cost(*, base, per_node):
    """Seconds of a pass: a part for the weights and a part for each node."""
    return PassCost(SIZES, tuple(base + per_node * n for n in SIZES))


def free(base=1e-3):
    return cost(base=base, per_node=0.0)


def sequences(count=1):
    return [Sequence(Request(id=f"r{i}", prompt=(1,))) for i in range(count)]


def play(controller, members, rounds, *, right, widened=None, rng=None, slower=1.0):
    """Rounds in which each level of a draft is right with the sequence's chance.

    `right` by sequence index (for chains), `widened` for trees. Drafted rounds take `slower` times
    as long as the controller's curves say. Returns the planned shapes.
    """
    rng = rng or np.random.default_rng(0)
    shapes = []
    for _ in range(rounds):
        shape, drafting = controller.plan(members)
        shapes.append((shape, drafting))
        tokens = len(members)
        for b in drafting:
            chances = right if shape.width == 1 or widened is None else widened
            wrong = np.flatnonzero(rng.random(shape.depth) >= chances[b])
            accepted = int(wrong[0]) if len(wrong) else shape.depth
            tokens += accepted
            controller.observe(members[b], shape, shape.depth, accepted)
        nodes = len(members) + len(drafting) * shape.budget
        seconds = controller._cost._predicted(shape, len(members), nodes)
        factor = slower if shape.depth else 1.0
        controller.observe_round(shape, len(members), nodes, tokens, factor * seconds)
    return shapes


def last(shapes):
    """The shape most often planned in the last rounds."""
    kinds = [s for s, _ in shapes[-50:]]
    return max(set(kinds), key=kinds.count)


def test_nothing_is_drafted_where_it_costs_more_than_it_brings():
    dear = Controller(cost(base=1e-3, per_node=1e-3), cost(base=1e-3, per_node=1e-3), max_width=8)
    shapes = play(dear, sequences(), 500, right=[0.7], widened=[0.8])
    assert last(shapes) == NOTHING


def test_nothing_is_drafted_when_the_guesses_are_useless():
    for draft in (None, free(1e-4)):
        controller = Controller(free(), draft, max_width=8)
        shapes = play(controller, sequences(), 400, right=[0.0], widened=[0.0])
        assert last(shapes) == NOTHING
        assert sum(len(d) for _, d in shapes) < 80  # every width is found out on its own


def test_useless_guesses_are_given_up_though_drafted_rounds_seem_faster_than_plain_ones():
    """A machine that was slow while plain rounds were timed, and is not any more."""
    controller = Controller(free(), free(1e-4), max_width=8)
    shapes = play(controller, sequences(), 400, right=[0.0], widened=[0.0], slower=0.5)
    assert last(shapes) == NOTHING
    assert sum(len(d) for _, d in shapes) < 80


def test_deep_chains_where_nearly_all_is_right():
    model = Controller(free(), free(2e-5), max_width=1)
    assert last(play(model, sequences(), 400, right=[0.99])).depth == 8
    lookup = Controller(free(), None, max_width=1)
    assert last(play(lookup, sequences(), 800, right=[0.99])).depth == 32


def test_a_middling_drafter_gets_a_middling_depth():
    controller = Controller(free(), free(2e-4), max_width=1)
    depth = last(play(controller, sequences(), 600, right=[0.6])).depth
    # Tokens per second: (1 - a^(d+1)) / (1 - a) over 1 + 0.2 d + overhead
    speed = [expected_tokens(0.6, d) / (1.3 + 0.2 * d) for d in range(9)]
    assert abs(depth - int(np.argmax(speed))) <= 1


def test_wide_trees_where_width_is_free():
    controller = Controller(free(), free(2e-4), max_width=8)
    shape = last(play(controller, sequences(), 600, right=[0.4], widened=[0.8]))
    assert shape.width == 8


def test_chains_where_width_costs():
    controller = Controller(cost(base=1e-3, per_node=4e-4), free(1e-4), max_width=8)
    shape = last(play(controller, sequences(), 600, right=[0.85], widened=[0.86]))
    assert shape.width == 1
    assert shape.depth >= 2


def test_no_tree_beyond_what_is_allowed():
    for width in (1, 2, 4, 8):
        controller = Controller(free(), free(1e-4), max_width=width)
        shapes = play(controller, sequences(), 200, right=[0.4], widened=[0.8])
        assert max(s.width for s, _ in shapes) <= width


def test_probes_are_rare_and_find_out():
    controller, members = Controller(free(), free(5e-4), max_width=1), sequences()
    shapes = play(controller, members, 5000, right=[0.0])
    late = [shape for shape, _ in shapes[100:]]
    probes = sum(shape.depth > 0 for shape in late)
    assert 3 <= probes <= 15
    assert {s for s in late if s.depth} == {Shape(depth=2)}
    shapes = play(controller, members, 12_000, right=[0.97])  # the text has changed
    assert last(shapes).depth >= 4


def test_probes_ask_a_few_and_every_one_in_turn():
    members = sequences(8)
    for drafter in (None, free(5e-4)):
        controller = Controller(cost(base=1e-3, per_node=2e-5), drafter, max_width=1)
        shapes = play(controller, members, 8000, right=[0.0] * 8)
        probes = [set(drafting) for shape, drafting in shapes[100:] if shape.depth]
        assert all(len(drafting) == 2 for drafting in probes)
        assert set.union(*probes) == set(range(8))


def test_another_size_of_the_batch_is_timed_though_nothing_was_drafted():
    controller = Controller(cost(base=1e-3, per_node=1e-3), free(1e-4), max_width=8)
    assert last(play(controller, sequences(8), 300, right=[0.5] * 8, widened=[0.5] * 8)) == NOTHING
    for rows in (4, 2, 1):
        play(controller, sequences(rows), 5, right=[0.5] * rows, widened=[0.5] * rows)
        assert controller._cost.count(NOTHING, rows) >= 2


def test_probes_ask_all_where_guesses_rarely_come():
    controller, members = Controller(free(), None, max_width=1), sequences(8)
    for _ in range(2000):
        shape, drafting = controller.plan(members)
        for b in drafting:
            controller.observe(members[b], shape, 0, 0)
        controller.observe_round(shape, 8, 8, 8, 1.3e-3)
    assert max(len(controller.plan(members)[1]) for _ in range(3)) == 8


def test_no_probe_where_even_right_guesses_would_not_pay():
    for per_node, probes in ((2e-3, False), (2e-4, True)):
        controller = Controller(cost(base=1e-4, per_node=per_node), free(1e-4), max_width=8)
        late = play(controller, sequences(8), 600, right=[0.3] * 8, widened=[0.3] * 8)[60:]
        assert any(shape.depth for shape, _ in late) == probes


def test_a_large_batch_stops_what_pays_alone():
    """Nodes are nearly free for one request and dear for sixteen."""
    seconds = tuple(1e-3 * max(1.0, n / 16) for n in SIZES)

    def made():
        return Controller(PassCost(SIZES, seconds), free(1e-4), max_width=1)

    assert last(play(made(), sequences(1), 300, right=[0.7])).depth > 0
    assert last(play(made(), sequences(16), 300, right=[0.5] * 16)) == NOTHING


def test_a_request_whose_guesses_are_wrong_is_left_out():
    controller = Controller(cost(base=1e-3, per_node=1e-4), None, max_width=1)
    members = sequences(4)
    shapes = play(controller, members, 600, right=[0.95, 0.95, 0.95, 0.0])
    drafting = [set(d) for s, d in shapes[-200:] if s.depth]
    assert len(drafting) > 150
    assert all({0, 1, 2} <= d for d in drafting)
    assert sum(3 in d for d in drafting) < 40


def test_what_a_request_showed_is_forgotten_with_it():
    controller = Controller(free(), None, max_width=1)
    play(controller, sequences(3), 100, right=[0.9] * 3)
    assert len(controller._each) == 3
    for member in sequences(3):
        controller.forget(member.id)
    controller.forget("never there")
    assert controller._each == {}


def test_rounds_dearer_than_measured_are_noticed():
    controller, members = Controller(free(), free(1e-4), max_width=8), sequences()
    assert last(play(controller, members, 100, right=[0.8], widened=[0.9])).depth > 0
    shapes = play(controller, members, 300, right=[0.8], widened=[0.9], slower=20.0)
    assert last(shapes) == NOTHING


def test_plain_rounds_come_first_and_now_and_then():
    """What drafting is compared with is measured, at every size of the batch; sooner at first."""
    controller = Controller(free(), free(1e-4), max_width=1)
    for count, most in ((1, 8), (8, 6)):
        shapes = [s for s, _ in play(controller, sequences(count), 300, right=[0.9] * count)]
        assert shapes[0] == shapes[1] == NOTHING
        assert 4 <= shapes[2:].count(NOTHING) <= most
        if count == 1:
            assert shapes[2:32].count(NOTHING) == 2


def test_drafts_that_do_not_come_are_not_counted_as_wrong():
    controller, members = Controller(free(), None, max_width=1), sequences()
    for turn in range(400):
        shape, drafting = controller.plan(members)
        given = shape.depth if turn % 3 == 0 else 0
        for b in drafting:
            controller.observe(members[b], shape, given, given)
        controller.observe_round(shape, 1, 1 + given, 1 + given, 1.3e-3)
    assert last([controller.plan(members)]).depth >= 16
    assert controller._supply.comes == pytest.approx(1 / 3, abs=0.1)


def test_drafts_cut_short_by_the_drafter_are_expected_to_be_short():
    controller, members = Controller(free(), None, max_width=1), sequences()
    for _ in range(300):
        shape, drafting = controller.plan(members)
        given = min(shape.depth, 3)
        for b in drafting:
            controller.observe(members[b], shape, given, given)
        controller.observe_round(shape, 1, 1 + given, 1 + given, 1.3e-3)
    assert controller._supply.depth(32) == pytest.approx(3, abs=0.2)
    assert controller._supply.depth(2) == 2


def test_the_plan_is_the_same_for_the_same_history():
    """Ties and orders are settled: two controllers that saw the same plan the same."""
    one, two = (Controller(free(), free(1e-4), max_width=8) for _ in range(2))
    for controller in (one, two):
        play(controller, sequences(3), 100, right=[0.5] * 3, widened=[0.7] * 3)
    assert one.plan(sequences(3)) == two.plan(sequences(3))


def test_a_fixed_size_is_kept():
    fixed = FixedSize(Shape(depth=3, width=2))
    assert fixed.plan(sequences(2)) == (Shape(depth=3, width=2), [0, 1])
    assert FixedSize(NOTHING).plan(sequences(2)) == (NOTHING, [])


@pytest.mark.parametrize("rate", [0.0, 0.3, 0.9])
def test_expected_tokens_are_a_geometric_sum(rate):
    for depth in (0, 1, 5):
        found = expected_tokens(rate, depth)
        assert found == pytest.approx(sum(rate**i for i in range(depth + 1)))


def test_expected_tokens_of_a_drafter_that_is_always_right():
    assert expected_tokens(MOST_SURE, 8) == pytest.approx(9, rel=0.01)


def test_the_menu_fits_the_cache_s_scratch():
    for deep in (False, True):
        assert max(s.budget for s in menu(8, deep=deep)) <= 64
        assert all(s.depth >= 1 for s in menu(8, deep=deep))
    assert {s.width for s in menu(1, deep=False)} == {1}


@pytest.mark.parametrize("most", [2, 4, 8])
def test_trees_of_the_menu_grow_more_than_they_keep(most):
    trees = [s for s in menu(most, deep=False) if s.width > 1]
    assert {s.width for s in trees} == {w for w in (2, 4, 8) if w <= most}
    assert all(s.depth < s.budget <= s.depth * s.width for s in trees)


def test_levels_that_a_tree_lacks_count_as_tried():
    shape, member = Shape(depth=4, width=2, nodes=5), sequences()[0]
    controller = Controller(free(), free(1e-4), max_width=8)
    controller.observe(member, shape, 2, 2)  # two levels deep, right to its end
    seen = controller._all[shape.fan]
    assert (seen.trials, seen.hits) == (3, 2)
    member.finish_reason = "length"  # there was no room for more levels
    controller.observe(member, shape, 2, 2)
    assert seen.trials == pytest.approx(0.995 * 3 + 2)


def test_few_guesses_are_worth_more_in_a_tree_than_in_a_chain():
    """Measured with the demo pair: 0.66 a level as a chain, 0.74 as a tree of 4x2 with 5 nodes."""
    assert widen(0.66, 1.0) == 0.66
    assert widen(0.66, 1.25) == pytest.approx(0.74, abs=0.02)
    assert widen(0.66, 4.0) == pytest.approx(0.84, abs=0.02)
    for fan in (1.0, 1.25, 7.9):
        assert narrow(widen(0.66, fan), fan) == pytest.approx(0.66)
