"""Penalties count every token before a position once: drafted, accepted, taken back or generated.

The reference is a new processor of the same requests with the tokens written into them. Drafts
repeat tokens, so that a count is more than a presence. Letters: K drafted tokens, V vocabulary.
"""

from dataclasses import replace

import numpy as np
import pytest
import torch

from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import Shape, chain_draft
from models.drafting.draft_models.draft_model import ModelDrafter
from models.drafting.drafter import DraftContext
from models.drafting.parallel.coupling import processed, undecided
from models.drafting.parallel.jacobi import JacobiDrafter
from models.drafting.parallel.window import Start
from models.registry import RULES, load
from models.requests.request import Request, Sampling
from models.requests.sequence import Sequence
from models.sampling.noise import NoiseStore
from models.sampling.processing import Processor
from models.verify.round import Commit, Round, RoundNoise, chain_probabilities
from tests.models.guessing import Prophet
from tests.models.looping import loop_of, run_alone, tokens_of
from tests.models.tiny import TableTarget

CPU = torch.device("cpu")
VOCAB = 4
TARGET = TableTarget(VOCAB, 5, spread=0.7)
TARGET.table += 1.5 * torch.eye(VOCAB)  # likely to say the last token again
PENALTIES = (
    {"frequency_penalty": 0.5},
    {"presence_penalty": 0.8},
    {"repetition_penalty": 1.4},
    {"frequency_penalty": -0.4, "presence_penalty": 0.3, "repetition_penalty": 0.8},
    {"temperature": 0, "frequency_penalty": 0.3},
    {},
)
TEXTS = ([2, 2, 2, 2, 2], [1, 2, 1, 2, 1], [3, 3, 0, 3], [0], [], [2, 2, 2, 1, 2])


def sequences():
    """Requests of all kinds in one batch; the prompts hold drafted tokens too."""
    samplings = [Sampling(max_tokens=99, **penalties) for penalties in PENALTIES]
    return [
        Sequence(Request(id=str(i), prompt=(i % VOCAB, 2, 1), sampling=s, seed=i))
        for i, s in enumerate(samplings)
    ]


def continued(sequence, tokens):
    """The request as if these tokens had been generated."""
    made = Sequence(sequence.request)
    for token in [*sequence.generated, *tokens]:
        made.append(token)
    return made


def afresh(sequence, tokens=(), table=TARGET.table):
    """[V] processed values behind these tokens, counted anew."""
    made = continued(sequence, tokens)
    processor, owner = Processor([made], VOCAB, CPU), np.zeros(1, dtype=np.int64)
    logits = table[made.tokens[-2], made.tokens[-1]][None]
    values = processor(logits, owner, np.array([made.num_generated]))
    return values[0], processor.probabilities(values, owner)[0]


def round_of(members, texts, processor, store, probs=None):
    """A round of chains over the table target."""
    drafts = [chain_draft(np.array(text, dtype=np.int64)) for text in texts]
    if probs is not None:
        drafts = [replace(d, probs=probs.expand(len(d), -1)) for d in drafts]
    rows = []
    for member, text in zip(members, texts, strict=True):
        whole = [*member.tokens, *text]
        rows += [
            TARGET.table[whole[i - 1], whole[i]] for i in range(len(member.tokens) - 1, len(whole))
        ]
    return Round(members, drafts, torch.stack(rows), processor, RoundNoise(members, store))


def test_every_node_of_a_chain_counts_the_tokens_before_it():
    members = sequences()
    processor = Processor(members, VOCAB, CPU)
    round_ = round_of(members, TEXTS, processor, NoiseStore(VOCAB, CPU))
    found = chain_probabilities(round_)
    wanted = [
        afresh(member, text[:depth])[1]
        for member, text in zip(members, TEXTS, strict=True)
        for depth in range(len(text) + 1)
    ]
    assert torch.equal(found, torch.stack(wanted))


@pytest.mark.parametrize("told", ["one-hot", "drawn"])
@pytest.mark.parametrize("rule", RULES)
def test_rounds_leave_the_counts_of_what_was_generated(rule, told):
    """Accepted runs of one token, cut runs, the replacement and the bonus token."""
    members, store, longest = sequences(), NoiseStore(VOCAB, CPU), 0
    processor = Processor(members, VOCAB, CPU)
    probs = torch.full((1, VOCAB), 1 / VOCAB) if told == "drawn" else None
    for turn in range(12):
        texts = [
            [m.tokens[-1]] * 5 if turn % 2 else TEXTS[(turn + i) % 6] for i, m in enumerate(members)
        ]
        commits = load(RULES[rule].where)(round_of(members, texts, processor, store, probs))
        longest = max(longest, *(c.num_accepted for c in commits if len(set(c.tokens)) == 1))
        for owner, member in enumerate(members):
            logits = TARGET.table[member.tokens[-2], member.tokens[-1]][None]
            found = processor(logits, np.array([owner]), np.array([member.num_generated]))[0]
            assert torch.equal(found, afresh(member)[0])
    assert longest >= 3


