"""Image jobs in one process: rows, files, refusals, error rows, resuming; a real tiny target."""

import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

import paceline
from actors.image_tokenizer import png
from cluster.storage import storage
from models.engine import build_loop
from models.errors import InvalidOption, UnsupportedCheckpoint
from models.requests.request import Request
from models.tokenizers.load import load_tokenizer
from pipelines.errors import InvalidInput, OutputRefused
from pipelines.generate.prepare import prepare
from pipelines.inputs.seeds import row_seed
from pipelines.modality.choose import modality_of
from pipelines.modality.images import SHEET
from pipelines.output.contact_sheet import sheet
from pipelines.output.picture_files import FOLDER, picture_file
from tests.pipelines.generate.image_jobs import (
    NUM_CLASSES,
    NUM_TOKENS,
    image_config,
    labels,
    raster,
    run_images,
    save_scale,
    write_rows,
)
from tests.pipelines.generate.inprocess import outcome, output_rows

__all__ = ["labels", "raster"]  # fixtures
VOCABULARY = 32
CLASSIFIER = Path(__file__).parents[3] / "examples" / "models" / "digits-classifier"


def expected_tokens(config: Any, samples: int = 1) -> list[list[int]]:
    """By the bare token loop, sequentially."""
    settled = modality_of(config).settled(config)
    requests = [
        Request(
            id=f"{i}/{sample}",
            prompt=(VOCABULARY + i % NUM_CLASSES,),
            sampling=settled.sampling(),
            seed=row_seed(config.seed, f"row {i}", sample),
        )
        for i in range(11)
        for sample in range(samples)
    ]
    found = {r.id: list(r.tokens) for r in build_loop(settled.engine()).run(requests)}
    return [found[request.id] for request in requests]


def test_rows_hold_tokens_and_their_pictures(raster: str, labels: str, tmp_path: Path) -> None:
    config = image_config(raster, labels, tmp_path / "out", n=2)
    run_images(config)
    rows = outcome(config.output)
    assert [row["tokens"] for row in rows] == expected_tokens(config, samples=2)
    assert [(row["label"], row["sample"]) for row in rows[:4]] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert {row["finish_reason"] for row in rows} == {"length"}
    assert {row["exactness"] for row in rows} == {"identical"}
    drawn = load_tokenizer(raster).decode(torch.tensor([row["tokens"] for row in rows]))
    for row, pixels in zip(rows, drawn, strict=True):
        read = np.asarray(Image.open(io.BytesIO(row["image"])), dtype=np.float32)
        assert np.abs(read / 127.5 - 1 - pixels[0].numpy()).max() < 0.5 / 127.5 + 1e-4


def test_pictures_can_be_files(raster: str, labels: str, tmp_path: Path) -> None:
    inline = image_config(raster, labels, tmp_path / "inline")
    config = image_config(raster, labels, tmp_path / "out", images_as="files")
    run_images(inline)
    run_images(config)
    rows = outcome(config.output)
    assert rows[3]["image"] == f"{FOLDER}/row 3.png"
    read = [(tmp_path / "out" / row["image"]).read_bytes() for row in rows]
    assert read == [row["image"] for row in outcome(inline.output)]
    several = image_config(raster, labels, tmp_path / "several", images_as="files", n=2)
    run_images(several)
    names = [row["image"] for row in outcome(several.output)]
    assert names[:2] == [f"{FOLDER}/row 0-0.png", f"{FOLDER}/row 0-1.png"]
    assert len(set(names)) == 22


def test_pictures_can_be_files_on_s3(raster: str, labels: str, s3_bucket: str) -> None:
    config = image_config(raster, labels, f"{s3_bucket}/out", images_as="files")
    run_images(config)
    for row in outcome(config.output):
        picture = storage.read_bytes(storage.join(config.output, row["image"]))
        assert Image.open(io.BytesIO(picture)).size == (8, 8)


