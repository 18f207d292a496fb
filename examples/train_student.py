"""Train the student of digits-raster that is shipped: examples/models/digits-raster-student.

The stages of `paceline distill student` without Ray, on one thread: the target makes the records in
this process. The weights are stored in bfloat16. Takes half an hour on one core.
"""

from __future__ import annotations

import argparse
import json
from functools import partial
from pathlib import Path

import torch
from tqdm import tqdm

from models.engine import build_loop
from models.engine_config import EngineConfig
from models.requests.request import Request, Sampling
from models.sampling.flow import FlowMap
from models.students.checkpoint import save_student
from models.students.config import MadeFor
from models.students.kind import StudentKind
from models.students.pairs import Records, make_pairs
from models.students.prior import token_shares
from models.students.start import config_of, student_of
from models.students.teacher import laws, load_teacher
from models.targets.next_scale.model import NextScaleConfig
from models.tokenizers import TOKENIZER_FOLDER
from models.training.raster import RasterConfig
from models.training.step import TrainingPlan, TrainingStep
from pipelines.generate.fingerprint import checkpoint_digest

HERE = Path(__file__).parent / "models"
FIRST_SEED = 1_000_000  # of the records
LEARNED = 0.4  # share of the records that are learned from; all count for the first guesses


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


def train(target: str, plan: TrainingPlan, count: int) -> tuple[TrainingStep, float]:
    """The training after its last step, and the mean loss of its last tenth."""
    teacher = load_teacher(target)
    sizes = teacher.config
    records = make_records(target, sizes, count)
    prior = token_shares(
        records.classes,
        records.tokens,
        num_classes=sizes.num_classes,
        vocab_size=sizes.vocab_size,
    )
    some = slice(0, max(1, round(LEARNED * count)))
    learned = Records(
        classes=records.classes[some], tokens=records.tokens[some], seeds=records.seeds[some]
    )
    teach = partial(laws, teacher)
    pairs = make_pairs(learned, teach, FlowMap(teacher.codebook), prior)
    made_for = MadeFor(path=Path(target).name, digest=checkpoint_digest(target))
    said = config_of(teacher, made_for)
    training = TrainingStep(StudentKind(student_of(teacher, said, prior), teach, pairs), plan)
    losses = [training.step()["loss"] for _ in tqdm(range(plan.steps), desc="train", unit="step")]
    last = losses[-max(1, plan.steps // 10) :]
    return training, sum(last) / len(last)


def main(arguments: list[str] | None = None) -> None:
    """Train, and write the student."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--target", default=str(HERE / "digits-raster"))
    parser.add_argument("--output", type=Path, default=HERE / "digits-raster-student")
    parser.add_argument("--records", type=int, default=16_000)
    parser.add_argument("--steps", type=int, default=700)
    parser.add_argument("--batch", type=int, default=32)
    given = parser.parse_args(arguments)
    torch.set_num_threads(1)
    torch.manual_seed(0)
    plan = TrainingPlan(steps=given.steps, batch=given.batch)
    training, loss = train(given.target, plan, given.records)
    tokenizer = Path(given.target) / TOKENIZER_FOLDER
    save_student(training.average, given.output, tokenizer=tokenizer, dtype=torch.bfloat16)
    told = {"records": given.records, "steps": plan.steps, "batch": plan.batch, "loss": loss}
    (given.output / "report.json").write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
