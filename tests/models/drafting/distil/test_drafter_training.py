"""Training of drafters without Ray: exact resumption, learning, exams in the real loop."""

import copy
import json
from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
import torch

from models.drafting.distil.build import DraftLessons, build_drafter
from models.drafting.distil.kind import Course
from models.drafting.distil.texts import Text, write_texts
from models.engine import build_loop
from models.engine_config import EngineConfig
from models.errors import UnsupportedCheckpoint
from models.requests.request import Request, Sampling
from models.training.checkpoint import states
from models.training.engines.worker import Worker
from models.training.kind import SCORE, Samples
from models.training.state import load_state, save_state
from models.training.step import TrainingPlan, TrainingStep
from tests.models.drafting.heads.random_heads import write_target

KINDS = ["model", "medusa", "hydra", "eagle"]


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return write_target(tmp_path_factory.mktemp("target"))


@pytest.fixture(scope="module")
def own_texts(target, tmp_path_factory):
    """What the target writes after short prompts."""
    loop = build_loop(EngineConfig(target=str(target), batch_size=8, memory="64MiB"))
    rng = np.random.default_rng(0)
    requests = [
        Request(
            id=str(i),
            prompt=tuple(rng.integers(1, 50, 4).tolist()),
            sampling=Sampling(max_tokens=20, ignore_eos=True),
            seed=i,
        )
        for i in range(40)
    ]
    found = {result.id: result.tokens for result in loop.run(requests)}
    texts = [
        Text(tokens=(*request.prompt, *found[request.id]), num_prompt=4) for request in requests
    ]
    file = tmp_path_factory.mktemp("texts") / "texts.parquet"
    write_texts(file, texts)
    return str(file)


def build(kind, target, file, worker=None, stream=None, **values):
    course = Course(depth=3, kept=4, exam_tokens=8, match_from=values.pop("match_from", 10**9))
    lessons = DraftLessons(
        kind=kind, target=str(target), files=(file,), course=course, length=24, seed=1
    )
    return build_drafter(replace(lessons, **values), worker or Worker(), stream)


def training(kind, target, file, steps=8, rate=1e-2, match_from=16, **values):
    made = build(kind, target, file, match_from=match_from, **values)
    return TrainingStep(made, TrainingPlan(steps=steps, batch=4, rate=rate, seed=1))


