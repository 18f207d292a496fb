"""Train the students that are shipped: examples/models/digits-raster-student and -scale-student.

The stages of `paceline distill student` without Ray, on one thread: the target makes the records in
this process. The weights are stored in bfloat16. The best student so far is written after each
exam. The raster target's student takes a quarter of an hour on one core. The other one is trained
by --target examples/models/digits-scale --records 6000 --steps 1200, in twenty minutes.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tqdm import tqdm

from models.engine import build_loop
from models.engine_config import EngineConfig
from models.requests.request import Request, Sampling
from models.sampling.flow import FlowMap
from models.students.checkpoint import save_student
from models.students.config import MadeFor
from models.students.kind import StudentKind
from models.students.losses import pictures_of
from models.students.methods import BY_SCORE, FLOW_MAP, METHODS, TWO_HEAD
from models.students.networks.critic import critic_of
from models.students.networks.generator import Generator
from models.students.networks.layers import with_layers
from models.students.pairs import Records, make_pairs
from models.students.prior import token_shares
from models.students.score_kind import ScoreKind
from models.students.start import AnyStudent, config_of, student_of
from models.students.teacher import laws, load_teacher
from models.targets.next_scale.model import NextScaleConfig
from models.tokenizers import TOKENIZER_FOLDER
from models.training.alternating import step_of
from models.training.raster import RasterConfig
from models.training.step import TrainingPlan, TrainingStep
from pipelines.generate.fingerprint import checkpoint_digest

HERE = Path(__file__).parent / "models"
FIRST_SEED = 1_000_000  # of the records
KEPT = 256  # records of the exams, at most a tenth of all
DRAWS = 2


def make_records(target: str, sizes: RasterConfig | NextScaleConfig, count: int) -> Records:
    """The target's images, with classes in turn."""
    loop = build_loop(EngineConfig(target=target, batch_size=128))
    sampling = Sampling(max_tokens=sizes.num_tokens)
    classes = torch.arange(count) % sizes.num_classes
    seeds = FIRST_SEED + torch.arange(count)
    requests = [
        Request(id=str(i), prompt=(sizes.vocab_size + c,), sampling=sampling, seed=seed)
        for i, (c, seed) in enumerate(zip(classes.tolist(), seeds.tolist(), strict=True))
    ]
    found = {result.id: result.tokens for result in loop.run(requests)}
    tokens = torch.tensor([found[request.id] for request in requests])
    return Records(classes=classes, tokens=tokens, seeds=seeds.numpy())


def repeated(records: Records, draws: int, kept: int) -> Records:
    """`draws` times all records but the last `kept`, each time with other noise, then those."""
    end = len(records) - kept
    rows = torch.cat([*[torch.arange(end)] * draws, torch.arange(end, len(records))])
    draw = np.arange(len(rows)) // end
    seeds = records.seeds[rows.numpy()] + draw * len(records)
    return Records(classes=records.classes[rows], tokens=records.tokens[rows], seeds=seeds)


def lessons(
    target: str, method: str, count: int, draws: int, layers: int | None
) -> StudentKind | ScoreKind:
    """A student before its first step, and all that it learns from."""
    teacher = load_teacher(target)
    sizes = teacher.config
    records = make_records(target, sizes, count)
    prior = token_shares(
        records.classes,
        records.tokens,
        num_classes=sizes.num_classes,
        vocab_size=sizes.vocab_size,
    )
    kept = min(KEPT, count // 10)
    teach = partial(laws, teacher)
    made_for = MadeFor(path=Path(target).name, digest=checkpoint_digest(target))
    start = with_layers(teacher, layers)
    student = student_of(start, config_of(start, made_for, method=method), prior)
    if isinstance(student, Generator):
        return ScoreKind(student, critic_of(teacher, student.config), teach, records, kept=kept)
    with tqdm(total=draws * (count - kept) + kept, desc="noise", unit="image") as bar:
        pairs = make_pairs(
            repeated(records, draws, kept), teach, FlowMap(teacher.codebook), prior, done=bar.update
        )
    pictures = pictures_of(target) if method == TWO_HEAD else None
    return StudentKind(student, teach, pairs, kept=kept, pictures=pictures)


def main(arguments: list[str] | None = None) -> None:
    """Train, and write the student."""
    given = parse(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    plan = TrainingPlan(steps=given.steps, batch=given.batch, rate=given.rate)
    sizes = (given.records, given.draws, given.layers)
    training = step_of(lessons(given.target, given.method, *sizes), plan)
    told: dict[str, Any] = vars(given) | {
        "target": Path(given.target).name,
        "output": given.output.name,
        "exams": [],
    }
    losses = []
    with tqdm(range(plan.steps), desc="train", unit="step") as bar:
        for step in bar:
            losses.append(training.step()["loss"])
            if training.done % given.exam_every and step + 1 < plan.steps:
                continue
            recent = losses[-given.exam_every :]
            exam = {"step": training.done, "loss": sum(recent) / len(recent)} | training.examine()
            told["exams"].append(exam)
            bar.set_postfix_str(f"loss {exam['loss']:.3f}, score {exam['score']:.4f}")
            told["cpu_seconds"] = round(time.process_time())
            write(training, Path(given.target), given.output, told)


def write(training: TrainingStep, target: Path, output: Path, told: dict[str, Any]) -> None:
    """The best student so far, and how it was made."""
    student: Any = training.chosen()
    made: AnyStudent = student
    save_student(made, output, tokenizer=target / TOKENIZER_FOLDER, dtype=torch.bfloat16)
    (output / "report.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


def parse(arguments: list[str] | None) -> argparse.Namespace:
    """The sizes of the raster target's shipped student, or others."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add = parser.add_argument
    add("--target", default=str(HERE / "digits-raster"))
    add("--output", type=Path, help="default: TARGET-student, or TARGET-METHOD")
    add("--method", choices=METHODS, default=FLOW_MAP)
    add("--layers", type=int, default=3, help="of the target's, spread evenly")
    add("--records", type=int, default=8000)
    add("--draws", type=int, help=f"times that noise is drawn for each record (default: {DRAWS})")
    add("--steps", type=int, default=2500)
    add("--batch", type=int, default=64)
    add("--rate", type=float, default=1.5e-3, help="peak learning rate of AdamW")
    add("--exam-every", type=int, default=50)
    given = parser.parse_args(arguments)
    kind = "student" if given.method == FLOW_MAP else given.method
    given.output = given.output or Path(f"{given.target}-{kind}")
    if given.method == BY_SCORE and given.draws is not None:
        parser.error(f"--draws: none with --method {BY_SCORE}, which draws noise in every step")
    if given.draws is None:
        given.draws = 0 if given.method == BY_SCORE else DRAWS
    return given


if __name__ == "__main__":
    main()
