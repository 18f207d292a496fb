"""`--states stream` without Ray: how many steps ahead fit in the object store."""

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.drafting.distil.build import network_of, target_config
from models.errors import InvalidOption
from pipelines.distill.drafters import drafter, stream
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.drafters.drafter import check
from pipelines.distill.drafters.stream import Loads, fitting, loads_of, most_written
from pipelines.options import from_mapping

GIVEN = {"target": "t", "output": "o", "prompts": "p", "states": "stream"}
MIB = 2**20
LOADS = Loads(step=10 * MIB, exam=10 * MIB)
VOCAB, WIDTH = 257, 32  # of the tests' target


def config_of(**values):
    return from_mapping(DrafterOptions, {**GIVEN, **values})


@pytest.mark.parametrize(
    ("values", "room", "steps"),
    [
        ({}, 1000 * MIB, 4),
        ({}, 30 * MIB, 2),  # the third place is an exam's
        ({"workers": 2}, 50 * MIB, 2),
        ({"window": 9}, 1000 * MIB, 9),
        ({"window": 1}, 1000 * MIB, 1),
    ],
)
def test_as_many_steps_as_fit(values, room, steps):
    assert fitting(config_of(**values), LOADS, room) == steps


def test_what_does_not_fit_is_refused():
    with pytest.raises(InvalidOption, match="window=4 is not accepted: at most 2, by the object"):
        fitting(config_of(window=4), LOADS, 30 * MIB)
    told = "2 workers need 30 MiB in the object store, 29 MiB of it may be used: a larger "
    told += r"object store \(ray start --object-store-memory\); otherwise .* with --data o/records"
    with pytest.raises(InvalidOption, match=told):
        fitting(config_of(workers=2), LOADS, 29 * MIB)


def run_of(tmp_path, checkpoints, **values):
    given = {"target": checkpoints["target"], "output": str(tmp_path / "run"), "length": 64}
    return check(config_of(**given, train_batch=6, workers=2, **values))


def loads_in(run):
    lessons, target = run._lessons((), kept=0), Path(run.config.target)
    sizes = target_config(target)
    return loads_of(run.config, lessons, network_of(lessons, target, sizes)[0], sizes)


def test_distributions_are_counted_for_tokens_that_the_target_wrote(tmp_path, checkpoints):
    """At most half of a text of own records; of given rows all but one, the shortest prompt."""
    text, law, state = 64, 4 * VOCAB, 4 * WIDTH
    loads = loads_in(run_of(tmp_path, checkpoints))
    assert loads == Loads(step=3 * (text // 2) * law, exam=8 * 48 * law)
    loads = loads_in(run_of(tmp_path, checkpoints, exam_tokens=10))
    assert loads.exam == 8 * (text // 2) * law
    loads = loads_in(run_of(tmp_path, checkpoints, kind="eagle"))
    assert loads.step == 3 * ((text // 2) * law + text * state)  # of two layers, one is read
    loads = loads_in(run_of(tmp_path, checkpoints, kind="medusa", draft_vocab=9))
    assert loads.step == 3 * ((text // 2) * 4 * 10 + text * state)
    pq.write_table(pa.table({"prompt": ["a"], "tokens": [[1]]}), tmp_path / "part.parquet")
    loads = loads_in(run_of(tmp_path, checkpoints, prompts=None, data=str(tmp_path)))
    assert loads.step == 3 * (text - 1) * law
    assert most_written(config_of(length=17), images=True) == 16


def test_what_does_not_fit_is_refused_before_the_records_are_made(
    tmp_path, checkpoints, monkeypatch
):
    class Made(Exception):
        """Records are made."""

    def made(config, folder):
        raise Made

    monkeypatch.setattr(drafter, "make_rows", made)
    run = run_of(tmp_path, checkpoints)
    monkeypatch.setattr(stream, "store_room", lambda: 1000)
    with pytest.raises(InvalidOption, match="states='stream' is not accepted: 2 workers need 1 M"):
        run.records()
    for room in (100 * MIB, None):  # None: the nodes are not there yet
        monkeypatch.setattr(stream, "store_room", lambda room=room: room)
        with pytest.raises(Made):
            run.records()


def test_a_window_goes_with_streaming():
    with pytest.raises(InvalidOption, match="window=2 is not accepted: 1 or more, with states="):
        config_of(states="recompute", window=2)
    with pytest.raises(InvalidOption, match="window=0 is not accepted"):
        config_of(window=0)
    with pytest.raises(InvalidOption, match="one of recompute, stream"):
        config_of(states="stored")


def test_actors_and_workers_run_at_once():
    sizes = {"workers": 2, "target_actors": 3}
    assert config_of(**sizes).num_processes == 5
    assert config_of(**sizes, states="recompute").num_processes == 3
