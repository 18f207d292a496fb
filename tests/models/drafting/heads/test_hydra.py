"""Hydra heads: stored and read, logits of an independent reference along chains and trees."""

import json

import numpy as np
import pytest
import torch

from models.drafting.draft import Shape, depths
from models.drafting.folder_kind import HYDRA, folder_kind
from models.drafting.heads.heads_drafter import HeadsDrafter
from models.drafting.heads.hydra_head import read_hydra, write_hydra
from models.drafting.heads.hydra_model import HydraModel
from models.drafting.reading import Reading
from models.engine import build_loop
from models.engine_config import EngineConfig
from models.errors import UnsupportedCheckpoint
from models.requests.request import Request, Sampling
from tests.models.drafting.heads.random_heads import hydra_head, write_target
from tests.models.drafting.heads.test_eagle import context_of, grown

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return write_target(tmp_path_factory.mktemp("target"))


def reference(head, state, path):
    """[V] what comes after the root and the drafted tokens `path`, from a state [D]."""
    k = len(path) - 1
    x = state.double()
    table = head.tensors["embed_tokens.weight"].double()
    read = torch.cat([x, *(table[token] for token in path)])
    y = head.tensors[f"heads.{k}.weight"].double() @ read
    y = y + head.tensors[f"heads.{k}.bias"].double()
    return head.output.double() @ (x + y / (1 + (-y).exp()))


def test_what_is_written_is_read(tmp_path, target):
    head = hydra_head(target)
    write_hydra(head, tmp_path)
    assert folder_kind(tmp_path) == HYDRA
    found = read_hydra(tmp_path, target)
    assert found.config == head.config
    assert torch.equal(found.output, head.output)
    assert found.tensors.keys() == head.tensors.keys()
    assert all(torch.equal(found.tensors[name], t) for name, t in head.tensors.items())


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize(
    "shape", [Shape(depth=5), Shape(depth=3, width=4), Shape(depth=3, width=4, nodes=7)]
)
def test_each_level_is_chosen_by_its_head_from_the_tokens_before(target, shape):
    """As deep as there are heads."""
    head = hydra_head(target)
    drafter = HeadsDrafter(HydraModel(head, dtype=torch.float32, device=CPU))
    sequences = [grown(range(1, size), size, temperature=0) for size in (4, 9)]
    states = torch.randn(8, 1, 32)
    for sequence in sequences:
        told = states[: len(sequence.tokens) - 1]
        drafter.read([Reading(sequence=sequence, first=0, states=told, top=None)])
    drafts = drafter.propose(sequences, shape, context_of(sequences))
    for sequence, draft in zip(sequences, drafts, strict=True):
        assert len(draft) == (shape.budget if shape.width > 1 else 3)
        assert depths(draft.parents).max() == 3 or shape.nodes
        state, root = states[len(sequence.tokens) - 2, 0], sequence.tokens[-1]
        paths = {-1: [root]}
        for i, parent in enumerate(draft.parents.tolist()):
            expected = reference(head, state, paths[parent]).topk(max(1, shape.width)).indices
            assert int(draft.tokens[i]) in expected.tolist()
            paths[i] = [*paths[parent], int(draft.tokens[i])]


@pytest.mark.usefixtures("arithmetic")
def test_a_tree_reads_the_path_of_each_node(target):
    """Level by level, the logits after every node are those of its own tokens."""
    head = hydra_head(target)
    model = HydraModel(head, dtype=torch.float32, device=CPU)
    states, roots = torch.randn(2, 32), np.array([3, 7])
    steps, tree = model.start(states, roots, 3), StillTree()
    torch.testing.assert_close(steps.logits[1], reference(head, states[1], [7]).float())
    tree.grow([[4, 5], [6, 8]], [[-1, -1], [-1, -1]])
    found = steps.feed_tree(tree)
    torch.testing.assert_close(found[1], reference(head, states[0], [3, 5]).float())
    tree.grow([[9, 10], [11, 12]], [[1, 1], [0, 1]])
    found = steps.feed_tree(tree)
    torch.testing.assert_close(found[0], reference(head, states[0], [3, 5, 9]).float())
    torch.testing.assert_close(found[2], reference(head, states[1], [7, 6, 11]).float())
    torch.testing.assert_close(found[3], reference(head, states[1], [7, 8, 12]).float())


class StillTree:
    """What `feed_tree` reads of a tree, two nodes a level."""

    width, size = 2, 0

    def __init__(self):
        self.tokens = self.parents = np.zeros((2, 0), dtype=np.int64)

    def grow(self, tokens, parents):
        self.tokens = np.concatenate([self.tokens, tokens], axis=1)
        self.parents = np.concatenate([self.parents, parents], axis=1)
        self.size += 2


@pytest.mark.parametrize("options", [{"draft_tokens": 3}, {"draft_tokens": 3, "draft_width": 3}])
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_tokens_are_those_of_plain_decoding(tmp_path, target, options, temperature):
    write_hydra(hydra_head(target), tmp_path)
    sampling = Sampling(temperature=temperature, max_tokens=20, ignore_eos=True)
    requests = [
        Request(id=str(i), prompt=(1 + i, 2, 3), sampling=sampling, seed=i) for i in range(5)
    ]
    found = []
    for drafter, sizes in (("none", {}), (str(tmp_path), options)):
        config = EngineConfig(
            target=str(target), drafter=drafter, batch_size=3, memory="64MiB", **sizes
        )
        loop = build_loop(config)
        found.append({result.id: result.tokens for result in loop.run(requests)})
    assert found[0] == found[1]
    assert loop.figures().drafted > 0


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"width": 16}, "output matrix of 50 x 16.*is 50 x 32"),
        ({"vocab_size": 60}, "output matrix of 60 x 32.*is 50 x 32"),
    ],
)
def test_heads_of_another_target_are_refused(tmp_path, target, values, message):
    write_hydra(hydra_head(target, **values), tmp_path)
    with pytest.raises(UnsupportedCheckpoint, match=message):
        read_hydra(tmp_path, target)


def test_a_wrong_field_is_named(tmp_path, target):
    write_hydra(hydra_head(target), tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text()) | {"num_heads": 0}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UnsupportedCheckpoint, match="num_heads=0 is not accepted"):
        read_hydra(tmp_path, target)
