"""Generate jobs with a draft model of an image target: rows of plain decoding, what is refused."""

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from models.drafting.heads.medusa_head import write_medusa
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.training.raster import RasterModel
from pipelines.generate.fingerprint import fingerprint
from pipelines.generate.job import generate
from pipelines.generate.prepare import prepare
from pipelines.modality.choose import modality_of
from tests.models.drafting.heads.random_heads import medusa_head
from tests.models.tokenizers.tiny_images import grid
from tests.pipelines.generate.image_jobs import (
    RASTER,
    image_config,
    labels,
    raster,
    run_images,
    save_scale,
)
from tests.pipelines.generate.inprocess import outcome

__all__ = ["labels", "raster"]  # fixtures


def save_draft(folder: Path, **sizes: Any) -> str:
    """A draft model without a tokenizer of its own, as it needs none."""
    torch.manual_seed(2)
    config = replace(RASTER, **{"num_layers": 1, **sizes})
    RasterModel(config, grid().codebook()).save(folder, torch.float32)
    return str(folder)


@pytest.fixture
def draft(tmp_path: Path) -> str:
    return save_draft(tmp_path / "draft")


@pytest.mark.parametrize(
    "values",
    [
        {"draft_tokens": 3},
        {"draft_tokens": 3, "draft_width": 2, "guidance": 2.0},
        {"top_k": 9, "temperature": 0.8},
    ],
)
def test_rows_are_those_of_plain_decoding(
    raster: str, draft: str, labels: str, tmp_path: Path, values: dict[str, Any]
) -> None:
    plain = {name: v for name, v in values.items() if not name.startswith("draft")}
    configs = [
        image_config(raster, labels, tmp_path / "plain", **plain),
        image_config(raster, labels, tmp_path / "drafted", **values, drafter=draft),
    ]
    for config in configs:
        run_images(config)
    rows = outcome(configs[0].output)
    assert outcome(configs[1].output) == rows
    assert {row["exactness"] for row in rows} == {"identical"}
    jobs = [fingerprint(config, prepare(config).plan) for config in configs]
    assert jobs[0] == jobs[1]  # one may go on with the other's rows


@pytest.mark.parametrize("changed", [{"draft_tokens": 3}, {"drafter": "none"}])
def test_drafts_decide_where_the_rule_lets_them(
    raster: str, draft: str, labels: str, tmp_path: Path, changed: dict[str, Any]
) -> None:
    values = {"drafter": draft, "draft_tokens": 2, "verify": "rejection"}
    if changed.get("drafter") == "none":
        changed = {**changed, "draft_tokens": "auto", "verify": "match"}
    configs = [
        image_config(raster, labels, tmp_path / "out", **(values | more)) for more in ({}, changed)
    ]
    first, second = (fingerprint(job.config, job.plan) for job in map(prepare, configs[:1] * 2))
    assert first == second
    job = prepare(replace(configs[1], output=str(tmp_path / "other")))
    assert fingerprint(job.config, job.plan) != first


def test_options_of_drafts_are_honoured(raster: str, draft: str, labels: str) -> None:
    values = {"draft_tokens": 5, "draft_width": 2, "draft_nodes": 7, "verify": "match"}
    config = image_config(raster, labels, "out", drafter=draft, **values)
    settled = modality_of(config).settled(config)
    engine = settled.engine()
    assert settled.window is None
    assert {name: getattr(engine, name) for name in values} == values
    config = image_config(raster, labels, "out", drafter=draft, verify="block", draft_actors=1)
    assert modality_of(config).settled(config).engine().rule == "block"


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"decoder": "jacobi"}, r"decoder='jacobi' is not accepted: sequential or none with draft"),
        ({"window": 5}, r"window=5 is not accepted: only with decoder"),
        ({"start": "above"}, r"start='above' is not accepted: only with decoder"),
        ({"coupling": "gumbel"}, r"coupling='gumbel' is not accepted: only with decoder"),
        ({"stop": ["a"]}, r"stop=\('a',\) is not accepted"),
    ],
)
def test_what_does_not_go_with_it_is_refused(
    raster: str, draft: str, labels: str, tmp_path: Path, values: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidOption, match=told):
        prepare(image_config(raster, labels, tmp_path / "out", drafter=draft, **values))
    assert not (tmp_path / "out").exists()


def test_a_draft_model_of_other_classes_is_refused_with_both_names(
    raster: str, labels: str, tmp_path: Path
) -> None:
    other = save_draft(tmp_path / "other", num_classes=7)
    with pytest.raises(UnsupportedCheckpoint, match=r"has 7 classes .*, the target 5 c") as found:
        prepare(image_config(raster, labels, tmp_path / "out", drafter=other))
    assert repr(other) in str(found.value)
    assert repr(raster) in str(found.value)


def test_heads_do_not_draft_images(raster: str, labels: str, tmp_path: Path) -> None:
    write_medusa(medusa_head(), tmp_path / "heads")
    heads = str(tmp_path / "heads")
    with pytest.raises(InvalidOption, match=r"drafter='.*heads' is not accepted: .*a draft model"):
        prepare(image_config(raster, labels, tmp_path / "out", drafter=heads))


def test_a_next_scale_target_has_nothing_to_draft(draft: str, labels: str, tmp_path: Path) -> None:
    target = save_scale(tmp_path / "scale")
    with pytest.raises(InvalidOption, match=r"drafter=.* is not accepted: none: this target"):
        prepare(image_config(target, labels, tmp_path / "out", drafter=draft))


@pytest.mark.ray
def test_a_draft_actor_guesses_images(
    raster: str, draft: str, labels: str, tmp_path: Path, ray_cluster: None
) -> None:
    values = {"drafter": draft, "draft_tokens": 3, "draft_actors": 1, "guidance": 2.0}
    config = image_config(raster, labels, tmp_path / "out", **values)
    summary = generate(config)
    plain = image_config(raster, labels, tmp_path / "plain", guidance=2.0)
    run_images(plain)
    assert outcome(config.output) == outcome(plain.output)
    assert (summary.images, summary.rows_failed) == (11, 0)
    assert summary.exactness == "identical"
    assert not summary.drafted or f"of {summary.drafted} drafted tokens" in summary.lines()[2]
