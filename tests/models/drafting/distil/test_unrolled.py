"""What is trained is what drafts: unrolled training logits equal those of the run-time drafter."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from models.batch import chain
from models.drafting.distil.build import DraftLessons, build_drafter
from models.drafting.distil.kind import Course
from models.drafting.distil.texts import Text, batch_of, write_texts
from models.drafting.heads.build import build_eagle, build_hydra, build_medusa
from models.drafting.heads.eagle_drafter import Steps
from models.drafting.reading import Reading
from models.engine_config import EngineConfig
from models.requests.request import Request
from models.requests.sequence import Sequence
from models.targets.load import load_target
from models.training.engines.worker import Worker
from models.training.kind import Samples
from tests.models.drafting.heads.random_heads import write_target

DEPTH = 4
SOME = {"draft_vocab": 12}


@pytest.fixture(scope="module")
def target(tmp_path_factory):
    return write_target(tmp_path_factory.mktemp("target"))


def texts_file(folder, count=6, seed=0):
    rng = np.random.default_rng(seed)
    texts = [
        Text(
            tokens=tuple(rng.integers(0, 50, 14 + 3 * i).tolist()),
            num_prompt=1 + 2 * i,
        )
        for i in range(count)
    ]
    file = Path(folder) / "texts.parquet"
    write_texts(file, texts)
    return file, texts


def built(kind, target, folder, depth=DEPTH, **values):
    file, _ = texts_file(folder)
    lessons = DraftLessons(
        kind=kind,
        target=str(target),
        files=(str(file),),
        course=Course(depth=depth, kept=2, exam_tokens=8),
        length=64,
        seed=3,
        **values,
    )
    return build_drafter(lessons, Worker())


def shaken(made):
    """The drafter away from its start, where heads would be the identity."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        for weight in made.model.parameters():
            weight += 0.1 * torch.randn(weight.shape, generator=generator)


def unrolled(made):
    """Logits [B, ., V] by depth, states, and the batch, of the first three texts."""
    numbers = np.arange(3)
    batch = batch_of(made._texts, numbers)
    states = made._teacher.states(batch, numbers)
    with torch.no_grad():
        return made.model(batch.tokens, states), states, batch


def drafted(made, found):
    """Logits [., K] of what can be drafted, from run-time logits [., V]; the others are -inf."""
    ids = made.model.ids
    if ids is None:
        return found
    others = torch.ones(found.shape[-1], dtype=torch.bool).index_fill(0, ids, False)
    assert (found[..., others] == -torch.inf).all()
    return found[..., ids]


def exported(made, target, folder):
    made.export(made.model, folder)
    config = EngineConfig(target=str(target), drafter=str(folder), batch_size=3, memory="64MiB")
    return config


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize(
    ("depth", "values"),
    [(1, {}), (2, {}), (5, {}), (2, SOME), (3, {"width": 32}), (3, {"width": 32, **SOME})],
)
def test_of_eagle_at_every_depth_and_prefix(tmp_path, target, depth, values):
    made = built("eagle", target, tmp_path, depth, **values)
    shaken(made)
    logits, states, batch = unrolled(made)
    assert len(logits) == depth
    config = exported(made, target, tmp_path / "drafter")
    rounding = 1e-5 if "width" in values else 0  # the target's own matrix gives larger logits
    options = {"rows": 3, "max_length": 60, "scratch": 10, "budget": None}
    for row, text in enumerate(batch.texts):
        drafter = build_eagle(config, None, **options)
        for index in range(len(text.tokens) - depth - 1):
            sequence = Sequence(Request(id=f"{index}", prompt=text.tokens[: index + 2]))
            known = states[row, : index + 1, :-1]
            drafter.read([Reading(sequence=sequence, first=0, states=known, top=None)])
            found, own = drafter._read([sequence], last=True)
            steps = Steps(drafter, np.array([drafter._rows[sequence.id].slot]), own)
            for step in range(depth):
                expected = logits[step][row, index]
                own = drafted(made, found[0])
                torch.testing.assert_close(own, expected, rtol=rounding, atol=1e-5)
                if step + 1 < depth:
                    fed = np.array([text.tokens[index + 2 + step]])
                    found = steps.feed_chain(fed, step)
            drafter.forget(sequence.id)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize("values", [{}, SOME])
