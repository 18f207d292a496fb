"""Teachers that are tables: laws of two or three binary tokens, known exactly."""

import numpy as np
import torch

from models.sampling.flow import FlowMap
from models.students.config import MadeFor, StudentConfig
from models.students.kind import StudentKind
from models.students.methods import BY_SCORE, FLOW_MAP
from models.students.networks.critic import Critic
from models.students.pairs import Records, make_pairs
from models.students.prior import token_shares
from models.students.score_kind import ScoreKind
from models.students.start import new_student
from models.training.alternating import step_of
from models.training.step import TrainingPlan, TrainingStep

CODES = torch.tensor([[-1.0], [1.0]])
MADE_FOR = MadeFor(path="table", digest="0" * 32)


def equal_laws(classes, tokens):
    """Two tokens: the second is the first."""
    return _laws(tokens, lambda t: t[:, 0])


def parity_laws(classes, tokens):
    """Three tokens: the last is the exclusive or of the others."""
    return _laws(tokens, lambda t: t[:, 0] ^ t[:, 1])


def _laws(tokens, last):
    logits = torch.zeros(*tokens.shape, 2)
    logits[:, -1] = -torch.inf
    logits[torch.arange(len(tokens)), -1, last(tokens)] = 0
    return logits


def records_of(length, last, count=2000, seed=0):
    tokens = torch.randint(2, (count, length), generator=torch.Generator().manual_seed(seed))
    tokens[:, -1] = last(tokens)
    classes = torch.zeros(count, dtype=torch.int64)
    return Records(classes=classes, tokens=tokens, seeds=np.arange(count))


EQUAL = (equal_laws, 2, lambda t: t[:, 0])
PARITY = (parity_laws, 3, lambda t: t[:, 0] ^ t[:, 1])


def small_student(length, width=16, seed=0, method=FLOW_MAP):
    torch.manual_seed(seed)
    config = StudentConfig(
        target=MADE_FOR, vocab_size=2, code_width=1, num_classes=1, grid_width=length,
        grid_height=1, width=width, inner_width=2 * width, num_layers=1, num_heads=2, method=method,
    )  # fmt: skip
    return new_student(config, CODES, torch.full((1, length, 2), 0.5))


def training_of(
    case,
    *,
    steps,
    batch=64,
    rate=1e-2,
    count=2000,
    worker=None,
    width=16,
    kept=0,
    engine=None,
    method=FLOW_MAP,
):
    laws, length, last = case
    records, chart = records_of(length, last, count), FlowMap(CODES)
    student = small_student(length, width, method=method)
    student.prior.copy_(token_shares(records.classes, records.tokens, num_classes=1, vocab_size=2))
    plan = TrainingPlan(steps=steps, batch=batch, rate=rate)
    if method == BY_SCORE:
        critic = Critic(student.config, CODES)
        return step_of(ScoreKind(student, critic, laws, records, kept=kept), plan, worker, engine)
    pairs = make_pairs(records, laws, chart, student.prior)
    return TrainingStep(StudentKind(student, laws, pairs, kept=kept), plan, worker, engine)
