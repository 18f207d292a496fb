"""Evaluations end to end: sets of one law, biased sets, every kind of file, every mistake."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from models.metrics.catalogue import METRICS
from pipelines.cli import main
from pipelines.evaluate.config import EvaluateConfig
from pipelines.evaluate.find import open_source
from pipelines.evaluate.report import Report
from tests.pipelines.generate.stamps import png, run, stamps, write_pictures, write_rows

Run = Callable[..., Report]
CHEAP = ["fd-pixel", "token-tv"]


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Files of one law, with other seeds; `classifier`: a folder that holds one of them."""
    root = tmp_path_factory.mktemp("sets")
    names = {"same": 200, "teacher": 500, "second": 240, "training": 300}
    found = {
        name: write_rows(root / f"{name}.parquet", stamps(seed, count))
        for seed, (name, count) in enumerate(names.items())
    }
    options = {"samples": found["same"], "reference": found["teacher"]}
    run(options | {"classifier": found["training"], "output": str(root / "out"), "bootstrap": 40})
    return found | {"classifier": str(root / "out" / "classifier")}


@pytest.fixture
def judge(sets: dict[str, str]) -> Run:
    """Evaluates samples against the teacher's."""

    def judged(samples: str, **options: Any) -> Report:
        known = {"reference": sets["teacher"], "classifier": sets["classifier"]}
        return run({"samples": samples, **known, **options})

    return judged


def test_the_teachers_own_law_stays_within_the_floor(sets: dict[str, str], judge: Run) -> None:
    report = judge(sets["same"], floor=sets["second"])
    assert report.beyond == []
    assert {outcome.name for outcome in report.outcomes} == set(METRICS) - {"nll", "nll-excess"}
    assert report.skipped == dict.fromkeys(("nll", "nll-excess"), "no --teacher is given")
    used = {name: rows["used"] for name, rows in report.rows.items()}
    assert used == {"samples": 200, "floor": 200, "reference": 500}
    assert "verdict     within the floor" in report.lines()[-1]


def test_without_a_floor_part_of_the_reference_is_one(sets: dict[str, str], judge: Run) -> None:
    report = judge(sets["same"], metrics=CHEAP)
    used = {name: rows["used"] for name, rows in report.rows.items()}
    assert used == {"samples": 200, "floor": 200, "reference": 300}
    assert report.beyond == []
    report = judge(sets["same"], metrics=CHEAP, max_rows=60)
    assert {rows["used"] for rows in report.rows.values()} == {60}


def test_noise_is_caught(judge: Run, tmp_path: Path) -> None:
    report = judge(write_rows(tmp_path / "a.parquet", stamps(9, 200, noise=0.2)))
    assert {"fd-clf", "fd-pixel", "token-tv"} <= set(report.beyond)
    assert "beyond the floor in fd-clf" in report.lines()[-1]


def test_too_little_variety_is_caught(judge: Run, tmp_path: Path) -> None:
    report = judge(write_rows(tmp_path / "a.parquet", stamps(9, 200, noise=0.11)))
    values = {outcome.name: outcome for outcome in report.outcomes}
    assert {"recall", "token-entropy"} <= set(report.beyond)
    assert values["recall"].value < values["recall"].floor
    assert values["token-entropy"].value < values["token-entropy"].floor


def test_a_missing_class_is_caught(judge: Run, tmp_path: Path) -> None:
    report = judge(write_rows(tmp_path / "a.parquet", stamps(9, 200, classes=3)))
    assert {"fd-clf", "label-entropy", "recall"} <= set(report.beyond)


def test_wrong_labels_are_caught_by_accuracy_alone(judge: Run, tmp_path: Path) -> None:
    found = stamps(9, 200)
    found["labels"][:16] = found["labels"][:16][::-1].copy()
    report = judge(write_rows(tmp_path / "a.parquet", found))
    assert report.beyond == ["accuracy"]


def test_shuffled_places_are_caught_by_tokens(judge: Run, tmp_path: Path) -> None:
    """The right tokens in the wrong order: another raster, say."""
    found = stamps(9, 200)
    found["tokens"] = found["tokens"].reshape(-1, 4, 4).transpose(0, 2, 1).reshape(-1, 16)
    report = judge(write_rows(tmp_path / "a.parquet", found))
    assert set(report.beyond) == {"token-tv", "bigram-tv"}


def test_the_same_seed_gives_the_same_report(sets: dict[str, str], judge: Run) -> None:
    first = judge(sets["same"], metrics=CHEAP)
    assert judge(sets["same"], metrics=CHEAP) == first
    assert judge(sets["same"], metrics=CHEAP, seed=1).outcomes != first.outcomes