@pytest.mark.parametrize("lost", ["entry", "rows", "picture"])
def test_what_is_lost_is_made_again_alike(
    raster: str, labels: str, tmp_path: Path, lost: str
) -> None:
    config = image_config(raster, labels, tmp_path / "out", images_as="files")
    run_images(config)
    before = everything(tmp_path / "out")
    names = {
        "entry": "_manifest/00001.json",
        "rows": "part-00001.parquet",
        "picture": f"{FOLDER}/row 5.png",
    }
    (tmp_path / "out" / names[lost]).unlink()
    (tmp_path / "out" / FOLDER / ".row 4.png.0.tmp").write_bytes(b"half")
    assert [shard.index for shard in prepare(config).todo] == [1]
    run_images(config)
    assert everything(tmp_path / "out") == before
    assert not prepare(config).todo


def everything(folder: Path) -> dict[str, bytes]:
    """Every file's bytes, but for the seconds that entries count."""
    found = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): re.sub(rb'"seconds": [0-9.e-]+', b"", path.read_bytes())
        for path in found
    }


def test_starting_over_removes_the_pictures(raster: str, labels: str, tmp_path: Path) -> None:
    config = image_config(raster, labels, tmp_path / "out", images_as="files")
    run_images(config)
    with pytest.raises(OutputRefused, match="images_as was 'files', is 'bytes'"):
        prepare(image_config(raster, labels, tmp_path / "out"))
    prepare(image_config(raster, labels, tmp_path / "out", resume=False))
    assert set(everything(tmp_path / "out")) == {"_manifest/job.json"}


def test_the_tokenizer_is_part_of_the_job(raster: str, labels: str, tmp_path: Path) -> None:
    target = tmp_path / "target"
    for path in Path(raster).rglob("*.*"):
        copy = target / path.relative_to(raster)
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes(path.read_bytes())
    config = image_config(str(target), labels, tmp_path / "out")
    run_images(config)
    weights = target / "tokenizer" / "model.safetensors"
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(OutputRefused, match="target was"):
        prepare(config)


def test_bad_rows_are_error_rows(raster: str, tmp_path: Path) -> None:
    bad = [{}, {"label": None}, {"label": 5}, {"label": -1}, {"label": "seven"}]
    bad += [{"label": 1.5}, {"label": True}, {"label": [1]}]
    good = [{"label": 2}, {"label": "2"}, {"label": 2.0}]
    source = write_rows(tmp_path / "in" / "labels.jsonl", [*bad, *good])
    config = image_config(raster, source, tmp_path / "out", images_as="files", shard_rows=100)
    run_images(config)
    rows = output_rows(config.output)
    assert [row["error"] for row in rows] == [
        "field 'label' is missing",
        "field 'label' is missing",
        "field 'label' is class 5, not in 0 to 4",
        "field 'label' is class -1, not in 0 to 4",
        "field 'label' is str 'seven', not the number of a class, 0 to 4",
        "field 'label' is float 1.5, not the number of a class, 0 to 4",
        "field 'label' is bool True, not the number of a class, 0 to 4",
        "field 'label' is list [1], not the number of a class, 0 to 4",
        None,
        None,
        None,
    ]
    assert [row["image"] is None for row in rows] == [True] * 8 + [False] * 3
    assert len(rows[-1]["tokens"]) == NUM_TOKENS


