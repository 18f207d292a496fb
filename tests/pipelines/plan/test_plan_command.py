"""Measurements become plans, a table and commands."""

import pytest

from models.errors import InvalidOption
from pipelines.bench.machine import this_machine
from pipelines.bench.measurement import Measurement
from pipelines.bench.recipe import PLAIN, Recipe
from pipelines.plan.config import PlanConfig
from pipelines.plan.run import planned

CHAIN = Recipe(drafter="draft", draft_tokens=4, draft_width=1)
AUTO = Recipe(drafter="draft", draft_tokens="auto", draft_width=1)


def config(**options: object) -> PlanConfig:
    return PlanConfig(target="target", drafter="draft", input="in", **options)


def measured(recipe: Recipe, batch: int, speed: float, draft_ms: float) -> Measurement:
    return Measurement(
        name=recipe.size,
        recipe=recipe,
        batch_size=batch,
        tokens_per_second=speed,
        speed_up=1.0,
        accepted_length=1.0 if recipe.is_plain else 3.0,
        round_ms={"round": 10.0 + draft_ms, "draft": draft_ms},
        tokens=16 * 50,
    )


LINES = [
    measured(recipe, batch, speed, draft_ms)
    for batch in (8, 4)
    for recipe, speed, draft_ms in ((PLAIN, 500.0, 0.0), (AUTO, 1200.0, 2.0), (CHAIN, 900.0, 1.0))
]


def test_each_way_has_its_best_recipe():
    found = planned(LINES, config(gpus=(1, 8)), this_machine(), 16)
    assert [(c.plan.name, c.recipe) for c in found.choices[1]] == [
        ("beside", AUTO),
        ("plain", AUTO),
    ]
    assert {c.plan.name for c in found.choices[8]} == {"plain", "beside", "pools"}


def test_the_table_names_costs_and_commands():
    text = "\n".join(planned(LINES, config(gpus=(1,), rows=72_000), this_machine(), 16).lines())
    assert "| 1 | **a drafter beside each target** | 1 | 0 | 1,200 | 0.8 |" in text
    assert "`paceline generate --drafter draft --draft-tokens auto --target-actors 1`" in text


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"gpus": (0,)}, "gpus=0"),
        ({"batch_size": 1}, "2 or more: pools halve it"),
        ({"rows": 0}, "rows=0"),
    ],
)
def test_what_cannot_be_planned_is_refused(options, told):
    with pytest.raises(InvalidOption, match=told):
        config(**options)
