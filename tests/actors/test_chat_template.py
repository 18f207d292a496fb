"""Chats as a checkpoint's own template writes them: the token ids of transformers."""

from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from actors.chat_template import ChatTemplate
from actors.tokenizer import TokenizerActor
from models.errors import UnsupportedCheckpoint
from tests.actors.chat_checkpoints import CHAT, CHATML, WITH_BOS, save_tokenizer

EOS = {"eos_token": {"content": "</s>", "__type": "AddedToken"}}
SEVERAL = [{"name": "tool_use", "template": "no"}, {"name": "default", "template": CHATML}]


def ids_of(folder: Path, messages: list[dict[str, Any]]) -> list[int]:
    text = ChatTemplate(str(folder)).render(messages)
    (ids,) = TokenizerActor(str(folder)).encode_batch([text], add_special_tokens=False)
    return ids


def ids_of_transformers(folder: Path, messages: list[dict[str, Any]]) -> list[int]:
    tokenizer = AutoTokenizer.from_pretrained(folder)
    return tokenizer.apply_chat_template(messages, add_generation_prompt=True)["input_ids"]


@pytest.mark.parametrize(
    ("settings", "jinja"),
    [
        ({"chat_template": CHATML}, None),
        ({"chat_template": WITH_BOS, **EOS}, None),
        ({"chat_template": SEVERAL}, None),
        ({"chat_template": "not this"}, WITH_BOS),
        ({"chat_template": WITH_BOS, "add_bos_token": True}, None),  # the slow codec
        ({"chat_template": WITH_BOS}, None),  # a special token that no file names
    ],
    ids=["chatml", "bos", "several", "file", "settings", "unnamed"],
)
def test_the_token_ids_are_those_of_transformers(tmp_path, settings, jinja):
    folder = save_tokenizer(tmp_path, **settings)
    if jinja is not None:
        (folder / "chat_template.jinja").write_text(jinja)
    ids = ids_of(folder, CHAT)
    assert ids == ids_of_transformers(folder, CHAT)
    assert ids.count(0) == (1 if WITH_BOS in (jinja, settings["chat_template"]) else 0)


def test_what_the_template_refuses_is_told(tmp_path):
    folder = save_tokenizer(tmp_path, chat_template=WITH_BOS)
    with pytest.raises(ValueError, match="refuses the messages: roles must alternate"):
        ChatTemplate(str(folder)).render(CHAT[1:])


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (
            "call.function.arguments | tojson",
            '{"a": 1}',
        ),  # an object, as for Qwen
        ("'say ' + call.function.arguments", 'say {"a":1}'),  # a text, as for DeepSeek
    ],
)
def test_a_call_s_arguments_are_what_the_template_wants(tmp_path, written, expected):
    template = "{% for call in messages[0].tool_calls or [] %}{{ " + written + " }}{% endfor %}"
    folder = save_tokenizer(tmp_path, chat_template=template)
    function = {"name": "say", "arguments": '{"a":1}'}
    call = {"id": "1", "type": "function", "function": function}
    messages = [{"role": "assistant", "content": "", "tool_calls": [call]}]
    assert ChatTemplate(str(folder)).render(messages) == expected
    function["arguments"] = "cut {"
    assert "cut {" in ChatTemplate(str(folder)).render(messages)


@pytest.mark.parametrize(
    ("template", "told"),
    [
        (None, "has no chat template, so it cannot read chats"),
        ([{"name": "rag", "template": CHATML}], "has no chat template"),
        ("{% for %}", "the chat template is malformed"),
    ],
)
def test_a_checkpoint_that_cannot_chat_is_refused(tmp_path, template, told):
    folder = save_tokenizer(tmp_path, chat_template=template)
    with pytest.raises(UnsupportedCheckpoint, match=told):
        ChatTemplate(str(folder))
