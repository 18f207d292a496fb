"""EAGLE-3 drafters: the published layouts, logits of an independent reference, no blind reading."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from models.drafting.draft import Shape
from models.drafting.drafter import DraftContext
from models.drafting.heads.eagle_drafter import EagleDrafter
from models.drafting.heads.eagle_export import write_eagle
from models.drafting.heads.eagle_layouts import read_eagle
from models.drafting.heads.eagle_model import EagleModel
from models.drafting.reading import Reading
from models.errors import UnsupportedCheckpoint
from models.requests.request import Request, Sampling
from models.requests.sequence import Sequence
from models.sampling.noise import NoiseStore
from models.sampling.processing import Processor
from models.verify.round import RoundNoise
from tests.models.drafting.heads.eagle_reference import Reference
from tests.models.drafting.heads.random_heads import EAGLE, TARGET, eagle_head, write_target

CPU = torch.device("cpu")
SOME = [3, 5, 7, 11, 12, 13, 20, 21, 33, 47]
VARIANTS = {
    "eagle3": {},
    "few tokens": {"ids": SOME},
    "taps normed": {"norm_taps": True, "norm_output": True},
}
SPECULATORS_ONLY = {
    "before residual": {"norm_before_residual": True, "ids": SOME},
    "before fc": {"norm_before_fc": True},
}
CASES = [("speculators", name, flags) for name, flags in (VARIANTS | SPECULATORS_ONLY).items()] + [
    ("sglang", name, flags) for name, flags in VARIANTS.items()
]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return write_target(tmp_path_factory.mktemp("target"))


def exported(folder, target, layout, **flags):
    write_eagle(eagle_head(**flags), folder, layout=layout, target=target, draft_tokens=4)
    return folder


def drafter_of(folder, target, rows=4):
    model = EagleModel(read_eagle(folder, target), dtype=torch.float32, device=CPU)
    return EagleDrafter(model, rows=rows, capacity=200)


def context_of(sequences):
    processor = Processor(sequences, TARGET.vocab_size, CPU)
    noise = RoundNoise(sequences, NoiseStore(TARGET.vocab_size, CPU))
    return DraftContext(processor, noise, np.arange(len(sequences)), sampled=False)


def watched(drafter):
    """All logits that the drafter computes, in order."""
    seen, score = [], drafter.model.score

    def spy(*arguments):
        logits, states = score(*arguments)
        seen.append(logits.clone())
        return logits, states

    drafter.model.score = spy
    return seen


def grown(text, seed=0, **sampling):
    """A sequence whose prompt is all but the last token."""
    request = Request(id=str(seed), prompt=tuple(text), sampling=Sampling(**sampling), seed=seed)
    return Sequence(request)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize(("layout", "name", "flags"), CASES)
def test_logits_are_those_of_the_published_layout(tmp_path, target, layout, name, flags):
    """Prompts in pieces, several requests, then the target's own tokens: at each depth."""
    folder = exported(tmp_path / "drafter", target, layout, **flags)
    reference, drafter = Reference(folder), drafter_of(folder, target)
    seen = watched(drafter)
    generator = np.random.default_rng(0)
    texts = [generator.integers(0, 50, size).tolist() for size in (9, 4)]
    taps = [torch.randn(len(text) + 8, 3, TARGET.width) for text in texts]
    sequences = [grown(text, seed, temperature=0) for seed, text in enumerate(texts)]
    for sequence, states in zip(sequences, taps, strict=True):
        cut = len(sequence.tokens) // 2
        for first, last in ((0, cut), (cut, len(sequence.tokens) - 1)):
            states_of = states[first:last]
            drafter.read([Reading(sequence=sequence, first=first, states=states_of, top=None)])
    for _ in range(2):
        seen.clear()
        drafts = drafter.propose(sequences, Shape(depth=4), context_of(sequences))
        for b, (sequence, states, draft) in enumerate(zip(sequences, taps, drafts, strict=True)):
            known = states[: len(sequence.tokens) - 1].unbind(1)
            expected = reference.follow(sequence.tokens, known, draft.tokens.tolist())
            found = torch.stack([logits[b] for logits in seen])
            torch.testing.assert_close(found.double(), expected, rtol=0, atol=2e-5)
            assert draft.tokens.tolist() == expected.argmax(-1).tolist()
        for sequence, states in zip(sequences, taps, strict=True):
            before = len(sequence.tokens)
            sequence.tokens += [7, 30]  # whatever was drafted, the target chose these
            told = states[before - 1 : before + 1]
            drafter.read([Reading(sequence=sequence, first=before - 1, states=told, top=None)])


