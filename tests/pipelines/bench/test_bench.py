"""The bench on its own ground: recipes, tables, advice, interleaving; no models."""

import json
import subprocess
import sys
from dataclasses import replace
from typing import Any

import pytest

from models.errors import InvalidOption
from models.loop.figures import Figures
from pipelines.bench.advice import advice, choices
from pipelines.bench.command import config_of
from pipelines.bench.config import BenchConfig
from pipelines.bench.interleave import Run, Series, collect
from pipelines.bench.measurement import Measurement, measurement
from pipelines.bench.plots import draw, looks_of
from pipelines.bench.recipe import PLAIN, Recipe, grid, names
from pipelines.bench.table import HEADS, table
from pipelines.cli import main, parse

LOOKUP = Recipe(drafter="lookup", draft_tokens=4)
CHAIN = Recipe(drafter="a/small", draft_tokens=4)
AUTO = Recipe(drafter="a/small", draft_width="auto")
ROUND = {"round": 6.0, "draft": 2.0, "transfer": 0.0, "score": 3.0, "verify": 0.7, "other": 0.3}


def line(recipe: Recipe, batch_size: int, speed_up: float, **values: Any) -> Measurement:
    known: dict[str, Any] = {"exactness": "identical", "same": 5, "compared": 5, "tokens": 100}
    known |= {"accepted_length": 2.0, "round_ms": ROUND, "target_passes": 50, "draft_passes": 200}
    return Measurement(
        name=names([PLAIN, LOOKUP, CHAIN, AUTO])[recipe],
        batch_size=batch_size,
        tokens_per_second=100 * speed_up,
        speed_up=speed_up,
        recipe=recipe,
        **{**known, **values},
    )


def test_a_grid_holds_what_makes_sense_once() -> None:
    found = grid(["none", "lookup", "d"], ["auto", 2], [1, 4], ["match", "rejection"])
    assert found[0] == PLAIN
    assert len(found) == len(set(found))
    assert Recipe(drafter="d", draft_tokens=2, draft_width=4) in found
    assert Recipe(drafter="d", draft_width="auto") in found
    assert all(r.draft_width == 1 for r in found if r.drafter == "lookup" or r.verify != "match")


def test_a_width_left_open_is_a_chain_where_tokens_are_fixed() -> None:
    assert grid(["d"], [4], ["auto"], ["match"]) == [PLAIN, Recipe(drafter="d", draft_tokens=4)]


def test_names_are_short_but_tell_folders_apart() -> None:
    others = [Recipe(drafter="a/small"), Recipe(drafter="b/small")]
    assert list(names([PLAIN, *others]).values()) == ["plain", "a/small auto", "b/small auto"]
    tree = Recipe(drafter="a/small", draft_tokens=4, draft_width=2)
    assert names([tree])[tree] == "small tree of 4×2"
    part = replace(tree, draft_nodes=5)
    assert names([part])[part] == "small tree of 4×2, 5 likeliest"


def test_flags_choose_the_recipe_in_generate() -> None:
    part = Recipe(drafter="a/small", draft_tokens=4, draft_width=2, draft_nodes=5)
    assert part.flags().endswith("--draft-tokens 4 --draft-width 2 --draft-nodes 5")
    flags = Recipe(drafter="a/small", draft_tokens=4, verify="block").flags()
    assert flags == "--drafter a/small --draft-tokens 4 --draft-width 1 --verify block"


def test_a_flag_may_be_given_several_times() -> None:
    shell = "bench --target t --input i --drafter none --drafter lookup --drafter d"
    shell += " --batch-size 1 8 --draft-tokens auto 4 --draft-width 1 --temperature 0"
    config = config_of(parse(shell.split()))
    assert config.drafter == ("none", "lookup", "d")
    assert config.batch_size == (1, 8)
    assert config.draft_tokens == ("auto", 4)
    assert [recipe.drafter for recipe in config.recipes()] == ["none", "lookup", "lookup", "d", "d"]
    assert config.sampling().temperature == 0


@pytest.mark.parametrize(
    "values",
    [
        {"batch_size": (0,)},
        {"draft_tokens": ("some",)},
        {"draft_width": (0,)},
        {"verify": ("guess",)},
        {"draft_tokens": (8,), "drafter": ("none",)},
        {"draft_width": (1,), "drafter": ("none",)},
        {"verify": ("block",), "drafter": ("none",)},
        {"repeats": 0},
        {"prompts": 0},
        {"drafter": ()},
        {"temperature": -1.0},
        {"dtype": "float8"},
    ],
)
def test_what_is_refused_is_named(values: dict[str, Any]) -> None:
    with pytest.raises(InvalidOption, match=next(iter(values))):
        BenchConfig(target="t", input="i", **values)


def test_help_teaches_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["bench", "--help"])
    told = capsys.readouterr().out
    assert "paceline bench --target" in told
    assert "--batch-size" in told


