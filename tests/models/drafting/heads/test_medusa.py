"""Medusa heads: both layouts, logits of an independent reference, pickles refused."""

import json

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.drafting.draft import Shape
from models.drafting.folder_kind import MEDUSA, folder_kind
from models.drafting.heads.heads_drafter import HeadsDrafter
from models.drafting.heads.medusa_head import read_medusa, write_medusa
from models.drafting.heads.medusa_model import MedusaModel
from models.drafting.reading import Reading
from models.errors import UnsupportedCheckpoint
from tests.models.drafting.heads.random_heads import TARGET, medusa_head, write_target
from tests.models.drafting.heads.test_eagle import context_of, grown

CPU = torch.device("cpu")
SOME = [3, 5, 7, 11, 12, 13, 20, 21, 33, 47]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return write_target(tmp_path_factory.mktemp("target"))


def save_original(folder, head):
    """The names and the config.json of the original's training script."""
    folder.mkdir()
    config, tensors = head.config, head.tensors
    told = {"medusa_num_heads": config.num_heads, "medusa_num_layers": config.num_layers}
    (folder / "config.json").write_text(json.dumps(told))
    out = {}
    for k in range(config.num_heads):
        for layer in range(config.num_layers):
            for kind in ("weight", "bias"):
                out[f"{k}.{layer}.linear.{kind}"] = tensors[f"blocks.{k}.layers.{layer}.{kind}"]
        out[f"{k}.{config.num_layers}.weight"] = tensors[f"lm_heads.{k}.weight"]
    save_file(out, folder / "medusa_lm_head.safetensors")


def reference(head, state):
    """[K, V] the logits of all heads, one by one, from a state [D]."""
    found = []
    for k in range(head.config.num_heads):
        x = state.double()
        for layer in range(head.config.num_layers):
            weight = head.tensors[f"blocks.{k}.layers.{layer}.weight"].double()
            y = weight @ x
            if head.config.biased:
                y = y + head.tensors[f"blocks.{k}.layers.{layer}.bias"].double()
            x = x + y / (1 + (-y).exp())
        name = "lm_head.weight" if head.config.shared else f"lm_heads.{k}.weight"
        logits = head.tensors[name].double() @ x
        if head.ids is not None:
            whole = torch.full((TARGET.vocab_size,), -torch.inf, dtype=torch.float64)
            whole[head.ids] = logits
            logits = whole
        found.append(logits)
    return torch.stack(found)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize(
    "values",
    [
        {},
        {"shared": False, "num_layers": 2},
        {"biased": False, "ids": SOME},
        {"shared": False, "ids": SOME},
        {"shared": False, "num_heads": 1},
    ],
)
def test_exported_heads_have_the_logits_of_the_reference(tmp_path, target, values):
    head = medusa_head(**values)
    write_medusa(head, tmp_path)
    assert folder_kind(tmp_path) == MEDUSA
    found = read_medusa(tmp_path, target)
    assert found.config == head.config
    model, states = MedusaModel(found, dtype=torch.float32, device=CPU), torch.randn(2, 32)
    logits = model(states, head.config.num_heads)
    expected = torch.stack([reference(head, state) for state in states])
    torch.testing.assert_close(logits.double(), expected, rtol=0, atol=2e-5)


def test_heads_of_the_original_are_read(tmp_path, target):
    head = medusa_head(shared=False, num_layers=2)
    save_original(tmp_path / "heads", head)
    assert folder_kind(tmp_path / "heads") == MEDUSA
    found = read_medusa(tmp_path / "heads", target)
    assert found.config == head.config
    assert all(torch.equal(found.tensors[name], t) for name, t in head.tensors.items())