@pytest.mark.usefixtures("arithmetic")
def test_a_tree_grows_along_its_own_paths(tmp_path, target):
    folder = exported(tmp_path / "drafter", target, "speculators")
    reference, drafter = Reference(folder), drafter_of(folder, target)
    seen = watched(drafter)
    sequence = grown([4, 9, 16, 25], temperature=0)
    states = torch.randn(3, 3, TARGET.width)
    drafter.read([Reading(sequence=sequence, first=0, states=states, top=None)])
    shape = Shape(depth=3, width=3)
    (draft,) = drafter.propose([sequence], shape, context_of([sequence]))
    assert len(draft) == 9
    for level in range(2):
        for place in range(3):
            path, node = [], 3 * level + place
            while node >= 0:
                path.insert(0, int(draft.tokens[node]))
                node = int(draft.parents[node])
            expected = reference.follow(sequence.tokens, states.unbind(1), [*path, 0])[-1]
            found = seen[level + 1][place].double()
            torch.testing.assert_close(found, expected, rtol=0, atol=2e-5)


def test_states_of_tokens_that_are_not_verified_leave_no_trace(tmp_path, target):
    """After drafts of any shape, the entries are those of reading the verified text once."""
    folder = exported(tmp_path / "drafter", target, "speculators")
    drafter, plain = drafter_of(folder, target), drafter_of(folder, target)
    sequence, states = grown([4, 9, 16, 25], max_tokens=50), torch.randn(12, 3, TARGET.width)
    drafter.read([Reading(sequence=sequence, first=0, states=states[:3], top=None)])
    shapes = [Shape(depth=5), Shape(depth=3, width=4), Shape(depth=1), Shape(depth=4, width=2)]
    for first, shape in zip(range(3, 7), shapes, strict=True):
        (draft,) = drafter.propose([sequence], shape, context_of([sequence]))
        assert len(draft) == shape.budget
        sequence.tokens.append(int(draft.tokens[0]))  # accepted: it is read anew all the same
        told = states[first : first + 1]
        drafter.read([Reading(sequence=sequence, first=first, states=told, top=None)])
    drafter.propose([sequence], Shape(depth=1), context_of([sequence]))
    plain.read([Reading(sequence=sequence, first=0, states=states[:7], top=None)])
    plain.propose([sequence], Shape(depth=1), context_of([sequence]))
    rows = [d._rows[sequence.id].slot for d in (drafter, plain)]
    entries = [
        d._cache.kv.flatten(3, 4)[0][:, :, torch.from_numpy(d._cache.slots(row, np.arange(7)))]
        for d, row in zip((drafter, plain), rows, strict=True)
    ]
    torch.testing.assert_close(*entries)
    assert drafter._cache.lengths[rows[0]] == 7


def test_many_states_are_read_before_a_draft_and_rows_are_freed(tmp_path, target):
    folder = exported(tmp_path / "drafter", target, "speculators")
    model = EagleModel(read_eagle(folder, target), dtype=torch.float32, device=CPU)
    drafter = EagleDrafter(model, rows=2, capacity=700)
    text = np.random.default_rng(1).integers(0, 50, 601).tolist()
    sequence, states = grown(text), torch.randn(600, 3, TARGET.width)
    for first in range(0, 600, 100):
        told = states[first : first + 100]
        drafter.read([Reading(sequence=sequence, first=first, states=told, top=None)])
    assert drafter._rows[sequence.id].count <= 400
    (draft,) = drafter.propose([sequence], Shape(depth=2), context_of([sequence]))
    assert len(draft) == 2
    drafter.forget(sequence.id)
    assert sorted(drafter._free) == [0, 1]
    assert (drafter._cache.lengths == 0).all()


def test_a_request_without_room_gets_no_drafts_until_it_ends(tmp_path, target):
    folder = exported(tmp_path / "drafter", target, "speculators")
    model = EagleModel(read_eagle(folder, target), dtype=torch.float32, device=CPU)
    drafter = EagleDrafter(model, rows=2, capacity=200, entries=192)
    sequences = [grown([5] * 80, seed, max_tokens=40) for seed in range(2)]
    states = torch.randn(90, 3, TARGET.width)
    for sequence in sequences:
        drafter.read([Reading(sequence=sequence, first=0, states=states[:79], top=None)])
    drafts = drafter.propose(sequences, Shape(depth=2), context_of(sequences))
    assert [len(draft) for draft in drafts] == [2, 0]
    sequences[1].tokens.append(3)
    drafter.read([Reading(sequence=sequences[1], first=79, states=states[79:80], top=None)])
    drafter.forget("1")
    sequences[1] = grown(range(1, 9), 1)
    drafter.read([Reading(sequence=sequences[1], first=0, states=states[:7], top=None)])
    drafts = drafter.propose(sequences[1:], Shape(depth=2), context_of(sequences[1:]))
    assert len(drafts[0]) == 2


