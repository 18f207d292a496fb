"""Prompt lookup: the suffix automaton against brute force, and what is proposed."""

import numpy as np
import pytest

from models.drafting.copies.lookup import LookupDrafter, SuffixAutomaton
from models.drafting.draft import Shape
from models.requests.request import Request, Sampling
from models.requests.sequence import Sequence


def longest_repeat(tokens):
    """Length of the longest suffix that also occurs earlier (it may overlap itself)."""
    for length in range(len(tokens) - 1, 0, -1):
        suffix = tokens[-length:]
        if any(tokens[i : i + length] == suffix for i in range(len(tokens) - length)):
            return length
    return 0


@pytest.mark.parametrize("vocab_size", [1, 2, 3, 8])
def test_the_longest_suffix_with_an_earlier_occurrence(vocab_size):
    rng = np.random.default_rng(vocab_size)
    for _ in range(8):
        automaton, tokens = SuffixAutomaton(), []
        for token in rng.integers(0, vocab_size, 60).tolist():
            automaton.extend(token)
            tokens.append(token)
            length, end = automaton.match
            assert length == longest_repeat(tokens)
            if length:
                assert end < len(tokens)
                assert tokens[end - length : end] == tokens[-length:]
        assert automaton.size == len(tokens)


def test_a_repeated_passage_is_followed_to_its_end():
    passage = list(range(10, 40))
    automaton = SuffixAutomaton()
    for token in [*passage, 1, 2, *passage]:
        automaton.extend(token)
    assert automaton.match == (30, 30)


def test_states_stay_linear():
    automaton = SuffixAutomaton()
    for token in np.random.default_rng(0).integers(0, 3, 2000).tolist():
        automaton.extend(token)
    assert len(automaton._next) <= 2 * 2000


def sequence_of(tokens, *, name="a", max_tokens=50):
    sampling = Sampling(max_tokens=max_tokens)
    return Sequence(Request(id=name, prompt=tuple(tokens), sampling=sampling))


def propose(drafter, sequences, depth=8):
    return drafter.propose(sequences, Shape(depth=depth), None)  # needs no context


def test_the_continuation_follows_an_occurrence():
    rng = np.random.default_rng(5)
    for _ in range(300):
        tokens = rng.integers(0, 4, int(rng.integers(1, 40))).tolist()
        draft = propose(LookupDrafter(), [sequence_of(tokens)])[0]
        length = longest_repeat(tokens)
        assert bool(len(draft)) == (length > 0)
        if not len(draft):
            continue
        assert draft.is_chain
        assert draft.probs is None
        assert len(draft) <= min(8, 2 * length - 1)
        guessed = draft.tokens.tolist()
        places = [
            i for i in range(length, len(tokens)) if tokens[i - length : i] == tokens[-length:]
        ]
        text = [*tokens, *guessed]  # a copy may go on with what it has copied
        assert any(text[i : i + len(guessed)] == guessed for i in places)


def test_a_copy_goes_on_with_itself():
    draft = propose(LookupDrafter(), [sequence_of([9, 1, 2, 3, 1, 2, 3, 1, 2, 3])])[0]
    assert draft.tokens.tolist() == [1, 2, 3, 1, 2, 3, 1, 2]
    draft = propose(LookupDrafter(), [sequence_of([9, 5, 5, 5])])[0]
    assert draft.tokens.tolist() == [5, 5, 5]


def test_a_short_match_is_followed_a_short_way():
    for length, guesses in ((1, 1), (2, 3), (3, 5)):
        text = [*range(20), 90, *range(length)]
        assert len(propose(LookupDrafter(), [sequence_of(text)])[0]) == guesses


def test_guesses_cover_the_continuation_that_is_known():
    text = [*range(10, 30), 5, *range(10, 16)]
    draft = propose(LookupDrafter(), [sequence_of(text)])[0]
    assert draft.tokens.tolist() == [16, 17, 18, 19, 20, 21, 22, 23]


def test_a_draft_grows_with_the_output():
    drafter, sequence = LookupDrafter(), sequence_of([1, 2, 3, 4, 9])
    assert not len(propose(drafter, [sequence])[0])
    for token in (1, 2):
        sequence.append(token)
    assert propose(drafter, [sequence])[0].tokens.tolist()[:2] == [3, 4]
    sequence.append(3)
    assert propose(drafter, [sequence])[0].tokens.tolist()[:2] == [4, 9]


def test_no_guess_beyond_what_may_be_emitted():
    text = [*range(10), *range(5)]
    assert len(propose(LookupDrafter(), [sequence_of(text, max_tokens=3)])[0]) == 2
    assert len(propose(LookupDrafter(), [sequence_of(text, max_tokens=1)])[0]) == 0
    assert len(propose(LookupDrafter(), [sequence_of(text)], depth=4)[0]) == 4


def test_requests_do_not_see_each_others_text():
    drafter = LookupDrafter()
    first, second = sequence_of([1, 2, 3, 4, 1, 2]), sequence_of([7, 8, 1, 2], name="b")
    drafts = propose(drafter, [first, second])
    assert [len(d) for d in drafts] == [3, 0]


def test_a_request_that_comes_back_is_read_anew():
    drafter = LookupDrafter()
    propose(drafter, [sequence_of([1, 2, 3, 4, 1, 2])])
    drafter.forget("a")
    drafter.forget("a")  # gone already
    assert not len(propose(drafter, [sequence_of([5, 6, 1, 2])])[0])