@pytest.mark.parametrize(
    ("values", "told"),
    [
        ({"stop": ["a"]}, r"stop=\('a',\) is not accepted: only \(\) with an image target"),
        ({"stop_token_ids": [3]}, "stop_token_ids=.*all of its tokens"),
        ({"ignore_eos": True}, "ignore_eos=True"),
        ({"min_tokens": 2}, "min_tokens=2"),
        ({"max_tokens": 9}, "max_tokens=9 is not accepted: 16, the tokens of an image"),
        ({"max_length": 16}, "max_length=16 is not accepted: 17 or more"),
        ({"drafter": "lookup"}, "drafter='lookup' is not accepted: .*--decoder"),
        ({"draft_tokens": 3}, "draft_tokens=3"),
        ({"draft_width": 2}, "draft_width=2"),
        ({"draft_nodes": 2}, "draft_nodes=2"),
        ({"verify": "block"}, "verify='block'"),
        ({"presence_penalty": 1.0}, "presence_penalty=1.0"),
        ({"frequency_penalty": 1.0}, "frequency_penalty=1.0"),
        ({"repetition_penalty": 1.1}, "repetition_penalty=1.1 .* repeats tokens by nature"),
        ({"decoder": "parallel"}, "decoder='parallel' is not accepted: one of sequential, jacobi"),
        ({"window": 8}, "window=8 is not accepted: only with decoder jacobi or sjd or mc-sjd"),
        ({"decoder": "sjd", "coupling": "gumbel"}, "coupling='gumbel' .*only with decoder mc-sjd"),
        ({"decoder": "jacobi", "window": 0}, "window=0 is not accepted"),
        ({"decoder": "jacobi", "window": 65}, "65"),
        ({"draft_actors": 1}, "draft_actors=1 is not accepted: 0 with"),
        ({"draft_actors": 1, "decoder": "sjd"}, "draft_actors=1 is not accepted: 0 with decoder="),
        ({"guidance": -1.0}, r"guidance=-1.0 is not accepted: 0 to 100"),
        ({"images_as": "gif"}, "images_as='gif'"),
    ],
)
def test_what_makes_no_sense_is_named(
    raster: str, labels: str, tmp_path: Path, values: dict[str, Any], told: str
) -> None:
    with pytest.raises(InvalidOption, match=told):
        prepare(image_config(raster, labels, tmp_path / "out", **values)).config.engine()
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "values",
    [{"decoder": "sequential"}, {"guidance": 1.0}, {"images_as": "bytes"}, {"decoder": "jacobi"}],
)
def test_texts_have_no_image_options(
    checkpoints: dict[str, str], prompts: str, tmp_path: Path, values: dict[str, Any]
) -> None:
    config = image_config(
        checkpoints["target"], prompts, tmp_path / "out", prompt_field="prompt", **values
    )
    with pytest.raises(InvalidOption, match=r"only with an image target; .* generates text"):
        prepare(config)


def test_defaults_are_those_of_the_target(raster: str, labels: str, tmp_path: Path) -> None:
    config = image_config(raster, labels, tmp_path / "out", decoder="mc-sjd")
    settled = modality_of(config).settled(config)
    assert (settled.max_tokens, settled.window, settled.coupling) == (NUM_TOKENS, 16, "maximal")
    assert (settled.guidance, settled.images_as, settled.start) == (1.0, "bytes", "left")
    assert modality_of(config).settled(settled) == settled


def test_a_next_scale_target_takes_a_pass_for_each_map(labels: str, tmp_path: Path) -> None:
    target = save_scale(tmp_path / "target")
    config = image_config(target, labels, tmp_path / "out", guidance=1.5)
    run_images(config)
    rows = output_rows(config.output)
    assert {len(row["tokens"]) for row in rows} == {1 + 4 + 9 + 16}
    assert {row["accepted_length"] for row in rows} == {30 / 4}
    assert {row["exactness"] for row in rows} == {"identical"}
    assert Image.open(io.BytesIO(rows[0]["image"])).size == (8, 8)
    with pytest.raises(InvalidOption, match="decoder='jacobi' is not accepted: sequential: this"):
        prepare(image_config(target, labels, tmp_path / "other", decoder="jacobi"))


def test_the_checkpoint_may_suggest_a_guidance(labels: str, tmp_path: Path) -> None:
    target = save_scale(tmp_path / "target")
    suggested = tmp_path / "target" / "generation_config.json"
    suggested.write_text('{"guidance_scale": 1.5}')
    config = image_config(target, labels, tmp_path / "out")
    assert modality_of(config).settled(config).engine().guidance == 1.5
    off = image_config(target, labels, tmp_path / "out", guidance=1.0)
    assert modality_of(off).settled(off).engine().guidance == 1.0
    suggested.write_text('{"guidance_scale": "much"}')
    with pytest.raises(UnsupportedCheckpoint, match="guidance_scale is 'much'"):
        modality_of(config)


