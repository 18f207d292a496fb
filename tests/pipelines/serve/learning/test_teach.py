"""A round of training on recorded rows: it gains, and goes on where it was killed."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from actors.messages import Row
from models.drafting.distil.build import DraftLessons, build_drafter
from models.drafting.distil.kind import Course as DraftCourse
from models.drafting.distil.texts import Text, write_texts
from models.drafting.folder_kind import folder_kind, num_heads
from models.engine import build_loop
from models.engine_config import EngineConfig
from models.errors import UnsupportedCheckpoint
from models.requests.request import Request, Sampling
from models.training.checkpoint import read_told, states
from models.training.engines.worker import Worker
from pipelines.serve.learning.lesson import Course, Lesson
from pipelines.serve.learning.rows import RowStore
from pipelines.serve.learning.teach import TRAIN, teach
from pipelines.serve.learning.verdict import DRAFTER, read_verdict

COURSE = Course(steps=12, batch=4, rate=2e-3, length=40, least_held_out=2, save_every=4)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    """As a round's process has: on shared cores, threads wait for each other."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module")
def lesson(checkpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Lesson:
    """Of answers of the tiny target, at two temperatures."""
    loop = build_loop(EngineConfig(target=checkpoints["target"], batch_size=8, threads=1))
    requests = [
        Request(
            id=str(i),
            prompt=(i, i + 1, i + 2),
            sampling=Sampling(max_tokens=16, temperature=i % 2, ignore_eos=True),
            seed=i,
        )
        for i in range(48)
    ]
    store = RowStore(tmp_path_factory.mktemp("learned") / "rows")
    for request, result in zip(requests, loop.run(requests), strict=True):
        assert request.id == result.id
        row = Row(
            prompt=request.prompt,
            tokens=result.tokens,
            seed=request.seed,
            temperature=request.sampling.temperature,
        )
        store.add([row])
    store.flush()
    return Lesson(
        target=checkpoints["target"],
        digest="d",
        present=checkpoints["draft"],
        start=checkpoints["draft"],
        rows=str(store.folder),
        depth=4,
        number=1,
        course=COURSE,
    )


@pytest.mark.slow
def test_a_killed_round_goes_on_and_gains_the_same(tmp_path: Path, lesson: Lesson) -> None:
    for name in ("whole", "killed"):
        lesson.write(tmp_path / name)
    teach(tmp_path / "whole")
    left = iter([True] * 6)
    teach(tmp_path / "killed", go_on=lambda: next(left, False))
    assert read_verdict(tmp_path / "killed") is None
    assert read_told(states(tmp_path / "killed" / TRAIN)[-1])["step"] == 4
    teach(tmp_path / "killed")
    found, other = (read_verdict(tmp_path / name) for name in ("whole", "killed"))
    assert found is not None
    assert 1 < found.present < found.new
    assert found == other
    data = [
        (tmp_path / n / DRAFTER / "model.safetensors").read_bytes() for n in ("whole", "killed")
    ]
    assert data[0] == data[1]


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["medusa", "hydra", "eagle"])
def test_drafters_that_read_the_target_learn_too(tmp_path: Path, lesson: Lesson, kind: str) -> None:
    """By states that the frozen copy of the target computes from the recorded texts."""
    drafter = new_drafter(tmp_path / "new", lesson, kind)
    depth = num_heads(drafter)
    assert depth == (None if kind == "eagle" else lesson.depth)
    again = dataclasses.replace(lesson, present=str(drafter), start=str(drafter))
    again.write(tmp_path / "round")
    teach(tmp_path / "round")
    found = read_verdict(tmp_path / "round")
    assert found is not None
    assert min(found.present, found.new) >= 1  # too few steps for a sure gain
    trained = tmp_path / "round" / DRAFTER
    assert folder_kind(trained) == folder_kind(drafter)
    weights = [(each / "model.safetensors").read_bytes() for each in (drafter, trained)]
    assert weights[0] != weights[1]
    told = {}
    for name in ("none", str(trained)):
        config = EngineConfig(target=lesson.target, drafter=name, batch_size=2, threads=1)
        request = Request(id="a", prompt=(1, 2, 3), sampling=Sampling(max_tokens=20), seed=3)
        told[name] = [result.tokens for result in build_loop(config).run([request])]
    assert told["none"] == told[str(trained)]


def new_drafter(folder: Path, lesson: Lesson, kind: str) -> Path:
    """Untrained."""
    texts = folder / "texts.parquet"
    folder.mkdir()
    write_texts(texts, [Text(tokens=tuple(range(20)), num_prompt=2)] * 2)
    lessons = DraftLessons(
        kind=kind,
        target=lesson.target,
        files=(str(texts),),
        course=DraftCourse(depth=lesson.depth, kept=0),
        length=20,
        seed=0,
    )
    made = build_drafter(lessons, Worker())
    made.export(made.model, folder / DRAFTER)
    return folder / DRAFTER


def test_too_few_prompts_judge_nothing(tmp_path: Path, lesson: Lesson) -> None:
    few = dataclasses.replace(lesson, course=dataclasses.replace(COURSE, least_held_out=99))
    few.write(tmp_path)
    with pytest.raises(UnsupportedCheckpoint, match="99 held-out prompts"):
        teach(tmp_path)


def test_chances_at_any_temperature() -> None:
    from models.metrics.agreement import agreement_at, agreement_on

    torch.manual_seed(0)
    p, q = torch.randn(2, 3, 5).log_softmax(-1)
    tokens, told = torch.tensor([0, 1, 2]), torch.tensor([1.0, 0.5, 0.0])
    found = agreement_on(p, q, tokens, told)
    assert found[0] == pytest.approx(float(agreement_at(p, q)[0, 0]))
    sharper = agreement_at((2 * p).log_softmax(-1), (2 * q).log_softmax(-1))
    assert found[1] == pytest.approx(float(sharper[1, 1]))
    assert found[2] == float(q[2].argmax() == 2)
    near = agreement_on(p, q, p.argmax(-1), torch.full((3,), 0.01))
    assert near.round().tolist() == (p.argmax(-1) == q.argmax(-1)).float().tolist()
