"""Guidance: pairs of rows blended into one target that drafts, trees and batches run through."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.drafting.draft import NOTHING, Shape
from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.sizing.sizing import FixedSize
from models.errors import InvalidOption
from models.loop.token_loop import TokenLoop
from models.memory.blocks import BLOCK
from models.requests.request import Request, Sampling
from models.targets.decoder.config import GridInput
from models.targets.decoder.decoder import Decoder
from models.targets.guided import GuidedTarget, guide
from tests.models.decoders import CONFIG
from tests.models.tiny import TableTarget

VOCAB, NULL = 5, 7  # conditions are tokens 5 and 6


class ConditionedTable(TableTarget):
    """A table target whose prompts are conditions: ids beyond its vocabulary."""

    def __init__(self, seed: int) -> None:
        super().__init__(NULL + 1, seed)
        self.vocab_size = VOCAB  # input_size stays: the conditions count
        self.table = self.table[..., :VOCAB].contiguous()


TARGET = ConditionedTable(3)


def run(target, drafter, shape, rows):
    loop = TokenLoop(target, drafter, FixedSize(shape), rows=rows, max_length=12, scratch=20)
    requests = [
        Request(id=str(i), prompt=(5 + i % 2,), sampling=Sampling(max_tokens=8), seed=i)
        for i in range(12)
    ]
    return {r.id: r.tokens for r in loop.run(requests)}


def by_hand(scale):
    """Sequential decoding of the blended tables, one request at a time."""
    from models.sampling.noise import Purpose, gumbel, row_keys

    out = {}
    for i in range(12):
        with_, without = [5 + i % 2], [NULL]
        for position in range(1, 9):
            history = [([0, *h])[-2:] for h in (with_, without)]
            c, u = (TARGET.table[a, b] for a, b in history)
            key = row_keys(np.array([i]), np.array([position]), Purpose.TOKEN)
            noise = gumbel(key, VOCAB, torch.device("cpu"))[0]
            token = int((torch.lerp(u, c, scale) + noise).argmax())
            with_.append(token)
            without.append(token)
        out[str(i)] = tuple(with_[1:])
    return out


@pytest.mark.parametrize("scale", [1.0, 2.5])
@pytest.mark.parametrize("rows", [1, 4])
def test_guided_decoding_blends_the_logits_of_a_pair(scale, rows):
    guided = GuidedTarget(TARGET, scale=scale, null_token=NULL)
    assert run(guided, None, NOTHING, rows) == by_hand(scale)


def test_drafts_change_nothing_under_guidance():
    guided = GuidedTarget(TARGET, scale=2.0, null_token=NULL)
    plain = run(guided, None, NOTHING, 4)
    for shape in (Shape(depth=3), Shape(depth=3, width=2)):
        drafter = ModelDrafter(TARGET, rows=4, capacity=40)
        assert run(guided, drafter, shape, 4) == plain


def test_entries_that_are_no_whole_blocks_hold_both_halves_of_a_request():
    config = replace(CONFIG, grid=GridInput(num_classes=3))
    guided = guide(Decoder.from_config(config, 1), 2.0)
    for entries in (1, BLOCK - 1, BLOCK, BLOCK + 6, 2 * BLOCK):  # twice BLOCK + 6: three blocks
        assert guided.new_cache(1, entries, entries).reserve(0, entries), entries


def test_a_scale_of_one_is_off_and_texts_have_no_condition_to_do_without():
    assert guide(TARGET, 1.0) is TARGET
    guided = guide(TARGET, 2.5)
    assert (guided.scale, guided.null_token) == (2.5, NULL)
    with pytest.raises(
        InvalidOption, match=r"guidance=2.0 is not accepted: 1: this target has no null class"
    ):
        guide(TableTarget(5, 0), 2.0)
