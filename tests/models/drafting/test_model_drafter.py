"""The model drafter: its cache mirrors what was committed; guesses are the shared function's."""

import numpy as np
import pytest
import torch

from models.compute.x86.kernels import compiled
from models.drafting.draft import Shape
from models.drafting.draft_models.draft_model import CHUNK, FAR, ModelDrafter
from models.drafting.drafter import DraftContext
from models.requests.request import Request, Sampling
from models.requests.sequence import Sequence
from models.sampling.noise import NoiseStore
from models.sampling.processing import Processor
from models.targets.decoder.config import DecoderConfig
from models.targets.decoder.decoder import Decoder
from models.targets.decoder.weights import assemble, shapes
from models.verify.round import RoundNoise
from tests.models.looping import DRAFT_MODEL, TARGET, VOCAB, alone, loop_of, request_of, tokens_of

CPU = torch.device("cpu")
SAMPLINGS = [{}, {"temperature": 0}, {"top_p": 0.9, "temperature": 0.7}, {"top_k": 2}]

CONFIG = DecoderConfig(
    architecture="llama",
    vocab_size=50,
    width=32,
    inner_width=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    context_length=1024,
)


def itself(width=1, depth=4):
    """The target as its own draft model."""
    return lambda: ModelDrafter(TARGET, rows=16, capacity=160), Shape(depth=depth, width=width)


@pytest.mark.parametrize(
    ("width", "sampling"), [(1, s) for s in SAMPLINGS] + [(3, {}), (3, {"temperature": 0})]
)
def test_a_draft_model_that_is_the_target_is_always_right(width, sampling):
    requests = [request_of(8 * i, max_tokens=21, ignore_eos=True, **sampling) for i in range(6)]
    loop = loop_of(itself(width))
    results = loop.run(requests)
    assert tokens_of(results) == alone(requests)
    assert {r.target_passes for r in results} == {5}  # 5 tokens a round, the bonus included


@pytest.mark.parametrize("rule", ["rejection", "block"])
@pytest.mark.parametrize("sampling", SAMPLINGS)
def test_under_the_sampled_rules_too(rule, sampling):
    requests = [request_of(8 * i, max_tokens=21, ignore_eos=True, **sampling) for i in range(6)]
    results = loop_of(itself(), rule=rule).run(requests)
    assert {r.target_passes for r in results} == {5}


@pytest.mark.parametrize("width", [1, 2])
def test_prompts_longer_than_a_chunk_are_read(width):
    request = request_of(8, length=600, max_tokens=21, ignore_eos=True)
    loop = loop_of(
        (lambda: ModelDrafter(TARGET, rows=1, capacity=800), Shape(depth=4, width=width)),
        rows=1,
        max_length=700,
    )
    assert loop.run([request])[0].target_passes == 5


def committed(drafter, sequence):
    slot = drafter._slots[sequence.id]
    length = int(drafter._cache.lengths[slot])
    return drafter._cache.entries[slot, :length].tolist()


@pytest.mark.parametrize("width", [1, 3])
def test_the_cache_holds_what_was_committed_whatever_was_guessed(width):
    """Right, half right and wrong guesses, rounds without a draft: the mirror catches up."""
    rng = np.random.default_rng(0)
    drafter, store = ModelDrafter(DRAFT_MODEL, rows=2, capacity=400), NoiseStore(VOCAB, CPU)
    members = [
        Sequence(Request(id=n, prompt=(1, 2, 3), sampling=Sampling(max_tokens=999), seed=i))
        for i, n in enumerate("ab")
    ]
    for _ in range(25):
        processor = Processor(members, VOCAB, CPU)
        context = DraftContext(processor, RoundNoise(members, store), np.arange(2), sampled=False)
        drafts = drafter.propose(members, Shape(depth=3, width=width), context)
        for sequence, draft in zip(members, drafts, strict=True):
            assert committed(drafter, sequence) == sequence.tokens
            assert 0 < len(draft) <= 3 * width
            kept = int(rng.integers(0, len(draft) + 1)) if draft.is_chain else 0
            for token in [*draft.tokens[:kept].tolist(), *rng.integers(0, VOCAB, 2).tolist()]:
                sequence.append(token)


def test_rows_are_freed():
    drafter = ModelDrafter(DRAFT_MODEL, rows=2, capacity=160)
    loop = loop_of((lambda: drafter, Shape(depth=2)), rows=2)
    loop.run([request_of(i) for i in range(20)])
    assert sorted(drafter._free) == [0, 1]
    assert (drafter._cache.lengths == 0).all()
    assert not drafter._slots
    assert not drafter._fed


def test_drawn_guesses_carry_the_distribution_they_came_from():
    members = [
        Sequence(Request(id=str(i), prompt=(1, 2), sampling=Sampling(**s), seed=i))
        for i, s in enumerate(SAMPLINGS)
    ]
    processor = Processor(members, VOCAB, CPU)
    noise = RoundNoise(members, NoiseStore(VOCAB, CPU))
    context = DraftContext(processor, noise, np.arange(4), sampled=True)
    drafter = ModelDrafter(DRAFT_MODEL, rows=4, capacity=60)
    for draft in drafter.propose(members, Shape(depth=3), context):
        assert draft.probs.shape == (3, VOCAB)
        assert torch.allclose(draft.probs.sum(-1), torch.ones(3))
        drawn = draft.probs.gather(1, torch.from_numpy(draft.tokens)[:, None])
        assert (drawn > 0).all()