def test_of_medusa_at_every_head_and_prefix(tmp_path, target, values):
    made = built("medusa", target, tmp_path, **values)
    shaken(made)
    logits, states, batch = unrolled(made)
    drafter = build_medusa(exported(made, target, tmp_path / "drafter"), None)
    for row, text in enumerate(batch.texts):
        found = drafter.model(states[row, : len(text.tokens), -1], DEPTH)  # [N, K, V]
        for head in range(DEPTH):
            expected = logits[head][row, : len(text.tokens)]
            own = drafted(made, found[:, head])
            torch.testing.assert_close(own, expected, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("arithmetic")
@pytest.mark.parametrize(("depth", "values"), [(1, {}), (4, {}), (4, SOME)])
def test_of_hydra_at_every_head_and_prefix(tmp_path, target, depth, values):
    made = built("hydra", target, tmp_path, depth, **values)
    shaken(made)
    logits, states, batch = unrolled(made)
    drafter = build_hydra(exported(made, target, tmp_path / "drafter"), None)
    for row, text in enumerate(batch.texts):
        count = len(text.tokens) - depth - 1
        tokens = np.array(text.tokens)
        steps = drafter.model.start(states[row, :count, -1], tokens[1 : count + 1], depth)
        found = steps.logits  # [indices, V]
        for head in range(depth):
            own = drafted(made, found)
            torch.testing.assert_close(own, logits[head][row, :count], rtol=0, atol=1e-5)
            if head + 1 < depth:
                found = steps.feed_chain(tokens[2 + head : 2 + head + count], head)


@pytest.mark.usefixtures("arithmetic")
def test_of_a_draft_model_at_every_position(tmp_path, target):
    made = built("model", target, tmp_path)
    logits, _, batch = unrolled(made)
    made.export(made.model, tmp_path / "drafter")
    assert (tmp_path / "drafter" / "model.safetensors").stat().st_mode & 0o777 == 0o644
    model = load_target(tmp_path / "drafter", dtype=torch.float32, device="cpu")
    for row, text in enumerate(batch.texts):
        tokens = np.array(text.tokens)
        found = model.score(model.new_cache(1, 64), chain(0, tokens)).logits
        torch.testing.assert_close(found, logits[0][row, : len(tokens)], rtol=0, atol=1e-5)


@pytest.mark.parametrize("kind", ["model", "medusa", "hydra", "eagle"])
def test_the_teachers_laws_are_the_targets(tmp_path, target, kind):
    made = built(kind, target, tmp_path)
    batch = batch_of(made._texts, np.arange(3))
    laws, _, rows = made._taught(batch, np.arange(3))
    model = load_target(target, dtype=torch.float32, device="cpu")
    for row, text in enumerate(batch.texts):
        scores = model.score(model.new_cache(1, 64), chain(0, np.array(text.tokens)))
        expected = scores.logits.log_softmax(-1)
        places = range(text.num_prompt - 1, len(text.tokens) - 1)
        found = laws[rows[row, list(places)]]
        torch.testing.assert_close(found, expected[list(places)], rtol=0, atol=1e-5)
    assert (rows >= 0).sum() == sum(text.num_places for text in batch.texts)


@pytest.mark.parametrize("kind", ["model", "medusa", "hydra", "eagle"])
def test_the_loss_does_not_depend_on_how_samples_are_shared(tmp_path, target, kind):
    made = built(kind, target, tmp_path)
    shaken(made)
    samples = Samples(numbers=np.arange(4), records=np.array([2, 0, 3, 1]))
    whole = made.losses(made.model, samples)["loss"]
    parts = [made.losses(made.model, samples[slice(i, i + 1)])["loss"] for i in range(4)]
    torch.testing.assert_close(sum(parts), whole, rtol=1e-5, atol=1e-5)
    weights = sum(made.weight(samples[slice(i, i + 1)]) for i in range(4))
    assert made.weight(samples) == pytest.approx(weights)
    one = replace(samples, numbers=np.arange(1), records=np.array([2]))
    text = made._texts[2]
    first = 1 if kind == "model" else 2
    decays = [0.8**k for k in range(1 if kind == "model" else DEPTH)]
    expected = sum(
        decay * (len(text.tokens) - max(text.num_prompt, first + k))
        for k, decay in enumerate(decays)
    )
    assert made.weight(one) == pytest.approx(expected / sum(decays))
