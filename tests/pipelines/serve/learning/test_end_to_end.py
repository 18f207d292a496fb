"""A server learns from its own answers: another drafter, and the same bytes all the time."""

import os
import signal
import time
import urllib.request
from pathlib import Path
from typing import Any

import openai
import pytest

from pipelines.serve.config import ServeConfig
from pipelines.serve.learning.lesson import Course
from pipelines.serve.learning.rows import newest_rows
from pipelines.serve.server import serving
from tests.pipelines.serve.test_drafter import change
from tests.ports import free_port

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

COURSE = Course(
    every=96,
    steps=48,
    batch=8,
    rate=5e-3,
    length=64,
    held_out=16,
    least_held_out=2,
    save_every=4,
    nice=0,
)


PROMPTS = [[number, 7, 9] for number in range(COURSE.every)]
SOME = 8


def ask(client: openai.OpenAI, prompts: list[list[int]], **fields: Any) -> list[str]:
    made = client.completions.create(
        model="tiny", prompt=prompts, max_tokens=16, seed=5, extra_body=fields
    )
    return [choice.text for choice in made.choices]


def figures(url: str) -> dict[str, float]:
    with urllib.request.urlopen(f"{url}/metrics") as answer:
        lines = answer.read().decode().splitlines()
    found = (line.split() for line in lines if line.startswith("paceline_learning"))
    return {name.replace('{model_name="tiny"', "{"): float(value) for name, value in found}


def test_the_drafter_changes_and_no_answer_does(
    ray_cluster: None, served_target: str, checkpoints: dict[str, str], tmp_path: Path
) -> None:
    config = ServeConfig(
        target=served_target,
        drafter=checkpoints["draft"],
        learn=str(tmp_path / "learned"),
        port=free_port(),
        batch_size=16,
        device="cpu",
        threads=1,
        model_name="tiny",
    )
    with (
        serving(config, course=COURSE) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        before = ask(client, PROMPTS)
        ask(client, PROMPTS[:SOME], store=False)
        with pytest.raises(openai.BadRequestError, match="trainer"):
            change(client, "lookup")
        server.look()
        assert server.lessons is not None
        learner: Any = server.lessons.learner
        os.kill(learner.trainer.pid, signal.SIGKILL)
        told, answers = figures(server.url), []
        while not learner.state.better:
            answers.append(ask(client, PROMPTS[:SOME], store=False))
            server.look()
            assert learner.state.failed == learner.state.no_better == 0
            time.sleep(0.5)
        answers.append(ask(client, PROMPTS[:SOME], store=False))
        found = figures(server.url)
        assert learner.drafter != config.drafter
    assert answers == [before[:SOME]] * len(answers)
    assert told["paceline_learning_rows_total{}"] == COURSE.every
    lengths = [
        found[f'paceline_learning_accepted_length{{,drafter="{n}"}}'] for n in ("present", "new")
    ]
    assert 1 < lengths[0] < lengths[1]
    assert found['paceline_learning_rounds_total{,outcome="better"}'] == 1
    rows = newest_rows(tmp_path / "learned" / "rows", 999)
    assert len(rows) == COURSE.every
    assert {row.prompt for row in rows} == set(map(tuple, PROMPTS))
