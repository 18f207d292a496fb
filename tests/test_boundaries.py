"""The packages' boundaries, read from the syntax trees: who may import whom, and what files are."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
OURS = {
    "models": set(),
    "cluster": set(),
    "actors": {"models", "cluster"},
    "pipelines": {"models", "cluster", "actors"},
}
FORBIDDEN = {
    "models": {"ray", "pydantic", "fastapi"},
    "cluster": {"torch", "transformers", "deepspeed", "pydantic", "fastapi"},
    "actors": {"pydantic", "fastapi"},
    "pipelines": set(),
}
NEVER = {"pickle", "cloudpickle", "dill", "marshal", "shelve"}
VAGUE = {"utils", "util", "helpers", "helper", "common", "misc"}
FOLDERS = [*OURS, "tests", "examples", "benchmarks"]
FILES = sorted(
    path.relative_to(ROOT)
    for folder in FOLDERS
    for path in (ROOT / folder).rglob("*.py")
)  # fmt: skip


def imported(tree: ast.AST) -> Iterator[str]:
    """The top-level names that a file imports, wherever in it."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield str(node.module).partition(".")[0]


def modules(tree: ast.AST) -> Iterator[str]:
    """The modules that a file may import, wherever in it: a name may be a module of a package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield str(node.module)
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def tree_of(path: Path) -> ast.Module:
    return ast.parse((ROOT / path).read_text(encoding="utf-8"))


@pytest.mark.parametrize("package", OURS)
def test_imports_point_one_way(package: str) -> None:
    allowed = OURS[package] | {package}
    wrong = [
        f"{path} imports {name}"
        for path in FILES
        if path.parts[0] == package
        for name in imported(tree_of(path))
        if (name in OURS and name not in allowed)
        or name in FORBIDDEN[package]
        or name in {"paceline", "tests"}
    ]
    assert not wrong


def test_no_files_import_each_other() -> None:
    """Also not inside functions, for types alone, or by way of others."""
    ours = {".".join(path.with_suffix("").parts): path for path in FILES if path.parts[0] in OURS}
    left = {name: set(modules(tree_of(path))) & set(ours) - {name} for name, path in ours.items()}
    while free := [name for name, found in left.items() if not found & set(left)]:
        for name in free:
            del left[name]
    # What is left is in a circle, or imports one.
    assert not left, {name: sorted(found & set(left)) for name, found in left.items()}


def test_no_package_imports_a_pickle() -> None:
    ours = [path for path in FILES if path.parts[0] in OURS]
    wrong = [f"{p} imports {n}" for p in ours for n in imported(tree_of(p)) if n in NEVER]
    assert not wrong


def test_every_file_says_what_it_knows() -> None:
    said = [path for path in FILES if path.parts[0] != "tests"]
    silent = [str(path) for path in said if not ast.get_docstring(tree_of(path))]
    assert not silent


def test_no_file_has_a_vague_name() -> None:
    parts = {part.removesuffix(".py") for path in FILES for part in path.parts}
    assert not VAGUE & parts


def test_nothing_is_left_open() -> None:
    """No stubs and no notes to come back to."""
    notes = ("TO" + "DO", "FIX" + "ME", "X" * 3)
    wrong = [
        f"{path}: {word}"
        for path in FILES
        for word in (*notes, "NotImplementedError")
        if word in (ROOT / path).read_text(encoding="utf-8")
        and path != Path("tests/test_boundaries.py")
    ]
    assert not wrong


@pytest.mark.parametrize(
    ("module", "absent"),
    [
        ("models.engine", "ray"),
        ("cluster.storage.storage", "torch"),
        ("paceline", "torch"),
        ("pipelines.cli", "torch"),
        ("pipelines.generate.rows.dataset", "torch"),
        ("pipelines.generate.rows.remote_writer", "torch"),
        ("pipelines.generate.job", "torch"),
        ("pipelines.generate.job", "ray.data"),
    ],
)
def test_importing_one_does_not_import_the_other(module: str, absent: str) -> None:
    """Not even by way of a third."""
    program = f"import sys, {module}; sys.exit({absent!r} in sys.modules)"
    subprocess.run([sys.executable, "-c", program], check=True, cwd=ROOT, timeout=120)