def test_an_output_matrix_that_is_left_out_is_the_targets(tmp_path, target):
    write_medusa(medusa_head(ids=SOME), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    del tensors["lm_heads.0.weight"]
    save_file(tensors, tmp_path / "model.safetensors")
    known = load_file(target / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(read_medusa(tmp_path, target).tensors["lm_head.weight"], known[SOME])


@pytest.mark.parametrize("wrong", [[-1, 5], [5, 50], [5, 5], []])
def test_a_token_map_of_other_ids_is_refused(tmp_path, target, wrong):
    write_medusa(medusa_head(ids=SOME), tmp_path)
    tensors = load_file(tmp_path / "model.safetensors")
    tensors["token_map"] = torch.tensor(wrong, dtype=torch.int64)
    tensors["lm_heads.0.weight"] = tensors["lm_heads.0.weight"][: len(wrong)].clone()
    save_file(tensors, tmp_path / "model.safetensors")
    told = "token_map does not hold distinct ids of the target's vocabulary of 50"
    with pytest.raises(UnsupportedCheckpoint, match=told):
        read_medusa(tmp_path, target)


def test_fewer_heads_than_there_are_can_be_told(tmp_path, target):
    write_medusa(medusa_head(shared=False), tmp_path)
    raw = json.loads((tmp_path / "config.json").read_text()) | {"num_heads": 2}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    assert read_medusa(tmp_path, target).config.num_heads == 2
    (tmp_path / "config.json").write_text(json.dumps(raw | {"num_heads": 4}))
    with pytest.raises(UnsupportedCheckpoint, match="tells 4 heads, 3 are there"):
        read_medusa(tmp_path, target)


def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path, target):
    (tmp_path / "medusa_lm_head.pt").write_bytes(b"anything")
    assert folder_kind(tmp_path) == MEDUSA
    told = r"medusa_lm_head.pt may hold code and is never loaded.*weights_only=True.*save_file"
    with pytest.raises(UnsupportedCheckpoint, match=told.replace("save_file", "model.safetensors")):
        read_medusa(tmp_path, target)


def test_the_command_that_converts_a_pickle_works(tmp_path, target):
    """Also the folder without a config.json that the original's script leaves."""
    head = medusa_head(shared=False)
    save_original(tmp_path / "heads", head)
    tensors = load_file(tmp_path / "heads" / "medusa_lm_head.safetensors")
    (tmp_path / "heads" / "medusa_lm_head.safetensors").unlink()
    torch.save(tensors, tmp_path / "heads" / "medusa_lm_head.pt")
    with pytest.raises(UnsupportedCheckpoint) as refused:
        read_medusa(tmp_path / "heads", target)
    program = str(refused.value).partition('python -c "')[2].rstrip('"')
    exec(program)
    assert read_medusa(tmp_path / "heads", target).config == head.config


@pytest.mark.parametrize(
    ("values", "message"),
    [({"width": 16}, "hidden_size=16.*is 32"), ({"vocab_size": 60}, "vocab_size=60.*is 50")],
)
def test_heads_of_another_target_are_refused(tmp_path, target, values, message):
    write_medusa(medusa_head(**values), tmp_path)
    with pytest.raises(UnsupportedCheckpoint, match=message):
        read_medusa(tmp_path, target)


@pytest.mark.parametrize("shape", [Shape(depth=5), Shape(depth=3, width=4, nodes=7)])
def test_drafts_are_the_heads_own(tmp_path, target, shape):
    """As deep as there are heads; each level is chosen from its head's logits."""
    head = medusa_head()
    drafter = HeadsDrafter(MedusaModel(head, dtype=torch.float32, device=CPU))
    sequences = [grown(range(1, size), size, temperature=0) for size in (4, 9)]
    states = torch.randn(8, 1, 32)
    for sequence in sequences:
        last = len(sequence.tokens) - 1
        told = states[:last]
        drafter.read([Reading(sequence=sequence, first=0, states=told, top=None)])
    drafts = drafter.propose(sequences, shape, context_of(sequences))
    for sequence, draft in zip(sequences, drafts, strict=True):
        expected = reference(head, states[len(sequence.tokens) - 2, 0])
        if shape.width == 1:
            assert draft.tokens.tolist() == expected.argmax(-1).tolist()
            continue
        assert len(draft) == 7
        top = [set(row.topk(4).indices.tolist()) for row in expected]
        levels = np.zeros(7, dtype=np.int64)
        for i, parent in enumerate(draft.parents.tolist()):
            levels[i] = 0 if parent < 0 else levels[parent] + 1
            assert int(draft.tokens[i]) in top[levels[i]]
    drafter.forget(sequences[0].id)
    drafts = drafter.propose(sequences, shape, context_of(sequences))
    assert [bool(len(draft)) for draft in drafts] == [False, True]


def test_a_state_before_the_last_round_is_not_used(tmp_path, target):
    drafter = HeadsDrafter(MedusaModel(medusa_head(), dtype=torch.float32, device=CPU))
    sequence = grown([1, 2, 3])
    drafter.read([Reading(sequence=sequence, first=0, states=torch.randn(2, 1, 32), top=None)])
    sequence.tokens.append(4)
    (draft,) = drafter.propose([sequence], Shape(depth=2), context_of([sequence]))
    assert not len(draft)
