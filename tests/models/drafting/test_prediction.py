"""Predicted outputs: found again after a detour, and no token depends on them."""

from dataclasses import replace

import pytest

from models.drafting.prediction import FIRST, MOST, Prediction
from models.errors import InvalidRequest
from models.requests.constraint import of_choice
from models.requests.request import Request, Sampling
from tests.models.lettered import grammars
from tests.models.looping import loop_of

TEXT = list(range(40))


def test_it_is_followed_from_its_beginning() -> None:
    prediction = Prediction(TEXT)
    assert prediction.next([]) == TEXT[:FIRST]
    assert prediction.next([0]) == TEXT[1 : 1 + FIRST]
    assert prediction.next([0, 7]) == []
    assert Prediction(TEXT).next([9, 1, 2]) == TEXT[3 : 3 + FIRST]


def test_it_is_found_again_ahead_of_the_last_place_first() -> None:
    prediction = Prediction([1, 2, 3, 1, 2, 4, 1, 2, 5])
    assert prediction.next([1, 2]) == [3, 1, 2, 4]
    assert prediction.next([1, 2, 3, 1, 2])[0] == 4
    prediction = Prediction([1, 2, 3, 9, 1, 2, 4])
    assert prediction.next([1, 2, 3, 9])[0] == 1
    assert prediction.next([1, 2, 3, 9, 8, 1, 2])[0] == 4
    assert prediction.next([1, 2, 3, 9, 8, 1, 2, 3, 8]) == []
    assert prediction.next([1, 2, 3, 9, 8, 1, 2, 3, 8, 2, 3])[0] == 9  # behind the last place


def test_drafts_grow_while_they_are_right() -> None:
    prediction = Prediction(TEXT)
    sizes = []
    for accepted in (4, 8, 16, 16, 3):
        sizes.append(len(prediction.next([])))
        prediction.observe(accepted, of=sizes[-1])
    assert sizes == [FIRST, 2 * FIRST, MOST, MOST, MOST]
    assert len(prediction.next([])) == FIRST


def test_right_and_wrong_predictions_give_the_same_tokens_in_other_passes() -> None:
    sampling = Sampling(max_tokens=60, temperature=0.8, frequency_penalty=0.2, ignore_eos=True)
    plain = Request(id="x", prompt=(1, 2, 3), sampling=sampling, seed=5)
    (expected,) = loop_of("none").run([plain])
    wrong = tuple((token + 1) % 5 for token in expected.tokens)
    changed = (*expected.tokens[:20], 0, 0, 0, *expected.tokens[25:])
    for drafter in ("none", "lookup", "chain", "tree"):
        passes = {}
        for name, text in (("right", expected.tokens), ("wrong", wrong), ("changed", changed)):
            (result,) = loop_of(drafter).run([replace(plain, prediction=text)])
            assert result.tokens == expected.tokens
            passes[name] = result.target_passes
            if name == "right":
                assert result.predicted > 40
                assert result.mispredicted == 0
        assert passes["right"] < 10
        assert passes["right"] <= passes["changed"] <= expected.target_passes


def test_a_prediction_and_a_grammar_go_together() -> None:
    sampling = Sampling(max_tokens=9, grammar=of_choice(["abcabcab", "abcb", "bcabcabc"]))
    request = Request(id="x", prompt=(1, 2), sampling=sampling, seed=3)
    loop = loop_of("none")
    loop._grammars = lambda: grammars(5)
    (expected,) = loop.run([request])
    for text in ((0, 1, 2, 0, 1), (0, 1, 2, 1), (3, 3, 3)):
        assert loop.run([replace(request, prediction=text)])[0].tokens == expected.tokens


def test_a_prediction_of_unknown_tokens_is_refused() -> None:
    with pytest.raises(InvalidRequest, match="prediction holds token 9"):
        loop_of("none").submit(
            Request(id="x", prompt=(1,), sampling=Sampling(max_tokens=5), prediction=(1, 9))
        )