def test_every_kind_of_file_holds_the_same_images(tmp_path: Path, sets: dict[str, str]) -> None:
    found = stamps(0, 40)
    for i, image in enumerate(found["images"]):
        (tmp_path / "files" / "images").mkdir(parents=True, exist_ok=True)
        (tmp_path / "files" / "images" / f"{i}.png").write_bytes(png(image))
    paths = [f"images/{i}.png" for i in range(40)]
    nested = [{"bytes": png(image), "path": None} for image in found["images"]]
    np.savez(tmp_path / "a.npz", **found)
    np.save(tmp_path / "a.npy", found["images"] / 255)
    urls = {
        "bytes": write_rows(tmp_path / "bytes.parquet", found),
        "files": str(Path(write_rows(tmp_path / "files" / "a.parquet", found, image=paths)).parent),
        "nested": write_rows(tmp_path / "nested.parquet", found, image=nested),
        "npz": str(tmp_path / "a.npz"),
        "npy": str(tmp_path / "a.npy"),
        "pictures": write_pictures(tmp_path / "pictures", found),
    }
    config = EvaluateConfig(samples="a", reference="b")
    for kind, url in urls.items():
        source = open_source(url, config)
        rows = source.take(np.arange(40))
        order = (
            np.argsort(np.arange(40) % 4, kind="stable") if kind == "pictures" else np.arange(40)
        )
        assert source.num_rows == 40
        assert rows.images is not None
        np.testing.assert_allclose(rows.images[:, 0], found["images"][order] / 255, atol=1e-6)
        if kind != "npy":
            assert rows.labels == tuple(str(label) for label in found["labels"][order])
        if kind not in ("npy", "pictures"):
            assert rows.tokens is not None
            np.testing.assert_array_equal(np.stack(rows.tokens), found["tokens"])


def test_rows_with_errors_are_left_out_and_counted(judge: Run, tmp_path: Path) -> None:
    found = stamps(0, 100)
    wrong: dict[str, list[Any]] = {
        "image": [png(image) for image in found["images"]],
        "error": [None] * 100,
    }
    for i in (3, 50):
        wrong["image"][i], wrong["error"][i] = None, "too long"
    report = judge(write_rows(tmp_path / "a.parquet", found, **wrong), metrics=CHEAP)
    assert report.rows["samples"] == {"used": 98, "there": 98, "dropped": 2}
    assert any("98 of 98 samples (2 more were errors)" in line for line in report.lines())


def test_what_rows_lack_is_left_out_and_told(judge: Run, tmp_path: Path) -> None:
    url = write_rows(tmp_path / "a.parquet", stamps(0, 60), image=None, label=None)
    report = judge(url, bootstrap=40)
    assert [outcome.name for outcome in report.outcomes] == [
        "token-tv",
        "bigram-tv",
        "token-entropy",
    ]
    assert "has no images (column 'image')" in report.skipped["fd-clf"]
    assert report.classifier is None
    told = "\n".join(report.lines())
    assert (
        "left out    fd-clf, fd-pixel, kd-clf, precision, recall, accuracy, label-entropy:" in told
    )


def test_files_that_are_written(sets: dict[str, str], judge: Run, tmp_path: Path) -> None:
    output = tmp_path / "deep" / "out"
    report = judge(sets["same"], metrics=["accuracy", "token-tv"], output=str(output))
    told = json.loads((output / "evaluation.json").read_text())
    assert list(told["figures"]) == ["accuracy", "token-tv"]
    assert told["figures"]["accuracy"]["value"] == report.outcomes[0].value
    assert told["figures"]["accuracy"]["beyond_floor"] is False
    assert told["config"]["metrics"] == ["accuracy", "token-tv"]
    assert told["classifier"]["test_accuracy"] > 0.9
    kept = json.loads((output / "classifier" / "config.json").read_text())
    assert told["classifier"]["weights_sha256"] == kept["weights_sha256"]
    assert (output / "classifier" / "model.safetensors").stat().st_size < 300_000
    for name in ("evaluation.png", "samples.png"):
        assert (output / name).read_bytes().startswith(b"\x89PNG")


