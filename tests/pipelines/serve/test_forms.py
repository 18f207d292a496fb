"""Answers in OpenAI's forms: the official client's types read them, whole and streamed."""

import json

import pytest
from openai.types import Completion
from openai.types.chat import ChatCompletion, ChatCompletionChunk

from models.requests.request import Result, TokenLogprob
from models.requests.update import Update
from pipelines.serve.answers.answer import Answer
from pipelines.serve.answers.choice import AnswerChoice
from pipelines.serve.answers.events import event
from pipelines.serve.answers.forms import Chats, Completions
from pipelines.serve.api_error import ApiError

SPELLED = {1: "He", 2: "llo", 3: "\ufffd"}


def spell(token: int) -> str:
    return SPELLED[token]


def entry(token: int) -> TokenLogprob:
    return TokenLogprob(token=token, logprob=-0.5, top=((1, -0.1), (token, -0.5)))


def update(text: str, *tokens: int, at: int = 0) -> Update:
    places = range(at, at + len(tokens))
    said = tuple(entry(token) for token in tokens)
    sources = ("target",) * len(tokens)
    return Update(
        id="x", positions=places, tokens=tokens, sources=sources, text=text, logprobs=said
    )


END = Result(id="x", tokens=(1, 2, 3), finish_reason="stop", target_passes=2, draft_tokens=4)


def answer(form) -> Answer:
    facts = {"id": "x-1", "created": 1, "model": "m", "fingerprint": "fp", "seed": 7}
    return Answer(form=form, prompt_tokens=5, **facts)


def grown() -> AnswerChoice:
    choice = AnswerChoice(0)
    choice.add([update("He", 1)])
    choice.add([update("llo", 2, 3, at=1), END])
    return choice


def test_a_completion_is_read_by_the_client() -> None:
    told = answer(Completions(spell, True)).whole([grown()])
    read = Completion.model_validate(told)
    assert read.choices[0].text == "Hello"
    assert read.choices[0].finish_reason == "stop"
    assert read.choices[0].logprobs.tokens == ["He", "llo", "\ufffd"]
    assert read.choices[0].logprobs.text_offset == [0, 2, 5]
    assert (read.usage.prompt_tokens, read.usage.completion_tokens) == (5, 3)
    assert read.seed == 7


def test_a_chat_is_read_by_the_client() -> None:
    read = ChatCompletion.model_validate(answer(Chats(spell, True)).whole([grown()]))
    assert read.choices[0].message.content == "Hello"
    first, *_, last = read.choices[0].logprobs.content
    assert (first.bytes, last.bytes) == (list(b"He"), None)
    assert [top.token for top in last.top_logprobs] == ["He", "\ufffd"]


def test_chunks_add_up_to_the_chat() -> None:
    told, choice = answer(Chats(spell, False)), AnswerChoice(0)
    chunks = [told.form.opening(0)]
    for items in ([update("He", 1)], [update("llo", 2)], [END]):
        chunks.append(told.form.chunk(choice.add(items)))
    read = [ChatCompletionChunk.model_validate(told.chunk(chunk)) for chunk in chunks]
    assert read[0].choices[0].delta.role == "assistant"
    assert "".join(chunk.choices[0].delta.content or "" for chunk in read) == "Hello"
    assert [chunk.choices[0].finish_reason for chunk in read] == [None, None, None, "stop"]
    last = ChatCompletionChunk.model_validate(told.last_chunk([choice]))
    assert (last.choices, last.usage.total_tokens) == ([], 8)


def test_text_that_is_held_back_makes_no_chunk() -> None:
    assert (
        AnswerChoice(0)
        .add([Update(id="x", positions=range(1), tokens=(1,), sources=("t",), text="")])
        .is_empty
    )


def test_an_error_of_the_target_is_an_error_of_the_answer() -> None:
    with pytest.raises(ApiError, match="scores that are NaN"):
        AnswerChoice(0).add(
            [Result(id="x", tokens=(), finish_reason="error", error="scores that are NaN")]
        )


def test_an_event_has_one_line_of_json() -> None:
    sent = event({"text": 'a\n\u2028"Ω'})
    assert sent.startswith(b"data: {")
    assert sent.endswith(b"}\n\n")
    assert sent.count(b"\n") == 2
    assert json.loads(sent[6:])["text"] == 'a\n\u2028"Ω'
