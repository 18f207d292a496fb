"""The registry: a rule, a drafter or a decoder of a user's own needs its file and one line."""

import argparse
import re
from pathlib import Path

import pytest

from models.drafting.parallel.jacobi import JacobiDrafter
from models.engine import build_loop
from models.engine_config import EngineConfig
from models.errors import InvalidOption
from models.exactness import LEVELS
from models.registry import (
    DECODERS,
    DRAFTERS,
    FOLDERS,
    MAPS,
    RULES,
    DrafterEntry,
    RuleEntry,
    drafters,
    is_draft_model,
    is_folder,
    load,
)
from models.requests.request import Request, Sampling
from pipelines.flags import add_flags
from pipelines.generate.config import GenerateConfig
from tests.models import toys
from tests.models.checkpoints import VOCABULARY, save

PLACES = {"target": "t", "input": "i", "output": "o"}
REPEAT = DrafterEntry(where="tests.models.toys:build_repeat", told="the last token")
COUNTED = RuleEntry(where="tests.models.toys:counted", exactness="identical", sampled=False)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    made = tmp_path_factory.mktemp("target")
    save(made, "llama2")
    return str(made)


@pytest.fixture
def _toys(monkeypatch):
    monkeypatch.setitem(DRAFTERS, "repeat", REPEAT)
    monkeypatch.setitem(DECODERS, "repeat-window", REPEAT)
    monkeypatch.setitem(RULES, "counted", COUNTED)


def run(folder, **options):
    loop = build_loop(EngineConfig(target=folder, max_length=100, **options))
    requests = [
        Request(
            id=str(i),
            prompt=(1, 2, 3 + i % (VOCABULARY - 3)),
            sampling=Sampling(max_tokens=30, temperature=0.5),
            seed=i,
        )
        for i in range(6)
    ]
    results = loop.run(requests)
    return {r.id: r.tokens for r in results}, loop, results


@pytest.mark.usefixtures("_toys")
@pytest.mark.parametrize("drafter", ["repeat", "repeat-window"])
def test_a_drafter_and_a_rule_run(folder, drafter):
    plain, _, _ = run(folder)
    toys.calls.clear()
    found, loop, results = run(folder, drafter=drafter, verify="counted")
    assert found == plain
    assert {r.exactness.split()[0] for r in results} == {"identical"}
    assert loop.describe()["drafter"] == "repeat"
    assert loop.describe()["verify"] == "counted"
    assert len(toys.calls) == loop.figures().rounds
    assert loop.figures().drafted > 0


def test_they_are_refused_without_their_lines(folder):
    with pytest.raises(InvalidOption, match=r"verify='counted'.*'match', 'rejection', 'block'"):
        EngineConfig(target=folder, verify="counted")
    with pytest.raises(InvalidOption, match="drafter='repeat'"):
        is_folder("repeat")


@pytest.mark.usefixtures("_toys")
def test_the_command_line_knows_them():
    parser = argparse.ArgumentParser()
    add_flags(parser, GenerateConfig)
    told = parser.parse_args(["--verify", "counted", "--decoder", "repeat-window"])
    assert (told.verify, told.decoder) == ("counted", "repeat-window")
    config = GenerateConfig(**PLACES, drafter="repeat", verify="counted")
    assert not is_folder(config.drafter)
    assert config.engine().rule == "counted"
    with pytest.raises(InvalidOption, match="did you mean 'repeat'"):
        is_folder("repat")
    with pytest.raises(InvalidOption, match="one of match, rejection, block, counted"):
        GenerateConfig(**PLACES, verify="countd")
    with pytest.raises(InvalidOption, match=r"one of sequential, .*, repeat-window"):
        GenerateConfig(**PLACES, decoder="repeat-windo")


@pytest.mark.usefixtures("_toys")
def test_a_drafter_without_trees_is_not_given_a_width(folder):
    with pytest.raises(InvalidOption, match="draft_width=2"):
        EngineConfig(target=folder, drafter="repeat", draft_tokens=2, draft_width=2)


def test_every_line_loads():
    for entry in [*drafters().values(), *DECODERS.values(), *RULES.values(), *FOLDERS.values()]:
        assert callable(load(entry.where))
    assert all(callable(load(where)) for where in MAPS.values())
    assert {entry.exactness for entry in RULES.values()} <= set(LEVELS)


def test_a_decoders_rule_goes_with_its_coupling(folder):
    """Of the parallel decoders, those with a rule that samples are not for draft actors."""
    for name, entry in DECODERS.items():
        if entry.rule is not None:
            assert entry.remote != RULES[entry.rule].sampled
            loop = build_loop(EngineConfig(target=folder, drafter=name, max_length=50))
            assert isinstance(loop.drafter, JacobiDrafter)
            assert (loop.drafter.name, loop.rule) == (name, entry.rule)


def test_the_documentation_names_them():
    pages = "".join(page.read_text() for page in Path("docs").glob("*.md"))
    for name in (*RULES, *drafters(), *DECODERS, *MAPS):
        assert re.search(rf"`{name}`", pages), name


@pytest.mark.parametrize("drafter", ["a" * 300, "a/" * 5000])
def test_a_name_that_no_folder_can_have_is_refused(drafter: str) -> None:
    """Not with an OSError, which ended the pool of a server that was asked for such a drafter."""
    assert EngineConfig(target="t", drafter=drafter).drafter == drafter
    assert not is_draft_model(drafter)
    with pytest.raises(InvalidOption, match="File name too long") as caught:
        is_folder(drafter)
    assert len(str(caught.value)) < 400
