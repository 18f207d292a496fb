"""What has its name on the disk has its content there, too."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from cluster.storage import storage


@pytest.fixture
def steps(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    """What is synced and renamed, in its order; folders end with a slash."""
    found: list[tuple[str, str]] = []

    def synced(descriptor: int) -> None:
        name = str(Path(f"/proc/self/fd/{descriptor}").readlink())
        found.append(("sync", name + "/" if Path(name).is_dir() else name))

    def named(step: Callable[..., Any]) -> Callable[..., Any]:
        def run(source: Any, target: Any) -> Any:
            found.append(("name", str(target)))
            return step(source, target)

        return run

    monkeypatch.setattr(os, "fsync", synced)
    monkeypatch.setattr(Path, "replace", named(Path.replace))
    monkeypatch.setattr(os, "link", named(os.link))
    return found


@pytest.mark.parametrize("write", [storage.publish, storage.create])
def test_content_then_name_then_folder(
    steps: list[tuple[str, str]], tmp_path: Path, write: Callable[[str, bytes], object]
) -> None:
    target = tmp_path / "file"
    write(str(target), b"content")
    (first, temporary), *rest = steps
    assert first == "sync"
    assert temporary.startswith(f"{tmp_path}/.file.")
    assert rest == [("name", str(target)), ("sync", f"{tmp_path}/")]
    assert target.read_bytes() == b"content"


def test_new_folders_are_synced_in_those_above(
    steps: list[tuple[str, str]], tmp_path: Path
) -> None:
    storage.publish(str(tmp_path / "a" / "b" / "file"), b"")
    assert steps[:2] == [("sync", f"{tmp_path}/"), ("sync", f"{tmp_path}/a/")]
