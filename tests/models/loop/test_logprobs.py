"""Logprobs: the target's own log-softmax at each emitted token, whatever drafts came before."""

import pytest
import torch

from models.drafting.copies.lookup import LookupDrafter
from models.drafting.draft import Shape
from tests.models.looping import RUNS, TARGET, loop_of, request_of


def reference(request, tokens):
    history = (0, *request.prompt)
    for token in tokens:
        yield TARGET.table[history[-2], history[-1]].double().log_softmax(-1)
        history = (*history, token)


@pytest.mark.parametrize(("drafter", "rule"), RUNS)
def test_logprobs_are_the_unprocessed_log_softmax(drafter, rule):
    requests = [request_of(i, logprobs=i % 4) for i in range(12)]
    by_id = {r.id: r for r in requests}
    for result in loop_of(drafter, rule=rule).run(requests):
        request = by_id[result.id]
        assert len(result.logprobs) == len(result.tokens)
        rows = reference(request, result.tokens)
        for entry, token, row in zip(result.logprobs, result.tokens, rows, strict=True):
            assert entry.token == token
            assert entry.logprob == pytest.approx(float(row[token]), abs=1e-5)
            top = row.topk(request.sampling.logprobs)
            assert [t for t, _ in entry.top] == top.indices.tolist()
            assert [p for _, p in entry.top] == pytest.approx(top.values.tolist(), abs=1e-5)


def test_only_those_who_ask_get_them():
    requests = [request_of(0, logprobs=2), request_of(1)]
    found = {r.id: r.logprobs for r in loop_of("chain").run(requests)}
    assert found["r0"]
    assert found["r1"] is None


def test_more_than_the_vocabulary_holds_is_all_of_it():
    result = loop_of((LookupDrafter, Shape(depth=2))).run([request_of(0, logprobs=20)])[0]
    entry = result.logprobs[0]
    assert len(entry.top) == TARGET.vocab_size
    total = torch.tensor([p for _, p in entry.top]).exp().sum()
    assert total == pytest.approx(1.0, abs=1e-5)
