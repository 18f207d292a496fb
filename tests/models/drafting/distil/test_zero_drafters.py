"""Drafters under DeepSpeed: the losses of one plain worker."""

import numpy as np
import pytest

from models.drafting.distil.texts import Text, write_texts
from models.training.engines.worker import Worker
from tests.models.drafting.distil.zero_drafters import KINDS, STEPS, run, training
from tests.models.drafting.heads.random_heads import write_target

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]


def test_weights_that_are_spread_change_no_loss(tmp_path, monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "0")
    target, file = str(write_target(tmp_path / "target")), str(tmp_path / "texts.parquet")
    rng = np.random.default_rng(0)
    texts = [Text(tokens=tuple(rng.integers(1, 50, 20).tolist()), num_prompt=3) for _ in range(14)]
    write_texts(tmp_path / "texts.parquet", texts)
    run(tmp_path, target, file)
    for kind in KINDS:
        made = training(kind, target, file, Worker())
        losses = [made.step()["loss"] for _ in range(STEPS)]
        found = [float(line) for line in (tmp_path / f"{kind}.txt").read_text().splitlines()]
        assert found == pytest.approx(losses, rel=1e-4), kind