# --- layouts ----------------------------------------------------------------------------------


@pytest.mark.parametrize(("layout", "name", "flags"), CASES)
def test_an_exported_drafter_loads_back_whole(tmp_path, target, layout, name, flags):
    head = eagle_head(**flags)
    folder = exported(tmp_path / "drafter", target, layout, **flags)
    found = read_eagle(folder, target)
    assert found.config == head.config
    assert found.tensors.keys() == head.tensors.keys()
    for key, tensor in head.tensors.items():
        assert torch.equal(found.tensors[key], tensor), key
    assert (found.ids is None) == (head.ids is None)
    assert head.ids is None or torch.equal(found.ids, head.ids)


def test_the_keys_of_speculators_are_explicit(tmp_path, target):
    folder = exported(tmp_path / "drafter", target, "speculators", ids=SOME)
    raw = json.loads((folder / "config.json").read_text())
    assert raw["architectures"] == ["Eagle3Speculator"]
    assert raw["speculators_model_type"] == "eagle3"
    assert (raw["draft_vocab_size"], raw["target_hidden_size"]) == (10, 32)
    assert raw["eagle_aux_hidden_state_layer_ids"] == [1, 3, 5]
    for name in ("norm_before_residual", "norm_before_fc", "fc_norm", "norm_output"):
        assert raw[name] is False
    layer = raw["transformer_layer_config"]
    assert (layer["vocab_size"], layer["num_hidden_layers"]) == (50, 1)
    assert layer["tie_word_embeddings"] is False
    told = raw["speculators_config"]
    assert told["algorithm"] == "eagle3"
    assert told["default_proposal_method"] == "greedy"
    assert told["proposal_methods"] == [{"proposal_type": "greedy", "speculative_tokens": 4}]
    assert told["verifier"] == {"name_or_path": str(target), "architectures": ["LlamaForCausalLM"]}
    tensors = load_file(folder / "model.safetensors")
    assert tensors["d2t"].dtype == torch.int64
    assert (torch.arange(10) + tensors["d2t"]).tolist() == SOME
    assert tensors["t2d"].dtype == torch.bool
    assert {"fc.weight", "norm.weight", "lm_head.weight", "embed_tokens.weight"} < set(tensors)
    assert "layers.0.hidden_norm.weight" in tensors


def test_sglangs_layer_ids_count_outputs(tmp_path, target):
    folder = exported(tmp_path / "drafter", target, "sglang")
    raw = json.loads((folder / "config.json").read_text())
    assert raw["architectures"] == ["LlamaForCausalLMEagle3"]
    assert raw["eagle_config"]["eagle_aux_hidden_state_layer_ids"] == [0, 2, 4]
    assert raw["tie_word_embeddings"] is False
    assert "midlayer.self_attn.q_proj.weight" in load_file(folder / "model.safetensors")


def edit(folder, change):
    raw = json.loads((folder / "config.json").read_text())
    change(raw)
    (folder / "config.json").write_text(json.dumps(raw))


def test_sizes_that_speculators_leaves_out_are_those_of_transformers(tmp_path, target):
    """It writes what differs from LlamaConfig only."""
    head = eagle_head(layer=type(EAGLE.layer)(**{**fields_of(EAGLE.layer), "norm_eps": 1e-6}))
    write_eagle(head, tmp_path, layout="speculators", target=target, draft_tokens=4)
    edit(tmp_path, lambda raw: raw["transformer_layer_config"].pop("rms_norm_eps"))
    edit(tmp_path, lambda raw: raw["transformer_layer_config"].pop("num_hidden_layers"))
    assert read_eagle(tmp_path, target).config == head.config
    edit(tmp_path, lambda raw: raw["transformer_layer_config"].pop("num_attention_heads"))
    with pytest.raises(UnsupportedCheckpoint, match=r"q_proj.weight is .*makes it \(256, 48\)"):
        read_eagle(tmp_path, target)