@pytest.mark.parametrize("sampled", [False, True])
def test_a_draft_model_counts_its_own_guesses_and_takes_them_back(sampled):
    """As deep as five guesses; what it drew them from, and what is left in the processor."""
    members, store = sequences(), NoiseStore(VOCAB, CPU)
    processor, owners = Processor(members, VOCAB, CPU), np.arange(len(members))
    context = DraftContext(processor, RoundNoise(members, store), owners, sampled=sampled)
    drafter = ModelDrafter(TARGET, rows=8, capacity=200)
    drafts = drafter.propose(members, Shape(depth=5), context)
    assert any(len(set(draft.tokens.tolist())) <= 2 for draft in drafts)
    for owner, (member, draft) in enumerate(zip(members, drafts, strict=True)):
        logits = TARGET.table[member.tokens[-2], member.tokens[-1]][None]
        found = processor(logits, np.array([owner]), np.array([0]))[0]
        assert torch.equal(found, afresh(member)[0])
        for depth in range(5 if sampled else 0):
            wanted = afresh(member, draft.tokens[:depth].tolist())[1]
            assert torch.equal(draft.probs[depth], wanted)


@pytest.mark.parametrize("decided", [1, 2, 3])
def test_new_guesses_of_a_window_count_the_old_ones_before_them(decided):
    """Parallel decoding: behind the decided tokens, the drafted path to each node."""
    members = sequences()
    texts = [text if len(text) == 5 else [3] * 5 for text in TEXTS]
    processor = Processor(members, VOCAB, CPU)
    round_ = round_of(members, texts, processor, NoiseStore(VOCAB, CPU))
    commits, wanted = [], []
    for owner, (member, text) in enumerate(zip(members, texts, strict=True)):
        tokens = [*text[: decided - 1], 0]
        processor.observe(np.full(decided, owner), np.array(tokens))
        for token in tokens:
            member.append(token)
        commits.append(Commit(tokens, list(range(decided))))
        for node in range(decided, 6):
            whole = [*member.request.prompt, *text[:node]]
            logits = TARGET.table[whole[-2], whole[-1]][None]
            counted = Processor([continued(member, text[decided:node])], VOCAB, CPU)
            wanted.append(counted(logits, np.zeros(1, dtype=np.int64), np.array([0]))[0])
    found = processed(round_, undecided(round_, commits))
    assert torch.equal(found, torch.stack(wanted))


# Whole generations


def requests(count):
    return [
        Request(
            id=str(i),
            prompt=(i % VOCAB,) * (1 + i % 5),
            sampling=Sampling(max_tokens=1 + (7 * i) % 23, **PENALTIES[i % len(PENALTIES)]),
            seed=i,
        )
        for i in range(count)
    ]


def prophet(width=1, **options):
    def make():
        known = {r.id: r.tokens for r in run_alone(requests(32), target=TARGET)}
        return Prophet(known, VOCAB, **options)

    return make, Shape(depth=5, width=width)


DRAFTERS = {
    "right chains": prophet(),
    "half-right chains": prophet(right=0.8),
    "trees": prophet(width=3, right=0.8),
    "chains that come and go": prophet(right=0.9, absent=0.3, wanders=True),
    "poor chains that come and go": prophet(right=0.3, absent=0.3, wanders=True, seed=2),
    "trees that come and go": prophet(width=2, right=0.9, absent=0.3, wanders=True, seed=1),
    "itself": (lambda: ModelDrafter(TARGET, rows=8, capacity=200), Shape(depth=5)),
    "its trees": (lambda: ModelDrafter(TARGET, rows=8, capacity=200), Shape(depth=4, width=3)),
    "jacobi": (lambda: JacobiDrafter("shared", Start(rule="left")), Shape(depth=6)),
    "lookup": (LookupDrafter, Shape(depth=6)),
}


@pytest.mark.usefixtures("arithmetic", "little_noise_ahead")
def test_requests_with_penalties_get_the_tokens_they_get_alone():
    """Rows move when one ends; halves of the batch take turns while the drafter is elsewhere."""
    expected = tokens_of(run_alone(requests(32), target=TARGET))
    for name, drafter in DRAFTERS.items():
        found = tokens_of(loop_of(drafter, target=TARGET, rows=7).run(requests(32)))
        assert found == expected, name


@pytest.mark.parametrize("seed", range(3))
def test_no_half_of_the_batch_forgets_what_it_generated_with_the_other(seed):
    """The same rows for many rounds, at times together, at times in halves that take turns."""
    penalties = Sampling(max_tokens=40, frequency_penalty=0.6, repetition_penalty=1.2)
    members = [Request(id=str(i), prompt=(i, 2), sampling=penalties, seed=i) for i in range(4)]
    known = run_alone(members, target=TARGET)
    by_id = {r.id: r.tokens for r in known}
    drafter = Prophet(by_id, VOCAB, right=0.4, absent=0.5, wanders=True, seed=seed)
    loop = loop_of((lambda: drafter, Shape(depth=2)), target=TARGET, rows=4)
    assert tokens_of(loop.run(members)) == tokens_of(known)
