"""A drafter takes over where it is better by more than the noise, and by enough."""

import pytest

from pipelines.serve.learning.decision import decide

BEFORE = [2.0, 3.0, 2.5, 2.0, 4.0, 3.5, 2.0, 3.0]


@pytest.mark.parametrize(
    ("gains", "better"),
    [
        ([0.2] * 8, True),
        ([0.0] * 8, False),
        ([-0.2] * 8, False),
        ([0.02] * 8, False),  # without noise, but not worth a change
        ([1.6] + [0.0] * 7, False),  # the same mean as the first, by one request
        ([0.3, 0.1] * 4, True),
    ],
)
def test_gains_are_judged_request_by_request(gains: list[float], better: bool) -> None:
    found = decide(BEFORE, [a + b for a, b in zip(BEFORE, gains, strict=True)])
    assert found.is_better is better
    assert found.new - found.present == pytest.approx(sum(gains) / 8)
    assert found.held_out == 8
