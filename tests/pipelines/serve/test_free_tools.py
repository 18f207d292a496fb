"""Tools that the model may call, or not: tool_choice auto, for templates that have <tool_call>."""

import json
from pathlib import Path
from typing import Any

import jsonschema
import numpy as np
import openai
import pytest
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer

from pipelines.serve.answers.free_chats import FreeText
from pipelines.serve.bodies import tool_tags
from pipelines.serve.bodies.tools import Tool, free_grammar
from tests.pipelines.serve.conftest import TAG
from tests.pipelines.serve.test_constrained import MESSAGES, SCHEMA, TOOLS

FEED = '{"name":"feed","arguments":{"name":"Tom","age":3,"kind":"cat"}}'
SLEEP = '{"name":"sleep","arguments":{}}'


def called(*calls: str) -> str:
    return "\n".join(f"<tool_call>\n{call}\n</tool_call>" for call in calls)


TEXTS = {
    "text": ("It is < 3 years old.", []),
    "call": (called(SLEEP), [SLEEP]),
    "text and call": ("I will.\n\n" + called(FEED), [FEED]),
    "two calls": ("So <tool:\n" + called(FEED, SLEEP), [FEED, SLEEP]),
}


def told(text: FreeText) -> list[tuple[str, str]]:
    return [(call.name, call.arguments) for call in text.named]


def parsed(calls: list[str]) -> list[tuple[str, Any]]:
    return [(call["name"], call["arguments"]) for call in map(json.loads, calls)]


@pytest.mark.parametrize("step", [1, 3, 1000])
@pytest.mark.parametrize("name", TEXTS)
def test_a_text_in_pieces_has_the_content_and_the_calls_of_the_whole(name: str, step: int) -> None:
    given, calls = TEXTS[name]
    text, content, arguments = FreeText(), "", dict[int, str]()
    pieces = [given[i : i + step] for i in range(0, len(given), step)]
    for piece in [*pieces, None]:
        more, chunks = text.feed(piece or "", ended=piece is None)
        content += more
        for chunk in chunks:
            known = arguments.get(chunk["index"], "")
            arguments[chunk["index"]] = known + chunk["function"]["arguments"]
    assert content == given.partition("<tool_call>")[0].rstrip()
    assert [(n, json.loads(a)) for n, a in told(text)] == parsed(calls)
    assert list(arguments.values()) == [a for _, a in told(text)]


@pytest.mark.parametrize("end", range(len(called(FEED))))
def test_a_call_that_is_cut_is_the_same_in_pieces(end: int) -> None:
    given = called(FEED)[:end]
    whole, pieces = FreeText(), FreeText()
    whole.feed(given, ended=True)
    streamed = ""
    for piece in [*given, None]:
        _, chunks = pieces.feed(piece or "", ended=piece is None)
        streamed += "".join(chunk["function"]["arguments"] for chunk in chunks)
    assert told(whole) == told(pieces)
    assert streamed == "".join(arguments for _, arguments in told(whole))


@pytest.mark.parametrize("own_token", [False, True])
def test_after_the_tag_only_calls_of_the_tools_can_follow(
    demo_target: str, tagged: str, own_token: bool
) -> None:
    folder = tagged if own_token else demo_target
    tags = tool_tags.tags_of(folder)
    assert tags is not None
    assert ('"' in tags[0]) == (not own_token)
    tools = [Tool.model_validate(tool) for tool in TOOLS]
    file = str(Path(folder) / "tokenizer.json")
    encoder, tokenizer = Tokenizer.from_file(file), LLTokenizer(file)

    def begun(text: str, *, several: bool = True) -> LLMatcher | None:
        matcher = LLMatcher(tokenizer, free_grammar(tools, tags, several=several))
        assert not matcher.is_error(), matcher.get_error()
        tokens = encoder.encode(text, add_special_tokens=False).ids
        return matcher if matcher.try_consume_tokens(tokens) == len(tokens) else None

    for text in (given for given, _ in TEXTS.values()):
        matcher = begun(text)
        assert matcher is not None
        assert matcher.is_accepting()
    for wrong in ("\n{}", '\n{"name":"eat"', "\nno", '\n{"name":"sleep","arguments":{"a":1}}'):
        assert begun("I will. <tool_call>" + wrong) is None
    assert begun(called(SLEEP, SLEEP), several=False) is None
    opened = begun("Well: <tool_call>")
    assert opened is not None
    bits = np.frombuffer(opened.compute_bitmask(), dtype=np.uint8)
    assert np.unpackbits(bits).sum() == 1  # the line's end


def body(seed: int, bias: int, **more: Any) -> dict[str, Any]:
    asked = {"model": "demo", "messages": MESSAGES, "tools": TOOLS, "max_tokens": 150, "seed": seed}
    one = {"logit_bias": {str(TAG): bias}, "parallel_tool_calls": False}
    return {**asked, **one, **more}


def joined(choices: list[Any]) -> tuple[str, list[tuple[str, str]], str]:
    """What the choices of a stream's chunks add up to."""
    content = "".join(choice.delta.content or "" for choice in choices)
    names, arguments = dict[int, str](), dict[int, str]()
    for call in (call for choice in choices for call in choice.delta.tool_calls or []):
        names.setdefault(call.index, call.function.name)
        arguments[call.index] = arguments.get(call.index, "") + call.function.arguments
    calls = [(name, arguments[index]) for index, name in names.items()]
    return content, calls, choices[-1].finish_reason


def test_a_model_calls_or_answers_and_every_drafter_says_the_same(
    tagged_clients: list[openai.OpenAI],
) -> None:
    """The bias of the tag's token decides how soon this untrained model calls."""
    reasons = set()
    for seed, bias in [(1, 100), (2, 9), (3, 9), (4, -100)]:
        found = []
        for client in tagged_clients:
            whole = client.chat.completions.create(**body(seed, bias)).choices[0]
            functions = [call.function for call in whole.message.tool_calls or []]
            calls = [(function.name, function.arguments) for function in functions]
            found.append((whole.message.content or "", calls, whole.finish_reason))
            stream = client.chat.completions.create(**body(seed, bias, stream=True))
            found.append(joined([chunk.choices[0] for chunk in stream]))
        assert found == found[:1] * 4
        content, calls, reason = found[0]
        reasons.add(reason)
        assert "<tool_call>" not in content
        assert bool(calls) == (bias == 100) or bias == 9
        if reason == "tool_calls":
            for name, arguments in calls:
                jsonschema.validate(json.loads(arguments), SCHEMA if name == "feed" else {})
    assert "tool_calls" in reasons
