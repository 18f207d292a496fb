"""The look for pickles finds them; no code of ours reads or writes one."""

import ast
import pickle
from pathlib import Path

import pytest
import torch

from tests.pipelines.distill.pickles import holds_pickle, pickles_in

ROOT = Path(__file__).resolve().parents[3]
READERS = {"pickle", "cPickle", "dill", "cloudpickle", "joblib", "shelve"}
OF_TORCH = {"load", "save"}
OF_DEEPSPEED = {"save_checkpoint", "load_checkpoint"}


def test_pickles_are_found_whatever_their_names(tmp_path):
    (tmp_path / "a.json").write_bytes(pickle.dumps({"a": [1, 2]}))
    torch.save({"w": torch.zeros(2)}, tmp_path / "b.safetensors")
    (tmp_path / "c.bin").write_bytes(b"\x80\x02 no pickle")
    (tmp_path / "d.json").write_text("{}")
    assert [path.name for path in pickles_in(tmp_path)] == ["a.json", "b.safetensors"]
    assert not holds_pickle(tmp_path / "d.json")


def uses(tree: ast.Module) -> set[str]:
    """The names by which a file could read or write pickles."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= READERS & {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found |= READERS & {(node.module or "").split(".")[0]}
        elif isinstance(node, ast.Attribute):
            of_torch = isinstance(node.value, ast.Name) and node.value.id == "torch"
            found |= {node.attr} & OF_DEEPSPEED
            found |= {f"torch.{node.attr}"} if of_torch and node.attr in OF_TORCH else set()
        elif isinstance(node, ast.keyword) and node.arg == "allow_pickle":
            allowed = not isinstance(node.value, ast.Constant) or node.value.value is not False
            found |= {"allow_pickle"} if allowed else set()
    return found


@pytest.mark.parametrize("package", ["models", "actors", "pipelines", "cluster", "examples"])
def test_no_file_reads_or_writes_pickles(package):
    found = {
        str(path.relative_to(ROOT)): names
        for path in (ROOT / package).rglob("*.py")
        if (names := uses(ast.parse(path.read_text(encoding="utf-8"))))
    }
    assert found == {}


def test_the_look_at_code_sees_readers():
    code = "import pickle\nimport torch\ntorch.load('x')\nnp.load('y', allow_pickle=True)\n"
    assert uses(ast.parse(code)) == {"pickle", "torch.load", "allow_pickle"}
