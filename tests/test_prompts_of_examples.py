"""The prompts that the examples of distillation make."""

import json

import pytest

from examples import distill_real_model
from examples.chat_questions import (
    FORMS,
    OTHER_FORMS,
    OTHER_TOPICS,
    TOPICS,
    held_out,
    questions,
    shuffled,
    write_chats,
)
from examples.library_prompts import LONGEST, prompts_of

SOURCE = '''\
class Reader:
    def read(self, size):
        """Read some bytes."""
        return self._read(size)

    def close(self):
        return None

def only_told():
    """There is nothing to complete."""

def long():
    """{}"""
    return 1
'''


def test_prompts_end_after_the_docstring():
    found = list(prompts_of(SOURCE.replace("{}", "x" * LONGEST)))
    assert found == ['    def read(self, size):\n        """Read some bytes."""\n']


def write_prompts(file, count=600):
    return write_chats(file, shuffled(questions())[:count])


def test_questions_are_chats_and_differ(tmp_path):
    rows = write_prompts(tmp_path / "new" / "questions.jsonl").read_text().splitlines()
    chats = [json.loads(row)["messages"] for row in rows]
    assert all([message["role"] for message in chat] == ["user"] for chat in chats)
    assert len({chat[0]["content"] for chat in chats}) == len(chats) == 600
    assert write_prompts(tmp_path / "again.jsonl").read_text().splitlines() == rows
    assert write_prompts(tmp_path / "few.jsonl", 7).read_text().splitlines() == rows[:7]


def test_held_out_questions_are_none_of_those_to_learn_from():
    learned, held = set(questions()), list(held_out())
    assert len(set(held)) == len(held) == 32
    assert not learned & set(held)
    assert not set(TOPICS) & set(OTHER_TOPICS)
    assert not set(FORMS) & set(OTHER_FORMS)
    assert len(learned) > 4000


def test_given_prompts_are_all_answered(capsys):
    assert distill_real_model.parse([]).records == 1000
    assert distill_real_model.parse(["--records", "9"]).records == 9
    assert distill_real_model.parse(["--prompts", "p"]).prompts == "p"
    with pytest.raises(SystemExit):
        distill_real_model.parse(["--prompts", "p", "--records", "9"])
    assert "all rows of --prompts are answered" in capsys.readouterr().err