def test_a_pickle_is_refused_with_the_command_that_converts_it(tmp_path, target):
    folder = exported(tmp_path / "drafter", target, "sglang")
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    told = r"pytorch_model.bin may hold code and is never loaded.*weights_only=True"
    with pytest.raises(UnsupportedCheckpoint, match=told):
        read_eagle(folder, target)


def test_default_layers_are_those_of_eagle(tmp_path, target):
    folder = exported(tmp_path / "drafter", target, "sglang")
    edit(folder, lambda raw: raw.pop("eagle_config"))
    assert read_eagle(folder, target).config.taps == (2, 3, 3)


def test_an_embedding_that_is_left_out_is_the_targets(tmp_path, target):
    """Only if the widths agree; the output matrix of a tied target is its embedding."""
    folder = exported(tmp_path / "drafter", target, "sglang")
    tensors = load_file(folder / "model.safetensors")
    del tensors["embed_tokens.weight"]
    save_file(tensors, folder / "model.safetensors")
    told = r"has no embed_tokens.weight.*it is \(50, 32\), needed is \(50, 24\)"
    with pytest.raises(UnsupportedCheckpoint, match=told):
        read_eagle(folder, target)
    wide = EAGLE.layer
    head = eagle_head(layer=type(wide)(**{**fields_of(wide), "width": 32}))
    write_eagle(head, folder, layout="sglang", target=target, draft_tokens=4)
    tensors = load_file(folder / "model.safetensors")
    del tensors["embed_tokens.weight"], tensors["lm_head.weight"]
    save_file(tensors, folder / "model.safetensors")
    found = read_eagle(folder, target)
    known = load_file(target / "model.safetensors")["model.embed_tokens.weight"]
    assert torch.equal(found.tensors["embed_tokens.weight"], known)
    assert torch.equal(found.tensors["lm_head.weight"], known)


def fields_of(config):
    return {name: getattr(config, name) for name in config.__slots__}


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda raw: raw.pop("norm_before_residual"), "norm_before_residual is missing"),
        (lambda raw: raw.update(speculators_model_type="dflash"), "only eagle3 drafters"),
        (lambda raw: raw.update(parallel_drafting=True), "P-EAGLE"),
        (lambda raw: raw.update(target_hidden_size=64), "hidden_size=64.*is 32"),
        (lambda raw: raw.pop("transformer_layer_config"), "transformer_layer_config is missing"),
        (
            lambda raw: raw["transformer_layer_config"].update(num_hidden_layers=2),
            "num_hidden_layers=2",
        ),
        (
            lambda raw: raw.update(eagle_aux_hidden_state_layer_ids=[1, 3, 6]),
            r"reads layers \(1, 3, 6\); the target's are 0 to 5",
        ),
        (lambda raw: raw.update(draft_vocab_size=20), r"lm_head.weight is \(10, 24\)"),
        (lambda raw: raw.update(fc_norm=True), "lacks the tensor fc_norm.0.weight"),
        (
            lambda raw: raw["transformer_layer_config"].update(vocab_size=60),
            "vocab_size=60.*is 50",
        ),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path, target, change, message):
    folder = exported(tmp_path / "drafter", target, "speculators", ids=SOME)
    edit(folder, change)
    with pytest.raises(UnsupportedCheckpoint, match=message):
        read_eagle(folder, target)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t: t.pop("fc.weight"), "lacks the tensor fc.weight"),
        (lambda t: t.update(d2t=t["d2t"] + 100), "offsets to distinct ids"),
        (lambda t: t.pop("d2t"), "lacks the tensor d2t: draft_vocab_size is 10"),
        (lambda t: t.update(extra=torch.zeros(1)), "does not belong there: extra"),
        (lambda t: t["fc.weight"].fill_(torch.nan), "NaN"),
    ],
)
def test_tensors_that_do_not_fit_are_refused(tmp_path, target, change, message):
    folder = exported(tmp_path / "drafter", target, "speculators", ids=SOME)
    tensors = load_file(Path(folder) / "model.safetensors")
    change(tensors)
    save_file(tensors, folder / "model.safetensors")
    with pytest.raises(UnsupportedCheckpoint, match=message):
        read_eagle(folder, target)


@pytest.mark.parametrize("flag", ["norm_before_residual", "norm_before_fc"])
def test_sglang_cannot_hold_every_drafter(tmp_path, target, flag):
    with pytest.raises(UnsupportedCheckpoint, match=f"no {flag}; export as speculators"):
        exported(tmp_path, target, "sglang", **{flag: True})
