"""Log-probabilities of prompts: those of the target, however the prompt is read."""

import pytest
import torch

from models.errors import InvalidRequest
from models.requests.request import Request, Sampling
from tests.models.looping import TARGET, VOCAB, loop_of

PROMPTS = [tuple((i * i + n) % VOCAB for i in range(3 + 9 * n)) for n in range(4)]


def expected(prompt):
    """Of each token after the first, from the table."""
    before = [0, *prompt]
    rows = [TARGET.table[before[i], before[i + 1]].log_softmax(-1) for i in range(len(prompt) - 1)]
    return [float(row[token]) for row, token in zip(rows, prompt[1:], strict=True)]


def requests(**more):
    return [
        Request(id=str(n), prompt=p, sampling=Sampling(max_tokens=4), seed=n, **more)
        for n, p in enumerate(PROMPTS)
    ]


@pytest.mark.parametrize("chunk", [256, 5, 1])
@pytest.mark.parametrize("drafter", ["none", "tree"])
def test_they_are_the_target_s(chunk, drafter) -> None:
    asked = requests(prompt_logprobs=2)
    plain = {r.id: r.tokens for r in loop_of().run(requests())}
    for result in loop_of(drafter, chunk=chunk, rows=3).run(asked):
        prompt = PROMPTS[int(result.id)]
        assert [entry.token for entry in result.prompt_logprobs] == list(prompt[1:])
        found = torch.tensor([entry.logprob for entry in result.prompt_logprobs])
        assert torch.allclose(found, torch.tensor(expected(prompt)))
        assert all(len(entry.top) == 2 for entry in result.prompt_logprobs)
        assert result.tokens == plain[result.id]


def test_others_in_the_same_pass_have_none() -> None:
    mixed = [requests()[1], requests(prompt_logprobs=0)[2], requests()[3]]
    first, second, third = sorted(loop_of(chunk=20).run(mixed), key=lambda r: r.id)
    assert first.prompt_logprobs is None
    assert third.prompt_logprobs is None
    assert len(second.prompt_logprobs) == len(PROMPTS[2]) - 1


def test_a_request_that_gave_way_reports_each_token_once() -> None:
    sampling = Sampling(max_tokens=60, ignore_eos=True)
    asked = [
        Request(id=str(n), prompt=PROMPTS[3], sampling=sampling, seed=n, prompt_logprobs=0)
        for n in range(4)
    ]
    loop = loop_of(entries=150, chunk=8, scratch=2)
    results = loop.run(asked)
    assert loop.figures().preemptions > 0
    assert all(len(result.prompt_logprobs) == len(PROMPTS[3]) - 1 for result in results)


def test_too_many_are_refused() -> None:
    with pytest.raises(InvalidRequest, match="prompt_logprobs=21"):
        loop_of().submit(requests(prompt_logprobs=21)[0])
