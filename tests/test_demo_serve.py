"""The demo of the server takes the real model where somebody has made it."""

from pathlib import Path

from examples.demo_serve import MODELS, REAL, chosen


def test_the_real_model_goes_before_the_demo_model(tmp_path: Path) -> None:
    assert chosen(tmp_path) == ("text-target", str(tmp_path / "text-draft"))
    (tmp_path / REAL).mkdir()
    assert chosen(tmp_path)[0] == "text-target"  # a conversion that was cut
    (tmp_path / REAL / "config.json").touch()
    assert chosen(tmp_path) == (REAL, "lookup")
    assert (MODELS / "text-draft").is_dir()
