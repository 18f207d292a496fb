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
    every=48, steps=24, batch=8, rate=2e-3, length=64, held_out=16, least_held_out=2, save_every=4
)


def ask(client: openai.OpenAI, number: int, **fields: Any) -> str:
    made = client.completions.create(
        model="tiny", prompt=f"Tell me of number {number}: ", max_tokens=16, seed=number, **fields
    )
    return str(made.choices[0].text)


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
        batch_size=8,
        device="cpu",
        threads=1,
        model_name="tiny",
    )
    with (
        serving(config, course=COURSE) as server,
        openai.OpenAI(base_url=f"{server.url}/v1", api_key="none", max_retries=0) as client,
    ):
        before = [ask(client, number) for number in range(COURSE.every)]
        ask(client, 1, extra_body={"store": False})
        with pytest.raises(openai.BadRequestError, match="trainer"):
            change(client, "lookup")
        server.look()
        assert server.lessons is not None
        learner: Any = server.lessons.learner
        os.kill(learner.trainer.pid, signal.SIGKILL)
        told, during = figures(server.url), []
        while not figures(server.url)['paceline_learning_rounds_total{,outcome="better"}']:
            during.append(ask(client, len(during) % COURSE.every, extra_body={"store": False}))
            server.look()
            time.sleep(0.05)
        after = [ask(client, number) for number in range(8)]
        found = figures(server.url)
        assert learner.state.failed == 0
        assert learner.drafter != config.drafter
    assert before[:8] == after
    assert during == [before[number % COURSE.every] for number in range(len(during))]
    assert told["paceline_learning_rows_total{}"] == COURSE.every
    lengths = [
        found[f'paceline_learning_accepted_length{{,drafter="{n}"}}'] for n in ("present", "new")
    ]
    assert 1 < lengths[0] < lengths[1]
    rows = newest_rows(tmp_path / "learned" / "rows", 999)
    assert len(rows) == COURSE.every
    assert {len(row.tokens) for row in rows} == {16}
