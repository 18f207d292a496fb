"""The distribution: its names are ours alone, and the wheel works from another folder."""

import shutil
import subprocess
import sys
import venv
import zipfile
from importlib.metadata import packages_distributions
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("models", "actors", "pipelines", "cluster")


@pytest.mark.parametrize("name", [*PACKAGES, "paceline"])
def test_the_name_is_of_our_distribution_alone(name: str) -> None:
    """A second wheel that ships one of these names would overwrite it without a word."""
    assert set(packages_distributions()[name]) == {"paceline"}


def run(*command: object, cwd: Path) -> str:
    done = subprocess.run(
        [str(part) for part in command],
        cwd=cwd,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Built from a copy, so that the build leaves nothing behind."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for name in PACKAGES:
        shutil.copytree(ROOT / name, source / name, ignore=ignored)
    for name in ("pyproject.toml", "setup.py", "README.md", "paceline.py"):
        shutil.copy(ROOT / name, source)
    pip = (sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation")
    run(*pip, "--wheel-dir", out, source, cwd=out)
    return next(out.glob("paceline-*.whl"))


@pytest.fixture(scope="module")
def installed(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A fresh environment with the wheel in it, and our dependencies without our sources."""
    folder = tmp_path_factory.mktemp("fresh")
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    pip = (sys.executable, "-m", "pip", "--python", python, "install", "--quiet", "--no-deps")
    run(*pip, wheel, cwd=folder)
    site = Path(
        run(python, "-c", "import site; print(site.getsitepackages()[0])", cwd=folder).strip()
    )
    dependencies = Path(pytest.__file__).parent.parent
    # Lines of a .pth file are searched, but the .pth files found there are not obeyed: an editable
    # install's sources stay out of sight.
    (site / "dependencies.pth").write_text(f"{dependencies}\n", encoding="utf-8")
    return folder / "bin"


@pytest.mark.slow
def test_the_wheel_holds_the_packages_and_nothing_else(wheel: Path) -> None:
    names = zipfile.ZipFile(wheel).namelist()
    sources = {
        str(path.relative_to(ROOT)) for p in PACKAGES for path in (ROOT / p).rglob("*.py")
    } | {"paceline.py"}
    assert {n for n in names if n.endswith(".py")} == sources
    assert {f"{p}/py.typed" for p in PACKAGES} <= set(names)
    kernels = [
        n for n in names if n.startswith("models/compute/x86/_kernels.") and n.endswith(".so")
    ]
    assert len(kernels) == (find_spec("models.compute.x86._kernels") is not None)
    tops = {n.partition("/")[0] for n in names}
    assert {t for t in tops if not t.endswith(".dist-info")} == {*PACKAGES, "paceline.py"}


@pytest.mark.slow
def test_the_command_runs_from_another_folder(installed: Path, tmp_path: Path) -> None:
    assert "generate" in run(installed / "paceline", "--help", cwd=tmp_path)
    told = run(installed / "paceline", "generate", "--help", cwd=tmp_path)
    assert "--target" in told
    assert "example" in told


@pytest.mark.slow
def test_the_modules_are_the_wheel_s(installed: Path, tmp_path: Path) -> None:
    for name in (*PACKAGES, "paceline"):
        program = f"import {name}; print({name}.__file__)"
        found = run(installed / "python", "-c", program, cwd=tmp_path)
        assert Path(found.strip()).is_relative_to(installed.parent)
