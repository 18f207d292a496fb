"""`match` walks a tree as plain decoding would go: deep accepts, twins, and ends inside a draft.

Rounds are built by hand from a table target, so every tree shape can be tried.
"""

import numpy as np
import pytest
import torch

from models.drafting.draft import EMPTY, Draft, chain_draft, depths
from models.requests.request import Request, Sampling
from models.requests.sequence import Sequence
from models.sampling.noise import NoiseStore, Purpose, gumbel, row_keys
from models.sampling.processing import Processor
from models.verify.match import match
from models.verify.round import Round, RoundNoise
from tests.models.tiny import TableTarget

CPU = torch.device("cpu")
TARGET = TableTarget(5, seed=3)
PENALTIES = {"presence_penalty": 0.8, "frequency_penalty": 0.4, "repetition_penalty": 1.3}
SETTINGS = {
    "plain": {},
    "greedy": {"temperature": 0},
    "filters": {"top_k": 3, "top_p": 0.8, "min_p": 0.05, "temperature": 1.4},
    "penalties": PENALTIES,
    "greedy with penalties": {"temperature": 0, **PENALTIES},
}


def sequence_of(sampling, *, seed=0, prompt=(1, 2), eos=(), decode=None):
    request = Request(id=str(seed), prompt=prompt, sampling=sampling, seed=seed)
    return Sequence(request, eos=eos, decode=decode)


def plain(sampling, count, **options):
    """Tokens by evaluating the shared function position by position, written out."""
    sequence = sequence_of(sampling, **options)
    while sequence.num_generated < count and sequence.finish_reason is None:
        logits = TARGET.table[sequence.tokens[-2], sequence.tokens[-1]][None]
        processor = Processor([sequence], TARGET.vocab_size, CPU)
        owner = np.zeros(1, dtype=np.int64)
        probs = processor.probabilities(
            processor(logits, owner, np.array([sequence.num_generated])), owner
        )
        at = np.array([len(sequence.tokens)])
        noise = gumbel(
            row_keys(np.array([sequence.request.seed]), at, Purpose.TOKEN), TARGET.vocab_size, CPU
        )
        sequence.append(int((probs.log() + noise).argmax()))
    return sequence.generated


def play(sequences, drafts):
    """One round of `match` over the table target: the commits."""
    rows = []
    for sequence, draft in zip(sequences, drafts, strict=True):
        paths = [tuple(sequence.tokens)]
        for parent, token in zip(draft.parents.tolist(), draft.tokens.tolist(), strict=True):
            paths.append((*paths[parent + 1], token))
        rows += [TARGET.table[p[-2], p[-1]] for p in paths]
    noise = RoundNoise(sequences, NoiseStore(TARGET.vocab_size, CPU))
    processor = Processor(sequences, TARGET.vocab_size, CPU)
    return match(Round(sequences, drafts, torch.stack(rows), processor, noise))


def tree(*nodes):
    """(token, parent) pairs as a draft."""
    tokens, parents = np.array(nodes, dtype=np.int64).reshape(-1, 2).T
    return Draft(tokens=tokens, parents=parents)


def random_tree(rng, path, size):
    """A tree in which the right path may hide, with wrong and twin branches around it."""
    nodes, tip = [], -1
    right = list(path)
    for i in range(size):
        if right and rng.random() < 0.5:
            nodes.append((right.pop(0), tip))
            tip = i
        else:
            nodes.append((int(rng.integers(0, 5)), int(rng.integers(-1, i)) if i else -1))
    return tree(*nodes)


def followed(draft, path):
    """How many tokens of the path the tree holds from its root on."""
    nodes, count = {-1}, 0
    for token in path:
        pairs = zip(draft.parents.tolist(), draft.tokens.tolist(), strict=True)
        nodes = {i for i, (p, t) in enumerate(pairs) if p in nodes and t == token}
        if not nodes:
            break
        count += 1
    return count


@pytest.mark.parametrize("setting", SETTINGS)
def test_any_tree_yields_the_tokens_of_plain_decoding(setting):
    sampling, rng = Sampling(max_tokens=40, **SETTINGS[setting]), np.random.default_rng(1)
    for trial in range(8):
        seeds = range(4 * trial, 4 * trial + 4)
        expected = [plain(sampling, 15, seed=s) for s in seeds]
        drafts = [random_tree(rng, e, int(rng.integers(0, 14))) for e in expected]
        sequences = [sequence_of(sampling, seed=s) for s in seeds]
        for sequence, draft, commit, right in zip(
            sequences, drafts, play(sequences, drafts), expected, strict=True
        ):
            count = len(commit.tokens)
            assert commit.tokens == right[:count]
            assert sequence.generated == right[:count]
            assert commit.num_accepted <= followed(draft, right)
            assert_path_is_right(draft, commit)


def assert_path_is_right(draft, commit):
    """The path starts at the root, follows parents, and carries the tokens before the last."""
    assert commit.path[0] == 0
    for above, node, token in zip(commit.path, commit.path[1:], commit.tokens, strict=False):
        assert draft.parents[node - 1] == above - 1
        assert draft.tokens[node - 1] == token
    assert len(commit.path) == len(commit.tokens)


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_chain_that_is_right_is_taken_whole(setting):
    sampling = Sampling(max_tokens=40, **SETTINGS[setting])
    right = plain(sampling, 9, seed=4)
    commits = play([sequence_of(sampling, seed=4)], [chain_draft(np.array(right[:8]))])
    assert commits[0].tokens == right
    assert commits[0].num_accepted == 8