def test_penalties_count_the_guesses_before_and_are_taken_back():
    sampling = Sampling(temperature=0, presence_penalty=2.0)
    member = Sequence(Request(id="a", prompt=(1,), sampling=sampling))
    processor = Processor([member], VOCAB, CPU)
    noise = RoundNoise([member], NoiseStore(VOCAB, CPU))
    model = ModelDrafter(DRAFT_MODEL, rows=1, capacity=60)
    flat = DRAFT_MODEL.table.clone()
    context = DraftContext(processor, noise, np.array([0]), sampled=False)
    try:
        DRAFT_MODEL.table = torch.linspace(1, 0, VOCAB).expand_as(flat)
        draft = model.propose([member], Shape(depth=VOCAB), context)[0]
        assert draft.tokens.tolist() == list(range(VOCAB))  # none twice
        member.append(2)
        processor.observe(np.array([0]), np.array([2]))
        draft = model.propose([member], Shape(depth=VOCAB), context)[0]
        assert draft.tokens.tolist() == [0, 1, 3, 4, 0]
    finally:
        DRAFT_MODEL.table = flat


class LevelByLevel(Decoder):
    """A decoder that leaves every choice to the drafter."""

    chooses = False


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("nodes", [0, 4])
@pytest.mark.parametrize("width", [1, 2, 3, 8])
@pytest.mark.parametrize("depth", [1, 2, 5])
def test_drafts_in_one_call_are_those_level_by_level(depth, width, nodes):
    """Ragged news, greedy and filtered requests, guesses kept and lost."""
    shape = Shape(depth=depth, width=width, nodes=nodes if width > 1 else 0)
    models = [kind.from_config(CONFIG, seed=3) for kind in (Decoder, LevelByLevel)]
    assert models[0].chooses == compiled()
    drafters = [ModelDrafter(model, rows=4, capacity=400) for model in models]
    store, rng = NoiseStore(50, CPU), np.random.default_rng(0)
    members = [
        Sequence(
            Request(
                id=str(i),
                prompt=tuple(n % 50 for n in range(1, 3 + 90 * i)),
                sampling=Sampling(max_tokens=40 + i, **sampling),
                seed=i,
            )
        )
        for i, sampling in enumerate(SAMPLINGS)
    ]
    for _ in range(12):
        processor = Processor(members, 50, CPU)
        owners = rng.permutation(4)[: rng.integers(1, 5)]
        context = DraftContext(processor, RoundNoise(members, store), owners, sampled=False)
        asked = [members[b] for b in owners]
        found = [drafter.propose(asked, shape, context) for drafter in drafters]
        for sequence, *drafts in zip(asked, *found, strict=True):
            assert drafts[0].tokens.tolist() == drafts[1].tokens.tolist()
            assert drafts[0].parents.tolist() == drafts[1].parents.tolist()
            assert 0 < len(drafts[0]) <= shape.budget
            for token in [*way(drafts[0], rng), int(rng.integers(0, 50))]:
                sequence.append(token)
    assert drafters[0].passes == drafters[1].passes
    assert torch.equal(drafters[0]._cache.kv, drafters[1]._cache.kv)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("shape", [Shape(depth=3), Shape(depth=3, width=4, nodes=5)])
def test_a_draft_of_no_numbers_is_a_draft(shape):
    """A broken checkpoint guesses something, within the size that was asked for."""
    wanted = shapes(CONFIG)
    weights = assemble(
        CONFIG,
        lambda name: torch.full(wanted[name], torch.nan),
        dtype=torch.float32,
        device=CPU,
    )
    model = Decoder(CONFIG, weights, dtype=torch.float32, device=CPU)
    drafter = ModelDrafter(model, rows=1, capacity=60)
    member = Sequence(Request(id="a", prompt=(1, 2)))
    processor = Processor([member], 50, CPU)
    noise = RoundNoise([member], NoiseStore(50, CPU))
    context = DraftContext(processor, noise, np.array([0]), sampled=False)
    draft = drafter.propose([member], shape, context)[0]
    assert len(draft) <= shape.budget
    assert all(0 <= token < 50 for token in draft.tokens.tolist())
    assert (draft.parents < np.arange(len(draft))).all()


def way(draft, rng):
    """The tokens from the root to one of the nodes, or none."""
    node, tokens = int(rng.integers(-1, len(draft))), []
    while node >= 0:
        tokens.insert(0, int(draft.tokens[node]))
        node = int(draft.parents[node])
    return tokens


def test_a_sequence_that_lacks_much_is_read_chunk_by_chunk():
    """Its neighbour is drafted for at once; it has its first draft when it is near."""
    behind = FAR * CHUNK + 2 * CHUNK - 9
    members = [
        Sequence(Request(id=str(n), prompt=(1,) * n, sampling=Sampling(max_tokens=99), seed=n))
        for n in (behind, 3)
    ]
    drafter, store = ModelDrafter(DRAFT_MODEL, rows=2, capacity=2000), NoiseStore(VOCAB, CPU)
    for turn in range(3):
        processor = Processor(members, VOCAB, CPU)
        context = DraftContext(processor, RoundNoise(members, store), np.arange(2), sampled=False)
        far, near = drafter.propose(members, Shape(depth=3), context)
        assert len(near) == 3
        assert len(far) == (3 if turn == 2 else 0)
        for sequence in members:
            sequence.append(2)
    assert committed(drafter, members[0]) == members[0].tokens[:-1]
