"""Drafters of some tokens: which these are, laws over them, losses, figures, exports."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from models.drafting.distil.build import DraftLessons, build_drafter
from models.drafting.distil.draft_vocabulary import DraftVocabulary, frequent_ids
from models.drafting.distil.kind import Course
from models.drafting.distil.texts import Text, write_texts
from models.drafting.heads.eagle_export import write_eagle
from models.drafting.heads.eagle_layouts import read_eagle
from models.drafting.heads.hydra_head import read_hydra, write_hydra
from models.drafting.heads.medusa_head import read_medusa, write_medusa
from models.errors import InvalidOption
from models.metrics.agreement import agreement
from models.training.engines.worker import Worker
from models.training.kind import Samples
from models.training.losses import divergence, match_loss
from tests.models.drafting.distil.test_unrolled import SOME, built, shaken, texts_file
from tests.models.drafting.heads.random_heads import write_target

KINDS = ["medusa", "hydra", "eagle"]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return write_target(tmp_path_factory.mktemp("target"))


def random_laws(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return (2 * torch.randn(*shape, generator=generator)).log_softmax(-1)


def test_the_most_frequent_tokens_of_the_target_and_what_always_must_be_there():
    texts = [
        Text(tokens=(9, 9, 9, 9, 5, 7, 5), num_prompt=4),  # a prompt does not count
        Text(tokens=(1, 7, 5, 3), num_prompt=1),
    ]
    ids = frequent_ids(texts, 4, vocab_size=12, always=(11,))
    assert ids.tolist() == [3, 5, 7, 11]
    assert frequent_ids(texts, 6, vocab_size=12, always=(11,)).tolist() == [0, 1, 3, 5, 7, 11]
    assert frequent_ids((), 3, vocab_size=12, always=(2,)).tolist() == [0, 1, 2]
    assert frequent_ids(texts, 12, vocab_size=12).tolist() == list(range(12))


def test_columns_are_the_tokens_and_one_for_all_others():
    some = DraftVocabulary(torch.tensor([2, 3, 7]))
    assert some.columns(torch.tensor([[2, 3, 7], [0, 9, 5]])).tolist() == [[0, 1, 2], [3, 3, 3]]
    log_p = random_laws(5, 10)
    laws = some.of_all(log_p)
    torch.testing.assert_close(laws[:, :3], log_p[:, [2, 3, 7]])
    torch.testing.assert_close(laws.exp().sum(-1), torch.ones(5))
    assert (some.padded(log_p[:, :3])[:, 3] == -torch.inf).all()


def test_columns_do_not_depend_on_the_order_of_the_ids():
    some = DraftVocabulary(torch.tensor([7, 2, 3]))
    assert some.columns(torch.tensor([[2, 3, 7], [0, 9, 5]])).tolist() == [[1, 2, 0], [3, 3, 3]]


def test_losses_over_some_tokens_are_those_of_a_drafter_that_never_chooses_the_others():
    some = DraftVocabulary(torch.tensor([1, 4, 5, 8]))
    log_p, logits = random_laws(6, 10), random_laws(6, 4, seed=1).requires_grad_()
    whole = torch.full((6, 10), -torch.inf).index_copy(1, some.ids, logits.log_softmax(-1))
    expected = agreement(log_p, whole)
    found = agreement(some.of_all(log_p), some.padded(logits.log_softmax(-1)))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-6)
    surprise = -(log_p.exp() * whole.masked_fill(whole == -torch.inf, 0)).sum()
    expected_gradient = torch.autograd.grad(surprise, logits)[0]
    own = divergence(some.of_all(log_p), logits).sum()
    torch.testing.assert_close(torch.autograd.grad(own, logits)[0], expected_gradient)
    blend = match_loss(some.of_all(log_p), logits)
    gradient = torch.autograd.grad(blend.sum(), logits)[0]
    assert gradient.isfinite().all()
    step = 1e-3 * gradient
    assert match_loss(some.of_all(log_p), logits - step).sum() < blend.sum()


def test_the_first_texts_decide_which_tokens_can_be_drafted(tmp_path, target):
    made = built("medusa", target, tmp_path / "a", **SOME)
    texts = [Text(tokens=(1, 2, *range(30, 50)), num_prompt=2)] * 4
    other = str(tmp_path / "other.parquet")
    write_texts(Path(other), texts)
    course = Course(depth=3, kept=2, exam_tokens=8)
    told = {"kind": "medusa", "target": str(target), "course": course, "length": 64, "seed": 3}
    new = build_drafter(DraftLessons(**told, files=(other,), **SOME), Worker())
    assert not torch.equal(new.model.ids, made.model.ids)
    first = (str(texts_file(tmp_path / "a")[0]),)
    again = build_drafter(DraftLessons(**told, files=(other,), first=first, **SOME), Worker())
    assert torch.equal(again.model.ids, made.model.ids)


@pytest.mark.parametrize("kind", KINDS)
def test_the_laws_of_training_are_those_of_exams(tmp_path, target, kind):
    made = built(kind, target, tmp_path, **SOME)
    assert len(made.model.ids) == 12
    assert 0 in made.model.ids  # the target's end of texts
    numbers = np.arange(3)
    batch = made._judged(made.model, numbers).batch
    whole, states, rows = made._taught(batch, numbers)
    known, same_states, same_rows = made._taught(batch, numbers, vocabulary=made._vocabulary)
    assert torch.equal(states, same_states)
    expected = made._vocabulary.of_all(whole)
    torch.testing.assert_close(known[:, :-1], expected[:, :-1], rtol=0, atol=1e-5)
    torch.testing.assert_close(known.exp(), expected.exp(), rtol=0, atol=1e-6)
    assert torch.equal(rows, same_rows)


@pytest.mark.parametrize("kind", KINDS)
def test_figures_are_those_of_a_drafter_that_never_chooses_the_others(tmp_path, target, kind):
    made = built(kind, target, tmp_path, **SOME)
    shaken(made)
    numbers, told = np.arange(4), torch.tensor([0.0, 0.5, 1.0, 2.0])
    found, lengths = made._chances(made.model, numbers), made.lengths_at(made.model, numbers, told)
    ids, inner = made.model.ids, made.model.forward

    def whole(tokens, states):
        return [
            torch.full((*each.shape[:2], 50), -torch.inf).index_copy(2, ids, each)
            for each in inner(tokens, states)
        ]

    made.model.forward, made._vocabulary = whole, None
    expected = made._chances(made.model, numbers)
    assert found == pytest.approx(expected, abs=1e-5)
    assert found["acceptance"] < 1
    again = made.lengths_at(made.model, numbers, told)
    torch.testing.assert_close(lengths, again, rtol=0, atol=1e-5, equal_nan=True)


@pytest.mark.parametrize("values", [{}, {"width": 32}])
@pytest.mark.parametrize("layout", ["speculators", "sglang"])
def test_both_layouts_of_a_trained_eagle_say_which_tokens_they_draft(
    tmp_path, target, layout, values
):
    made = built("eagle", target, tmp_path, **SOME, **values)
    shaken(made)
    made.export(made.model, tmp_path / "drafter")
    head = read_eagle(tmp_path / "drafter", target)
    write_eagle(head, tmp_path / layout, layout=layout, target=target, draft_tokens=3)
    again = read_eagle(tmp_path / layout, target)
    assert again.config == head.config
    assert torch.equal(again.ids, made.model.ids)
    tensors = load_file(tmp_path / layout / "model.safetensors")
    assert torch.equal(torch.arange(12) + tensors["d2t"], made.model.ids)
    assert tensors["t2d"].nonzero()[:, 0].tolist() == made.model.ids.tolist()
    told = json.loads((tmp_path / layout / "config.json").read_text())
    assert told["draft_vocab_size"] == 12
    assert torch.equal(again.tensors["lm_head.weight"], made.model.tensor("lm_head.weight"))


def test_heads_are_stored_with_the_tokens_that_they_draft(tmp_path, target):
    for kind, read in (("medusa", read_medusa), ("hydra", read_hydra)):
        made = built(kind, target, tmp_path, **SOME)
        made.export(made.model, tmp_path / kind)
        assert torch.equal(read(tmp_path / kind, target).ids, made.model.ids)


@pytest.mark.parametrize("kind", KINDS)
def test_a_start_keeps_its_tokens(tmp_path, target, kind):
    made = built(kind, target, tmp_path, **SOME)
    shaken(made)
    made.export(made.model, tmp_path / "drafter")
    again = built(kind, target, tmp_path, start=str(tmp_path / "drafter"))
    assert torch.equal(again.model.ids, made.model.ids)
    samples = Samples(numbers=np.arange(3), records=np.arange(3))
    losses = [each.losses(each.model, samples)["loss"].item() for each in (made, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def shuffled(kind, folder, target, new):
    """The same drafter with its tokens in another order."""
    read = {"medusa": read_medusa, "hydra": read_hydra, "eagle": read_eagle}[kind]
    head = read(folder, target)
    order = torch.randperm(len(head.ids), generator=torch.Generator().manual_seed(4))
    tensors = dict(head.tensors)
    if "lm_head.weight" in tensors:
        tensors["lm_head.weight"] = tensors["lm_head.weight"][order]
    head = replace(head, ids=head.ids[order], tensors=tensors)
    if kind == "eagle":
        write_eagle(head, new, layout="speculators", target=target, draft_tokens=4)
    else:
        {"medusa": write_medusa, "hydra": write_hydra}[kind](head, new)
    return str(new)


@pytest.mark.parametrize("kind", KINDS)
def test_figures_of_a_start_do_not_depend_on_the_order_of_its_tokens(tmp_path, target, kind):
    made = built(kind, target, tmp_path, **SOME)
    shaken(made)
    made.export(made.model, tmp_path / "drafter")
    start = shuffled(kind, tmp_path / "drafter", target, tmp_path / "shuffled")
    again = built(kind, target, tmp_path, start=start)
    assert not torch.equal(again.model.ids, made.model.ids)
    numbers, told = np.arange(4), torch.tensor([0.0, 0.5, 1.0, 2.0])
    expected, found = (each.lengths_at(each.model, numbers, told) for each in (made, again))
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5, equal_nan=True)
    expected, found = (each._chances(each.model, numbers) for each in (made, again))
    assert found == pytest.approx(expected, abs=1e-5)


def test_a_drafter_of_the_targets_width_keeps_its_embedding_and_output_matrix(tmp_path, target):
    own = {"embed_tokens.weight", "lm_head.weight"}
    made = built("eagle", target, tmp_path, width=32, **SOME)
    assert not own & {name for name, _ in made.model.named_parameters()}
    made.export(made.model, tmp_path / "drafter")
    again = built("eagle", target, tmp_path, start=str(tmp_path / "drafter"))
    assert not own & {name for name, _ in again.model.named_parameters()}
    narrow = built("eagle", target, tmp_path, **SOME)
    assert own < {name for name, _ in narrow.model.named_parameters()}


@pytest.mark.parametrize("count", [1, 51])
def test_a_size_that_does_not_fit_is_refused(tmp_path, target, count):
    file, _ = texts_file(tmp_path)
    lessons = DraftLessons(
        kind="eagle",
        target=str(target),
        files=(str(file),),
        course=built("eagle", target, tmp_path)._course,
        length=64,
        seed=0,
        draft_vocab=count,
    )
    with pytest.raises(InvalidOption, match=f"draft_vocab={count} is not accepted: 2 to"):
        build_drafter(lessons, Worker())