def test_help_needs_no_torch() -> None:
    code = "import sys, pipelines.bench.command; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_advice_names_recipe_speed_and_where_not_to_draft() -> None:
    lines = [line(PLAIN, 1, 1.0), line(CHAIN, 1, 1.6), line(LOOKUP, 1, 1.1)]
    lines += [line(PLAIN, 16, 1.0), line(CHAIN, 16, 0.8), line(LOOKUP, 16, 0.95)]
    told = advice(lines)
    assert told[0] == (
        "Draft with small, chain of 4: 1.60× at batch 1; do not draft at batch 16 "
        "(the best was 0.95×)."
    )
    assert told[1].endswith("--drafter a/small --draft-tokens 4 --draft-width 1 --batch-size 1`")
    assert told[2] == "`paceline generate --drafter none --batch-size 16`"
    assert told[-1] == "Every recipe called identical gave the same tokens as plain decoding."


def test_batch_sizes_with_the_same_recipe_share_a_clause() -> None:
    lines = [m for b in (1, 4) for m in (line(PLAIN, b, 1.0), line(CHAIN, b, 1.5 + b / 10))]
    assert (
        advice(lines)[0] == "Draft with small, chain of 4: 1.60× at batch 1 and 1.90× at batch 4."
    )


def test_auto_is_recommended_where_it_loses_little() -> None:
    lines = [line(PLAIN, 1, 1.0), line(CHAIN, 1, 1.6), line(AUTO, 1, 1.58)]
    lines += [line(PLAIN, 8, 1.0), line(CHAIN, 8, 0.7), line(AUTO, 8, 0.99)]
    assert any("One setting for all of them" in told for told in advice(lines))
    slower = [*lines[:-1], line(AUTO, 8, 0.9)]
    assert not any("One setting for all of them" in told for told in advice(slower))


def test_a_gain_within_the_noise_is_no_reason_to_draft() -> None:
    assert not choices([line(PLAIN, 1, 1.0), line(CHAIN, 1, 1.02)])[0].pays


def test_differing_tokens_are_told() -> None:
    lines = [line(PLAIN, 1, 1.0), line(CHAIN, 1, 1.6, same=3)]
    assert "2 of 5 completions differ" in advice(lines)[-1]


def test_without_a_drafter_there_is_no_recommendation() -> None:
    assert "name a drafter" in advice([line(PLAIN, 1, 1.0)])[0]


def test_a_table_has_a_cell_for_each_head_and_dashes_for_the_unknown() -> None:
    peer = Measurement(name="peer", batch_size=1, tokens_per_second=50, speed_up=0.5)
    rows = table([line(CHAIN, 1, 1.6), peer]).splitlines()
    assert len(rows) == 4
    assert all(row.count("|") == len(HEADS) + 1 for row in rows)
    assert " 160.0 | " in rows[2]
    assert rows[3].count("–") == 11
    assert len({len(row) for row in rows}) == 1


def run(seconds: float, tokens: int = 4) -> Run:
    return Run(
        seconds=seconds,
        outputs={"a": tuple(range(tokens)), "b": (1,)},
        figures=Figures(
            rounds=2, target_passes=2, round_rows=4, tokens=tokens + 1, score_s=seconds
        ),
        exactness="identical",
    )


def test_speeds_are_medians_and_ratios_pair_the_turns() -> None:
    plain = Series([run(1.0), run(10.0), run(2.0)])
    fast = Series([run(0.5), run(5.0), run(4.0)])
    assert fast.over(plain) == 2.0
    assert plain.tokens_per_second == 2.5
    assert plain.middle.seconds == 2.0
    found = measurement("fast", fast, plain, batch_size=1, reference=plain.outputs)
    assert (found.same, found.compared) == (6, 6)
    assert found.round_ms is not None
    assert found.round_ms["score"] == 2000.0


def test_a_changed_token_is_counted() -> None:
    found = measurement(
        "x",
        Series([run(1.0, 3), run(1.0)]),
        Series([run(1.0)] * 2),
        batch_size=1,
        reference=run(1.0).outputs,
    )
    assert (found.same, found.compared) == (3, 4)


def test_contestants_take_turns() -> None:
    seen: list[tuple[str, int]] = []

    def contestant(name: str) -> Any:
        return lambda turn: (seen.append((name, turn)), run(1.0))[1]

    series = collect({"a": contestant("a"), "b": contestant("b")}, 2)
    assert seen == [("a", 0), ("b", 0), ("a", 1), ("b", 1)]
    assert [len(found.runs) for found in series.values()] == [2, 2]


@pytest.mark.parametrize("recipes", [[PLAIN, CHAIN, AUTO], [PLAIN, AUTO]])
def test_a_plot_is_a_png(recipes: list[Recipe]) -> None:
    assert draw([line(r, b, 1.2) for b in (1, 4) for r in recipes]).startswith(b"\x89PNG")


def test_a_recipe_has_one_look_of_its_own() -> None:
    recipes = [PLAIN, CHAIN, AUTO]
    looks = looks_of([line(r, b, 1.2) for b in (1, 4) for r in recipes])
    assert len(looks) == len({look.colour for look in looks.values()}) == len(recipes)


def test_measurements_are_json() -> None:
    assert json.loads(json.dumps(line(CHAIN, 1, 1.6).as_dict()))["recipe"]["draft_tokens"] == 4
