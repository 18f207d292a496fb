"""`arithmetic`: steady by our kernels, fast by whichever arithmetic wins a trial."""

import numpy as np
import pytest
import torch

from models.batch import chain
from models.compute.x86.kernels import compiled
from models.engine import EngineConfig
from models.errors import InvalidOption
from models.targets.decoder import checkpoint, fastest
from models.targets.decoder.fastest import kernels_win
from models.targets.load import load_target
from tests.models.checkpoints import save
from tests.models.decoders import CONFIG

needs_kernels = pytest.mark.skipif(not compiled(), reason="no compiled kernels here")


@needs_kernels
@pytest.mark.parametrize("wins", [True, False])
def test_fast_takes_the_winner(tmp_path, monkeypatch, wins) -> None:
    save(tmp_path, "llama3")
    asked = []
    monkeypatch.setattr(
        checkpoint, "kernels_win", lambda config, dtype, rows: asked.append((dtype, rows)) or wins
    )
    fast = load_target(tmp_path, dtype=torch.float32, arithmetic="fast", rows=5)
    steady = load_target(tmp_path, dtype=torch.float32)
    assert asked == [(torch.float32, 5)]
    assert fast.steady == wins
    assert steady.steady
    batch = chain(0, np.arange(1, 20))
    found, wanted = (t.score(t.new_cache(1, 32), batch).logits for t in (fast, steady))
    torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
    assert torch.equal(found, wanted) == wins


@needs_kernels
def test_the_trial_times_both(monkeypatch) -> None:
    times = iter(range(1000))
    monkeypatch.setattr(fastest.time, "perf_counter", lambda: next(times))
    assert kernels_win(CONFIG, torch.bfloat16, rows=3)  # as fast: ours


def test_where_there_are_no_kernels_torch_wins(monkeypatch) -> None:
    monkeypatch.setattr(fastest, "compiled", lambda: False)
    assert not kernels_win(CONFIG, torch.float32, rows=1)


def test_another_arithmetic_is_refused() -> None:
    with pytest.raises(InvalidOption, match="steady"):
        EngineConfig(target="somewhere", arithmetic="exact")
