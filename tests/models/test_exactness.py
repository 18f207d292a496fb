"""The label of a result follows from the rule, the schedule and the arithmetic."""

import pytest
import torch

from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import Shape
from models.drafting.sizing.sizing import FixedSize
from models.exactness import LEVELS, exactness, weakest
from models.loop.token_loop import TokenLoop
from models.requests.request import Request, Sampling
from models.schedules.schedule import RASTER
from models.targets.decoder.decoder import Decoder
from tests.models.decoders import CONFIG


class Confidence:
    """A schedule that looks at sampled values."""

    name, in_order, sample_dependent, num_positions = "confidence", False, True, None

    def next(self, canvas):
        raise AssertionError(canvas)


@pytest.mark.parametrize(
    ("rule", "schedule", "steady", "label"),
    [
        ("match", RASTER, True, "identical"),
        ("match", RASTER, False, "identical up to rounding"),
        ("rejection", RASTER, True, "distribution"),
        ("block", RASTER, False, "distribution"),
        ("match", Confidence(), True, "approximate"),
        ("match", Confidence(), False, "approximate"),
    ],
)
def test_the_label(rule, schedule, steady, label) -> None:
    assert exactness(rule, schedule, steady=steady) == label


def test_the_weakest_label_counts() -> None:
    assert weakest([]) == "identical"
    assert weakest(reversed(LEVELS)) == weakest(LEVELS) == "approximate"
    assert weakest(["identical", "identical up to rounding"]) == "identical up to rounding"
    assert weakest(["distribution", "identical up to rounding"]) == "distribution"


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_loop_labels_results_by_the_arithmetic_that_ran(dtype) -> None:
    target = Decoder.from_config(CONFIG, dtype=dtype)
    sizes = FixedSize(Shape(depth=3))
    loop = TokenLoop(target, LookupDrafter(), sizes, rows=1, max_length=20, scratch=4)
    (result,) = loop.run([Request(id="a", prompt=(1, 2, 3), sampling=Sampling(max_tokens=8))])
    wanted = "identical" if target.steady else "identical up to rounding"
    assert result.exactness == wanted
    told = loop.describe()
    assert told["arithmetic"] == ("steady" if target.steady else "torch")
    assert told["exactness"] == wanted
    assert str(told["device"]).startswith("cpu (")
