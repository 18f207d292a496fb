"""Tools that the model may call, or not: tool_choice auto, for templates that have <tool_call>."""

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import anthropic
import jsonschema
import numpy as np
import openai
import pytest
from llguidance import LLMatcher, LLTokenizer
from tokenizers import Tokenizer

from pipelines.serve.answers.free_chats import FreeText
from pipelines.serve.bodies import tool_tags
from pipelines.serve.bodies.tools import Tool, free_grammar
from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import local_server
from tests.pipelines.serve.test_constrained import MESSAGES, SCHEMA, TOOLS

TAG = 1000  # the token that becomes the tag
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


@pytest.fixture(scope="module")
def tagged(demo_target: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """The demo model with a template that has the tag, and a token that is the tag."""
    folder = tmp_path_factory.mktemp("tagged") / "demo"
    shutil.copytree(demo_target, folder)
    settings = folder / "tokenizer_config.json"
    given = json.loads(settings.read_text())
    template = given["chat_template"] + "{# calls: <tool_call> #}"
    settings.write_text(json.dumps(given | {"chat_template": template}))
    file = folder / "tokenizer.json"
    tokenizer = json.loads(file.read_text())
    vocabulary = tokenizer["model"]["vocab"]
    (old,) = [text for text, token in vocabulary.items() if token == TAG]
    del vocabulary[old]
    vocabulary["<tool_call>"] = TAG
    merges = [m.split(" ") if isinstance(m, str) else m for m in tokenizer["model"]["merges"]]
    kept = [m for m in merges if old not in (*m, "".join(m))]
    tokenizer["model"]["merges"] = kept
    flags = dict.fromkeys(("single_word", "lstrip", "rstrip", "normalized", "special"), False)
    tokenizer["added_tokens"].append({"id": TAG, "content": "<tool_call>", **flags})
    file.write_text(json.dumps(tokenizer))
    return str(folder)


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


@pytest.fixture(scope="module")
def clients(tagged: str) -> Iterator[list[openai.OpenAI]]:
    """Of servers without and with a drafter."""
    with (
        local_server(demo_config(tagged, "none")) as plain,
        local_server(demo_config(tagged, "lookup")) as lookup,
    ):
        urls = [f"{url}/v1" for url in (plain, lookup)]
        yield [openai.OpenAI(base_url=url, api_key="none", max_retries=0) for url in urls]


def body(seed: int, bias: int, **more: Any) -> dict[str, Any]:
    asked = {"model": "demo", "messages": MESSAGES, "tools": TOOLS, "max_tokens": 150, "seed": seed}
    one = {"logit_bias": {str(TAG): bias}, "parallel_tool_calls": False}
    return {**asked, **one, **more}


def test_the_other_forms_refuse_what_they_could_not_tell(clients: list[openai.OpenAI]) -> None:
    """They would send a call as text."""
    function = TOOLS[0]["function"]
    flat: Any = [{"type": "function", **function}]
    with pytest.raises(openai.BadRequestError, match="only supported by /v1/chat/completions"):
        clients[0].responses.create(model="demo", input="Hello", tools=flat)
    theirs: Any = [{"name": "feed", "input_schema": function["parameters"]}]
    url = str(clients[0].base_url).removesuffix("v1/")
    with (
        anthropic.Anthropic(base_url=url, api_key="none", max_retries=0) as claude,
        pytest.raises(anthropic.BadRequestError, match="only supported by /v1/chat/completions"),
    ):
        claude.messages.create(model="demo", messages=MESSAGES, max_tokens=4, tools=theirs)


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
    clients: list[openai.OpenAI],
) -> None:
    """The bias of the tag's token decides how soon this untrained model calls."""
    reasons = set()
    for seed, bias in [(1, 100), (2, 9), (3, 9), (4, -100)]:
        found = []
        for client in clients:
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