@pytest.mark.parametrize("setting", SETTINGS)
def test_a_deep_branch_among_wrong_ones_is_found(setting):
    sampling = Sampling(max_tokens=40, **SETTINGS[setting])
    right = plain(sampling, 5, seed=6)
    nodes = []
    tip = -1
    for token in right[:4]:
        wrong = [(t, tip) for t in range(5) if t != token]
        nodes += [*wrong, (token, tip)]
        tip = len(nodes) - 1
    commits = play([sequence_of(sampling, seed=6)], [tree(*nodes)])
    assert commits[0].tokens == right
    assert commits[0].path == [0, 5, 10, 15, 20]


def test_of_twins_the_first_is_walked():
    """Equal children of one node: a drafter's waste, never an error."""
    sampling = Sampling(max_tokens=40)
    a, b, c = plain(sampling, 3, seed=2)
    twins = tree((a, -1), (a, -1), (b, 0), (b, 0), (b, 1))
    commit = play([sequence_of(sampling, seed=2)], [twins])[0]
    assert commit.tokens == [a, b, c]
    assert commit.path == [0, 1, 3]
    hidden = tree((a, -1), (a, -1), (b, 1))  # the right path hangs on the second twin
    commit = play([sequence_of(sampling, seed=2)], [hidden])[0]
    assert commit.tokens == [a, b]
    assert commit.path == [0, 1]


def test_no_draft_yields_one_token():
    commit = play([sequence_of(Sampling(), seed=1)], [EMPTY])[0]
    assert commit.tokens == plain(Sampling(), 1, seed=1)
    assert commit.path == [0]


def test_requests_of_one_batch_stop_at_different_depths():
    names = list(SETTINGS)
    samplings = [Sampling(max_tokens=40, **SETTINGS[n]) for n in names]
    right = [plain(s, 6, seed=i) for i, s in enumerate(samplings)]
    drafts = []
    for i, tokens in enumerate(right):  # wrong at position i
        guess = [*tokens[:i], (tokens[i] + 1) % 5, *tokens[i + 1 : 5]][:5]
        drafts.append(chain_draft(np.array(guess)))
    sequences = [sequence_of(s, seed=i) for i, s in enumerate(samplings)]
    commits = play(sequences, drafts)
    assert [c.num_accepted for c in commits] == [0, 1, 2, 3, 4]
    assert [c.tokens for c in commits] == [r[: i + 1] for i, r in enumerate(right)]


# Ends inside a draft


def spell(tokens):
    return "".join("abcde"[t] for t in tokens)


def ending(sampling, **options):
    """A round whose draft is right for 8 tokens: what was taken of it."""
    free = Sampling(max_tokens=40)
    right = plain(free, 9, seed=12)
    sequence = sequence_of(sampling(right), seed=12, **options)
    commit = play([sequence], [chain_draft(np.array(right[:8]))])[0]
    return right, sequence, commit


def first_of(right, after=2):
    """A position > after whose token did not occur before."""
    return next(i for i in range(after, 9) if right[i] not in right[:i])


@pytest.mark.parametrize("by", ["eos", "token"])
def test_a_stop_token_ends_a_draft(by):
    right = plain(Sampling(max_tokens=40), 9, seed=12)
    at = first_of(right)
    stop = {} if by == "eos" else {"stop_token_ids": (right[at],)}
    eos = (right[at],) if by == "eos" else ()
    _, sequence, commit = ending(lambda _: Sampling(max_tokens=40, **stop), eos=eos)
    assert commit.tokens == right[: at + 1]
    assert sequence.finish_reason == "stop"


def test_max_tokens_end_a_draft():
    right, sequence, commit = ending(lambda _: Sampling(max_tokens=3))
    assert commit.tokens == right[:3]
    assert sequence.finish_reason == "length"


def test_a_stop_string_in_the_middle_of_a_draft():
    right, sequence, commit = ending(
        lambda right: Sampling(max_tokens=40, stop=(spell(right[2:5]),)), decode=spell
    )
    assert commit.tokens == right[: spell(right).index(spell(right[2:5])) + 3]
    assert sequence.stop_text == spell(right[2:5])


def test_the_minimum_is_kept_along_the_draft():
    """EOS is excluded at the drafted positions below the minimum and allowed at those after."""
    sampling = Sampling(max_tokens=40, min_tokens=4)
    for seed in range(30):
        right = plain(sampling, 9, seed=seed, eos=(0,))
        assert 0 not in right[:4]
        sequence = sequence_of(sampling, seed=seed, eos=(0,))
        commit = play([sequence], [chain_draft(np.array(right[:8]))])[0]
        assert commit.tokens == right


def test_depth_of_the_last_token_follows_the_tree():
    draft = tree((1, -1), (2, -1), (3, 0))
    assert depths(draft.parents).tolist() == [1, 1, 2]
    round_ = Round(
        [sequence_of(Sampling()), sequence_of(Sampling())],
        [draft, EMPTY],
        torch.zeros(5, 5),
        Processor([sequence_of(Sampling())] * 2, 5, CPU),
        RoundNoise([sequence_of(Sampling())] * 2, NoiseStore(5, CPU)),
    )
    owners, levels = round_.nodes()
    assert owners.tolist() == [0, 0, 0, 0, 1]
    assert levels.tolist() == [0, 1, 1, 2, 0]
    assert round_.starts.tolist() == [0, 4]
