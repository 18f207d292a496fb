"""Options and records of a draft model of an image target: without Ray."""

import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from models.drafting.distil.texts import Text, read_texts
from models.errors import InvalidOption
from pipelines.distill.drafters.config import DrafterOptions
from pipelines.distill.drafters.drafter import check
from pipelines.distill.drafters.images import split_images
from pipelines.distill.drafters.prompts import seeded_order
from pipelines.distill.drafters.texts import write_split
from pipelines.errors import InvalidInput
from pipelines.options import from_mapping
from tests.models.tokenizers.tiny_images import VOCABULARY
from tests.pipelines.generate.image_jobs import (
    NUM_CLASSES,
    NUM_TOKENS,
    raster,
    save_scale,
)

__all__ = ["raster"]  # a fixture


def options(target, tmp_path, **values):
    given = {"target": target, "output": str(tmp_path / "run"), **values}
    return from_mapping(DrafterOptions, given)


def test_no_prompts_are_needed(raster, tmp_path):
    found = check(options(raster, tmp_path)).config
    assert (found.length, found.exam_tokens) == (1 + NUM_TOKENS, NUM_TOKENS)
    assert (found.guidance, found.prompt_field) == (1.0, "label")
    assert found.beside == ("jacobi", "mc-sjd")
    named = check(options(raster, tmp_path, beside=["jacobi"])).config.beside
    assert named == ("jacobi",)
    assert check(options(raster, tmp_path, guidance=2.0, beside=["none"])).config.guidance == 2.0
    run = check(options(raster, tmp_path, guidance=2.0))
    assert run._lessons((), kept=0).about["guidance"] == 2.0
    assert not (tmp_path / "run").exists()


def test_it_is_estimated(raster, tmp_path):
    expected = check(options(raster, tmp_path, guidance=2.0)).estimate()
    assert set(expected.seconds) == {"records", "train", "evaluate"}
    assert all(seconds > 0 for seconds in expected.seconds.values())


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"kind": "medusa"}, "kind='medusa' is not accepted: model with an image target"),
        ({"prompts": "p"}, "prompts='p' is not accepted: none with an image target"),
        ({"length": 9}, "length=9 is not accepted: 17, a whole image, or none"),
        ({"exam_tokens": 9}, "exam_tokens=9 is not accepted: 16, a whole image, or none"),
        ({"exam_tokens": 48}, "exam_tokens=48 is not accepted: 16, a whole image, or none"),
        ({"length": 256}, "length=256 is not accepted: 17, a whole image, or none"),
        ({"guidance": 101.0}, r"guidance=101\.0 is not accepted: 0 to 100"),
    ],
)
def test_what_makes_no_sense_is_named(raster, tmp_path, values, told):
    with pytest.raises(InvalidOption, match=told):
        check(options(raster, tmp_path, **values))


def test_a_next_scale_target_is_refused(tmp_path):
    target = save_scale(tmp_path / "scale")
    with pytest.raises(InvalidOption, match=r"target='.*' is not accepted: a target that"):
        check(options(target, tmp_path))


def test_texts_have_no_guidance(tmp_path):
    (tmp_path / "config.json").write_text('{"model_type": "llama"}')
    config = options(str(tmp_path), tmp_path, guidance=2.0, prompts="p")
    with pytest.raises(InvalidOption, match=r"guidance=2\.0 is not accepted: none: the target"):
        check(config)


def test_rows_become_images_in_three_parts(raster, tmp_path):
    classes = [i % NUM_CLASSES for i in range(12)]
    tokens = [[i] * NUM_TOKENS for i in range(12)]
    table = pa.table({"label": classes, "tokens": tokens})
    pq.write_table(table, tmp_path / "rows.parquet")
    config = check(options(raster, tmp_path)).config  # rows that it made itself
    told = write_split(config, [str(tmp_path / "rows.parquet")], tmp_path / "texts")
    assert (told["texts"], told["exam"], told["held_out"]) == (8, 2, 2)
    assert told["tokens"] == 8 * NUM_TOKENS
    sizes = {"length": 1 + NUM_TOKENS, "num_ids": VOCABULARY + NUM_CLASSES}
    kept, held = (
        read_texts([str(tmp_path / "texts" / name)], **sizes)
        for name in ("texts.parquet", "held-out.parquet")
    )
    expected = [
        Text(tokens=(VOCABULARY + c, *t), num_prompt=1)
        for c, t in zip(classes, tokens, strict=True)
    ]
    assert [*kept, *held] == expected
    given = check(options(raster, tmp_path, data=str(tmp_path / "rows.parquet"))).config
    told = write_split(given, [str(tmp_path / "rows.parquet")], tmp_path / "given")
    assert (told["texts"], told["exam"], told["held_out"]) == (8, 2, 2)


def test_given_images_may_be_sorted_by_class():
    images = [Text(tokens=(VOCABULARY + i // 20, i), num_prompt=1) for i in range(100)]
    rest, exam, held = split_images(images, kept=20, order=seeded_order(100, seed=0))
    assert sorted([*rest, *exam, *held], key=lambda text: text.tokens[1]) == images
    assert [len(part) for part in (rest, exam, held)] == [60, 20, 20]
    for part in (exam, held):
        assert {text.tokens[0] - VOCABULARY for text in part} == set(range(5))


def test_too_few_images_are_refused():
    with pytest.raises(InvalidInput, match="4 images; 5 or more"):
        split_images([Text(tokens=(9, 1), num_prompt=1)] * 4, kept=3, order=range(4))


def test_the_target_may_suggest_a_guidance(raster, tmp_path):
    target = tmp_path / "target"
    target.mkdir()
    for name in ("config.json", "model.safetensors", "tokenizer"):
        (target / name).symlink_to(f"{raster}/{name}")
    (target / "generation_config.json").write_text(json.dumps({"guidance_scale": 1.5}))
    assert check(options(str(target), tmp_path)).config.guidance == 1.5
