"""How far a drafter's values are trusted: fitted to the target's choices, stored, and used."""

import json

import pytest
import torch

from models.drafting.distil.calibration import best_sharpness
from models.drafting.draft import Shape
from models.drafting.heads.heads_drafter import HeadsDrafter
from models.drafting.heads.medusa_model import MedusaModel
from models.drafting.reading import Reading
from models.drafting.sharpness import Sharpness, read_sharpness
from models.drafting.tree import SHARPNESS
from models.errors import UnsupportedCheckpoint
from tests.models.drafting.heads.random_heads import medusa_head
from tests.models.drafting.heads.test_eagle import context_of, grown


def laws(noise, places=400, size=30):
    """Log-laws of a target, and of a drafter that is wrong by `noise`."""
    generator = torch.Generator().manual_seed(0)
    values = 2 * torch.randn(places, size, generator=generator)
    off = noise * torch.randn(places, size, generator=generator)
    return values.log_softmax(-1), (values + off).log_softmax(-1)


def fitted(noise):
    return best_sharpness(*laws(noise), torch.Generator().manual_seed(1))


def test_a_better_drafter_is_trusted_more():
    found = [fitted(noise) for noise in (0.2, 1.0, 3.0)]
    assert found == sorted(found, reverse=True)
    assert found[0] > SHARPNESS > found[-1]


def test_values_by_level_are_read(tmp_path):
    assert read_sharpness(tmp_path)[3] == SHARPNESS
    (tmp_path / "drafter.json").write_text('{"depth": 2}')
    assert read_sharpness(tmp_path)[0] == SHARPNESS
    (tmp_path / "drafter.json").write_text('{"sharpness": [1.5, 0.75]}')
    found = read_sharpness(tmp_path)
    assert [found[level] for level in range(4)] == [1.5, 0.75, 0.75, 0.75]


@pytest.mark.parametrize("told", [1.5, [0.0], ["a"], [True]])
def test_what_is_no_list_of_positive_numbers_is_refused(tmp_path, told):
    (tmp_path / "drafter.json").write_text(json.dumps({"sharpness": told}))
    with pytest.raises(UnsupportedCheckpoint, match="a list of numbers above 0"):
        read_sharpness(tmp_path)


def test_levels_that_are_trusted_less_get_fewer_nodes():
    """With little trust in the first level, a tree of few nodes covers more of its tokens."""
    drafts = []
    for sharpness in (Sharpness(8.0), Sharpness(0.01, 8.0)):
        model = MedusaModel(medusa_head(), dtype=torch.float32, device=torch.device("cpu"))
        drafter, sequence = HeadsDrafter(model, sharpness=sharpness), grown([1, 2, 3])
        states = torch.randn(2, 1, 32, generator=torch.Generator().manual_seed(2))
        drafter.read([Reading(sequence=sequence, first=0, states=states, top=None)])
        shape = Shape(depth=3, width=4, nodes=5)
        drafts += drafter.propose([sequence], shape, context_of([sequence]))
    first_levels = [int((draft.parents < 0).sum()) for draft in drafts]
    assert first_levels[0] < first_levels[1]
