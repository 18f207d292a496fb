"""The parts of an answer: in pieces as whole, with the log-probabilities of the text."""

import json

import pytest

from models.requests.request import TokenLogprob
from pipelines.serve.answers.choice import Delta
from pipelines.serve.answers.parts import CallReader, FreeReader, Parts, Reader, TextReader
from tests.pipelines.serve.test_free_tools import TEXTS

CALL = '{"name":"feed","arguments":{"name":"Tom","age":3,"kind":"cat"}}'
GIVEN: dict[str, tuple[str, str]] = {
    **{name: ("free", text) for name, (text, _) in TEXTS.items()},
    "free and empty": ("free", ""),
    "free and cut": ("free", "Well: <tool_call>\n" + CALL[:30]),
    "free and cut in the tag": ("free", "Well: <tool_c"),
    "plain": ("text", "Not a <tool_call>\n{}"),
    "required": ("call", CALL),
    "required and cut": ("call", CALL[:5]),
}


def reader(kind: str) -> Reader:
    return {"free": FreeReader(chr), "text": TextReader(), "call": CallReader()}[kind]


def deltas(text: str, step: int) -> list[Delta]:
    """A token is a character."""
    entries = [TokenLogprob(token=ord(each), logprob=-1.0, top=()) for each in text]
    starts = range(0, len(text), step)
    pieces = [Delta(0, text[i : i + step], entries[i : i + step]) for i in starts]
    return [*pieces, Delta(0, finish_reason="stop")]


def told(parts: Parts) -> list[object]:
    return [
        (part.text, [each.token for each in part.logprobs])
        if part.call is None
        else (part.call.name, part.call.arguments)
        for part in parts.all
    ]


@pytest.mark.parametrize("step", [1, 3, 7])
@pytest.mark.parametrize("name", GIVEN)
def test_parts_in_pieces_are_the_whole_ones(name: str, step: int) -> None:
    kind, text = GIVEN[name]
    pieces, whole = Parts(reader(kind)), Parts(reader(kind))
    begun, said = [], dict[int, str]()
    for delta in deltas(text, step):
        for news in pieces.feed(delta):
            if news.begins:
                begun.append(news.part.index)
            assert news.part is pieces.all[-1]  # no part goes on after the next one has begun
            said[news.part.index] = said.get(news.part.index, "") + news.more
    first = deltas(text, len(text) or 1)[0]
    list(whole.feed(Delta(0, text, first.logprobs, finish_reason="stop")))
    assert told(pieces) == told(whole)
    assert begun == list(range(len(pieces.all)))
    assert [said[part.index] for part in pieces.all] == [
        part.text if part.call is None else part.call.arguments for part in pieces.all
    ]
    assert pieces.has_calls == any(part.call is not None for part in pieces.all)


@pytest.mark.parametrize("name", TEXTS)
def test_a_text_has_the_tokens_before_the_tag(name: str) -> None:
    given, calls = TEXTS[name]
    parts = Parts(FreeReader(chr))
    for delta in deltas(given, 5):
        list(parts.feed(delta))
    texts = [part for part in parts.all if part.call is None]
    before = given.partition("<tool_call>")[0]
    assert ["".join(chr(e.token) for e in part.logprobs) for part in texts] == [before] * bool(
        before
    )
    found = [part.call for part in parts.all if part.call is not None]
    expected = [json.loads(call) for call in calls]
    assert [(c.name, json.loads(c.arguments)) for c in found] == [
        (call["name"], call["arguments"]) for call in expected
    ]
