"""What --memory accepts, and the entries that it pays for."""

import pytest

from models.errors import InvalidOption
from models.memory import budget
from models.memory.blocks import BLOCK
from models.memory.budget import budget_bytes, free_bytes, parse_memory, pool_entries


@pytest.mark.parametrize(
    ("memory", "parsed"),
    [
        (None, 0.5),
        ("8GiB", 8 * 2**30),
        ("1.5 GiB", 3 * 2**29),
        ("500MB", 500 * 10**6),
        ("64B", 64),
        ("0.25", 0.25),
        (0.25, 0.25),
        (1, 1.0),
        ("1", 1.0),
    ],
)
def test_amounts_and_shares(memory, parsed):
    assert parse_memory(memory) == parsed
    assert type(parse_memory(memory)) is type(parsed)


@pytest.mark.parametrize(
    "memory", ["", "8", 8, 0, "0", "1.5", "-1GiB", "0GiB", "8 GB/s", "nan", "GiB"]
)
def test_anything_else_is_refused(memory):
    with pytest.raises(InvalidOption, match=r"memory=.*such as 8GiB or 500MB, or a share"):
        parse_memory(memory)


def test_a_share_is_of_what_is_free(monkeypatch, tmp_path):
    assert 2**20 < free_bytes("cpu") < 2**50
    (tmp_path / "memory.max").write_text("5000\n")
    (tmp_path / "memory.current").write_text("1000\n")
    monkeypatch.setattr(budget, "GROUPS", tmp_path)
    assert free_bytes("cpu") == 4000  # the container's limit is below what the machine has
    assert budget_bytes(0.25, "cpu") == 1000
    assert budget_bytes("9kB".upper(), "cpu") == 9000
    (tmp_path / "memory.max").write_text("max\n")
    assert free_bytes("cpu") > 4000


def test_a_pool_is_no_larger_than_its_rows_need():
    assert pool_entries(10**9, 10, rows=3, longest=BLOCK + 1) == 3 * 2 * BLOCK
    assert pool_entries(10 * (2 * BLOCK + 1), 10, rows=3, longest=BLOCK + 1) == 2 * BLOCK
    assert pool_entries(5, 10, rows=3, longest=1) == 0
    assert pool_entries(5, 0, rows=3, longest=1) == 3 * BLOCK  # a model that keeps none