@pytest.mark.parametrize("decoder", ["jacobi", "sjd", "mc-sjd"])
def test_only_what_changes_rows_is_part_of_the_job(
    raster: str, labels: str, tmp_path: Path, decoder: str
) -> None:
    run_images(image_config(raster, labels, tmp_path / "out"))
    faster = image_config(raster, labels, tmp_path / "out", decoder=decoder)
    if decoder == "jacobi":
        assert not prepare(faster).todo
    else:
        with pytest.raises(OutputRefused, match=f"settings decoder was None, is '{decoder}'"):
            prepare(faster)


def test_two_rows_with_one_id_cannot_be_files(raster: str, tmp_path: Path) -> None:
    rows = [{"id": i % 5, "label": 1} for i in range(6)]
    source = write_rows(tmp_path / "in" / "labels.jsonl", rows)
    prepare(image_config(raster, source, tmp_path / "bytes"))
    config = image_config(raster, source, tmp_path / "out", images_as="files")
    with pytest.raises(InvalidInput, match=r"labels.jsonl:1 and labels.jsonl:6 both have the id 0"):
        prepare(config)


def test_file_names_stay_in_their_folder_and_differ() -> None:
    ids = ["a", "A", "a/b", "a%2Fb", "../x", ".x", "", "ü", "a\nb", "\ud800", "x" * 300, "x" * 301]
    names = [picture_file(row_id, None) for row_id in ids]
    assert len(set(names)) == len(ids)
    for name in names:
        folder, _, file = name.partition("/")
        assert folder == FOLDER
        assert "/" not in file
        assert not file.startswith("..")
        assert len(file.encode()) < 250
    assert picture_file("a", 3) == f"{FOLDER}/a-3.png"


def test_a_contact_sheet_shows_the_first_rows(raster: str, labels: str, tmp_path: Path) -> None:
    config = image_config(raster, labels, tmp_path / "out")
    manifest = run_images(config)
    parts = [entry.file for entry in manifest.entries.values()]
    modality = modality_of(config)
    (page,) = modality.beside(manifest.url, parts).values()
    assert Image.open(io.BytesIO(page)).size == (4 + 10 * 52, 4 + 2 * 52)
    files = image_config(raster, labels, tmp_path / "files", images_as="files")
    manifest = run_images(files)
    assert modality_of(files).beside(manifest.url, parts) == {SHEET: page}
    assert modality.beside(manifest.url, []) == {}


def test_an_image_target_needs_its_tokenizer(raster: str, labels: str, tmp_path: Path) -> None:
    (tmp_path / "bare").mkdir()
    for name in ("config.json", "model.safetensors"):
        (tmp_path / "bare" / name).write_bytes((Path(raster) / name).read_bytes())
    config = image_config(str(tmp_path / "bare"), labels, tmp_path / "out")
    with pytest.raises(UnsupportedCheckpoint, match="'tokenizer' with its image tokenizer"):
        prepare(config)


def test_titles_stand_above_the_lines_of_a_sheet() -> None:
    picture = png(torch.zeros(1, 8, 8))
    bare, titled = (
        Image.open(io.BytesIO(sheet([[picture] * 2, [picture]], titles)))
        for titles in ((), ("a", "b"))
    )
    assert bare.size == (4 + 2 * 52, 4 + 2 * 52)
    assert titled.size == (4 + 2 * 52, 4 + 2 * (52 + 19))


def test_generated_folders_are_evaluated(raster: str, labels: str, tmp_path: Path) -> None:
    run_images(image_config(raster, labels, tmp_path / "bytes", n=8))
    run_images(image_config(raster, labels, tmp_path / "files", n=4, seed=1, images_as="files"))
    report = paceline.evaluate(
        samples=str(tmp_path / "files"),
        reference=str(tmp_path / "bytes"),
        metrics=["fd-pixel", "accuracy", "token-tv"],
        classifier=str(CLASSIFIER),
        bootstrap=40,
        progress=False,
    )
    assert [outcome.name for outcome in report.outcomes] == ["fd-pixel", "accuracy", "token-tv"]
    assert report.rows["samples"] == {"used": 44, "there": 44, "dropped": 0}
    assert not report.beyond