@pytest.mark.parametrize("kind", KINDS)
def test_a_resumed_training_is_the_undisturbed_one_to_the_bit(tmp_path, target, own_texts, kind):
    whole = training(kind, target, own_texts)
    losses = [whole.step()["loss"] for _ in range(8)]
    first = training(kind, target, own_texts)
    assert [first.step()["loss"] for _ in range(5)] == losses[:5]
    save_state(tmp_path, first, {"a": 1})
    second = training(kind, target, own_texts)
    load_state(states(tmp_path)[-1], second, {"a": 1})
    assert [second.step()["loss"] for _ in range(3)] == losses[5:]
    for a, b in zip(whole.average.parameters(), second.average.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_state_of_another_training_says_what_is_missing_on_either_side(
    tmp_path, target, own_texts
):
    made = training("medusa", target, own_texts)
    save_state(tmp_path, made, {"same": 1, "old": 3, "changed": 2})
    (place,) = states(tmp_path)
    with pytest.raises(UnsupportedCheckpoint, match="another training: old, changed, new differ"):
        load_state(place, made, {"same": 1, "changed": 3, "new": 4, "came later": None})


@pytest.mark.parametrize("kind", KINDS)
def test_two_workers_have_the_gradients_of_one(target, own_texts, kind):
    """Each adds the other's part."""
    whole = training(kind, target, own_texts)
    loss = whole.gradients()["loss"]
    parts = []
    for rank in range(2):
        made = build(kind, target, own_texts, match_from=16)
        plan = TrainingPlan(steps=8, batch=4, rate=1e-2, seed=1)
        part = TrainingStep(made, plan, Worker(rank=rank, world=2))
        parts.append((part.gradients()["loss"], part))
    assert sum(value for value, _ in parts) == pytest.approx(loss, rel=1e-5)
    grads = [[p.grad for p in made.kind.model.parameters()] for _, made in parts]
    for expected, *own in zip(whole.kind.model.parameters(), *grads, strict=True):
        torch.testing.assert_close(sum(own), expected.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("kind", KINDS)
def test_it_learns_and_the_best_state_is_chosen_by_the_loop(tmp_path, target, own_texts, kind):
    rate = 2e-3 if kind in ("medusa", "hydra") else 2e-2
    made = training(kind, target, own_texts, steps=30, rate=rate, match_from=10**9)
    every = Samples(numbers=np.arange(36), records=np.arange(36))
    before, first = made.examine(), made.kind.losses(made.kind.model, every)["loss"].item()
    for _ in range(30):
        made.step()
    after, last = made.examine(), made.kind.losses(made.kind.model, every)["loss"].item()
    assert last < first
    if kind not in ("medusa", "hydra"):  # heads start as good as a random target lets them be
        assert after["acceptance"] > before["acceptance"]
    assert made.best.score == max(before[SCORE], after[SCORE])
    for figures in (before, after):
        assert 1 <= figures["accepted_length_t0"] <= 4
        assert 0 < figures["agreement"] <= figures["acceptance"] <= 1
        assert 1 <= figures["length_by_laws_t1"] <= 4
        by_laws = figures["length_by_laws_t0"], figures["length_by_laws_t1"]
        assert figures[SCORE] == pytest.approx(sum(by_laws) / 2)
        assert figures["loop_agrees"] == 1
        assert figures["foreseen_length_t0"] == pytest.approx(figures["accepted_length_t0"])
    made.kind.export(made.chosen(), tmp_path / "drafter")
    about = json.loads((tmp_path / "drafter" / "drafter.json").read_text())
    sharpness = about.pop("sharpness", None)
    assert about == {"kind": kind, "depth": 3}
    assert (sharpness is None) if kind == "model" else (len(sharpness) == 3)
    kinds = {path.suffix for path in (tmp_path / "drafter").iterdir()}
    assert kinds <= {".json", ".safetensors"}


def test_a_state_that_drafts_otherwise_than_it_learned_is_marked(target, own_texts, monkeypatch):
    """Its score is the loop's length, however good it is by the laws."""
    made = training("model", target, own_texts, steps=30, rate=2e-2, match_from=10**9)
    for _ in range(30):
        made.step()
    kind = made.kind
    assert kind.exam(made.average)["loop_agrees"] == 1
    write = kind._write

    def broken(model, folder, fitted):
        other = copy.deepcopy(model)
        with torch.no_grad():
            for weight in other.parameters():
                weight.mul_(-1)
        write(other, folder, fitted)

    monkeypatch.setattr(kind, "_write", broken)
    figures = kind.exam(made.average)
    assert figures["loop_agrees"] == 0
    loop = (figures["accepted_length_t0"] + figures["accepted_length_t1"]) / 2
    assert figures[SCORE] == loop < figures["length_by_laws_t1"]


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_exported_can_be_gone_on_with(tmp_path, target, own_texts, kind):
    made = build(kind, target, own_texts)
    generator = torch.Generator().manual_seed(5)
    with torch.no_grad():
        for weight in made.model.parameters():
            weight += 0.05 * torch.randn(weight.shape, generator=generator)
    made.export(made.model, tmp_path / "drafter")
    again = build(kind, target, own_texts, start=str(tmp_path / "drafter"))
    samples = Samples(numbers=np.arange(3), records=np.arange(3))
    losses = [each.losses(each.model, samples)["loss"].item() for each in (made, again)]
    assert losses[0] == pytest.approx(losses[1], rel=1e-6)


def test_a_start_of_another_kind_is_refused(tmp_path, target, own_texts):
    made = build("medusa", target, own_texts)
    made.export(made.model, tmp_path / "drafter")
    told = "a drafter of kind 'eagle' is needed, it holds 'medusa'"
    with pytest.raises(UnsupportedCheckpoint, match=told):
        build("eagle", target, own_texts, start=str(tmp_path / "drafter"))
    with pytest.raises(UnsupportedCheckpoint, match="3 heads: set depth to that"):
        build("medusa", target, own_texts, start=str(tmp_path / "drafter"), course=Course(depth=2))


def test_a_draft_model_of_images_is_no_start_for_texts(tmp_path, target, own_texts):
    raw = {"model_type": "paceline_raster", "architectures": ["RasterForCausalLM"]}
    (tmp_path / "config.json").write_text(json.dumps(raw))
    with pytest.raises(UnsupportedCheckpoint, match="model_type='paceline_raster'; llama, mistral"):
        build("model", target, own_texts, start=str(tmp_path))


def test_texts_that_do_not_fit_are_refused(tmp_path, target):
    file = tmp_path / "texts.parquet"
    write_texts(file, [Text(tokens=(1, 2, 60), num_prompt=1)])
    with pytest.raises(UnsupportedCheckpoint, match="token 60; the target knows 0 to 49"):
        build("model", target, str(file))
    write_texts(file, [Text(tokens=(1, 2, 3), num_prompt=3)])
    with pytest.raises(UnsupportedCheckpoint, match="no text with a prompt"):
        build("model", target, str(file))
    write_texts(file, [Text(tokens=(1, 2, 3), num_prompt=1)] * 4)
    with pytest.raises(UnsupportedCheckpoint, match="4 texts; 4 are kept for exams"):
        build("model", target, str(file))


class Roots:
    """A drafter, with the lengths of the text at each draft."""

    def __init__(self, inner):
        self._inner, self.at = inner, {}

    def __getattr__(self, name):
        return getattr(self._inner, name)

    def propose(self, sequences, shape, context):
        for sequence in sequences:
            self.at.setdefault(sequence.id, []).append(len(sequence.tokens))
        return self._inner.propose(sequences, shape, context)


@pytest.mark.parametrize("kind", KINDS)
def test_the_length_by_laws_is_that_of_the_loop(tmp_path, target, own_texts, kind):
    """At the rounds that the loop took, within the error of sampling."""
    made = training(kind, target, own_texts, steps=20, rate=2e-2)
    for _ in range(20):
        made.step()
    kind_ = made.kind
    kind_.export(made.average, tmp_path / "drafter")
    config = EngineConfig(
        target=str(target),
        drafter=str(tmp_path / "drafter"),
        draft_tokens=3,
        batch_size=8,
        max_length=60,
        memory="64MiB",
    )
    from models.engine import build_drafter as drafter_of

    roots = Roots(drafter_of(config, None, 60))
    loop = build_loop(config, drafter=roots)
    requests = [
        Request(
            id=str(i),
            prompt=(1 + i % 49, 1 + i * 7 % 49, 3),
            sampling=Sampling(max_tokens=40, ignore_eos=True),
            seed=1000 + i,
        )
        for i in range(60)
    ]
    results = {result.id: result.tokens for result in loop.run(requests)}
    texts = [Text(tokens=(*r.prompt, *results[r.id]), num_prompt=3) for r in requests]
    file = tmp_path / "found.parquet"
    write_texts(file, texts)
    judged = build(kind, target, str(file), length=60, start=str(tmp_path / "drafter"))
    judged.num_records = 0
    expected, found, spread = [], [], []
    lengths = judged.lengths_at(judged.model, np.arange(60))  # [B, N], of a chain's first token
    for row, request in enumerate(requests):
        at = roots.at[request.id]
        for here, there in pairwise(at):
            if here + 3 <= len(texts[row].tokens) - 1 and not torch.isnan(lengths[row, here]):
                expected.append(float(lengths[row, here]))
                found.append(there - here)
    assert len(found) > 400
    spread = np.std(np.array(found) - np.array(expected)) / len(found) ** 0.5
    assert abs(np.mean(found) - np.mean(expected)) < 4 * spread
    assert np.mean(found) > 1.05