def test_digits_are_learnt_once_and_kept(
    sets: dict[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--samples", sets["same"], "--reference", sets["teacher"]]
    command += ["--metrics", "label-entropy", "--bootstrap", "40", "--output", str(tmp_path)]
    assert main([*command, "--no-progress"]) == 0
    assert "classifier  of scikit-learn's handwritten digits, accuracy 9" in capsys.readouterr().out
    config = tmp_path / "classifier" / "config.json"
    facts = json.loads(config.read_text())
    assert facts["test_accuracy"] > 0.97
    assert len(facts["weights_sha256"]) == 64
    config.write_text(json.dumps(facts | {"test_accuracy": 0.5}))
    assert main([*command, "--no-progress"]) == 0
    assert "accuracy 50.0% on 355 images" in capsys.readouterr().out


def test_the_command_prints_a_table(
    sets: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--samples", sets["same"], "--reference", sets["teacher"]]
    assert main([*command, "--metrics", "token-tv", "fd-pixel", "--bootstrap", "40"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("|")[1].strip() for line in lines[:4]][0::2] == ["figure", "fd-pixel"]
    assert lines[-1].startswith("verdict     within the floor")


def test_help_teaches_with_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["evaluate", "--help"])
    told = capsys.readouterr().out
    assert "example: does a faster way of decoding give the same images?" in told
    assert all(name in told for name in METRICS)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--metrics", "fid"], "metrics='fid' is not accepted: known is fd-"),
        (["--metrics", "nll"], "nll cannot be measured: no --teacher is given"),
        (["--metrics", "accuracy", "--label-field", "no"], "has no labels (column 'no')"),
        (["--neighbours", "0"], "neighbours=0 is not accepted: 1 to 9"),
        (["--bootstrap", "3"], "bootstrap=3 is not accepted: 40 to 10000"),
        (["--guidance", "2"], "guidance=2.0 is not accepted: a teacher with it"),
        (["--samples", "nowhere"], "'nowhere' is no file, and no folder with files: accepted are"),
        (["--samples", "{dir}/few.parquet"], "few.parquet' has 12 rows: 20 or more are needed"),
        (
            ["--reference", "{dir}/few.parquet"],
            "has 12 rows: 40 or more are needed: half is the floor",
        ),
        (["--samples", "{dir}/text.csv"], "holds 'text.csv': accepted are Parquet rows"),
        (["--samples", "{dir}/broken.parquet"], "broken.parquet is not readable Parquet"),
        (["--samples", "{dir}/null.parquet"], "null.parquet:4: field 'image' is missing, and"),
        (["--samples", "{dir}/nopng.parquet"], "nopng.parquet:1 is no picture that can be read"),
        (["--samples", "{dir}/sizes.parquet"], "sizes.parquet:2 has 4 x 4 pixels, sizes.parquet:1"),
        (["--samples", "{dir}/number.parquet"], "number.parquet:1: 'image' is int, no picture's"),
        (["--samples", "{dir}/file.parquet"], "no.png: it does not exist"),
        (["--samples", "{dir}/words.parquet"], "column 'tokens' is list<"),
        (["--samples", "{dir}/odd.npz"], "arrays named images, labels, tokens are needed"),
        (["--samples", "{dir}/shape.npy"], "has the shape [30, 2, 2, 2]: [N, H, W] or"),
        (["--samples", "{dir}/range.npy"], "that are no pixels: bytes, or numbers from 0 to 1"),
        (["--samples", "{dir}/pickle.npy"], "holds no arrays that can be read"),
        (["--classifier", "nowhere"], "'nowhere' is no file"),
        (["--classifier", "{dir}/few.parquet"], "20 labelled images or more, of two classes"),
        (["--output", "{teacher}/out"], "which is input: give another"),
        (["--output", "{dir}/text.csv/out"], "/text.csv/out/evaluation.json: Not a directory"),
        (["--sample", "x"], "there is no option --sample; did you mean --samples?"),
    ],
)
def test_mistakes_are_named(
    options: list[str],
    message: str,
    sets: dict[str, str],
    mistakes: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given = ["--samples", sets["same"], "--reference", sets["teacher"], "--bootstrap", "40"]
    words = [word.format(dir=mistakes, teacher=sets["teacher"]) for word in options]
    try:
        code = main(["evaluate", *given, *words, "--no-progress"])
    except SystemExit as stopped:
        code = int(str(stopped.code))
    assert code == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1


@pytest.fixture(scope="module")
def mistakes(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of files that cannot be used."""
    root = tmp_path_factory.mktemp("mistakes")
    found = stamps(0, 30)
    pictures = [png(image) for image in found["images"]]
    write_rows(root / "few.parquet", stamps(0, 12))
    write_rows(root / "null.parquet", found, image=[*pictures[:3], None, *pictures[4:]])
    write_rows(root / "nopng.parquet", found, image=[b"broken", *pictures[1:]])
    small = png(found["images"][0, :4, :4])
    write_rows(root / "sizes.parquet", found, image=[pictures[0], small, *pictures[2:]])
    write_rows(root / "number.parquet", found, image=list(range(30)))
    write_rows(root / "file.parquet", found, image=["no.png"] * 30)
    write_rows(root / "words.parquet", found, tokens=[["a", "b"]] * 30)
    (root / "text.csv").write_text("a,b\n")
    (root / "broken.parquet").write_bytes(b"broken")
    np.savez(root / "odd.npz", pixels=found["images"])
    np.save(root / "shape.npy", np.zeros((30, 2, 2, 2)))
    np.save(root / "range.npy", np.full((30, 2, 2), 7.0))
    np.save(root / "pickle.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    return root
