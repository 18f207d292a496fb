"""A real server and OpenAI's own client: the answers are the rows of `generate`."""

import itertools
import os
import signal
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import Any

import openai
import pytest
import ray

from pipelines.errors import JobFailed
from pipelines.serve.config import ServeConfig
from pipelines.serve.server import serving
from tests.pipelines.serve.conftest import ROWS
from tests.pipelines.serve.test_drafter import change
from tests.ports import free_port

pytestmark = [pytest.mark.ray, pytest.mark.timeout(300)]

OPTIONS: dict[str, Any] = {
    "model": "tiny",
    "max_tokens": 60,
    "temperature": 0.9,
    "top_p": 0.95,
    "frequency_penalty": 0.5,
    "stop": ["qu", "z"],
    "logprobs": 1,
}
DRAFTS_WITHIN_S = 120  # of a target that was replaced, on a machine with other work
LONG: dict[str, Any] = {"model": "tiny", "max_tokens": 200, "extra_body": {"ignore_eos": True}}


def told(choice: Any) -> tuple[Any, ...]:
    """What a choice says, with log-probabilities."""
    said = choice.logprobs
    return choice.text, choice.finish_reason, list(said.tokens), list(said.token_logprobs)


def whole(client: openai.OpenAI, row: dict[str, Any]) -> tuple[Any, ...]:
    made = client.completions.create(prompt=row["prompt"], seed=row["seed"], **OPTIONS)
    return told(made.choices[0])


def streamed(client: openai.OpenAI, row: dict[str, Any]) -> tuple[Any, ...]:
    text, tokens, logprobs, reason = "", [], [], None
    for chunk in client.completions.create(
        prompt=row["prompt"], seed=row["seed"], stream=True, **OPTIONS
    ):
        assert chunk.seed == row["seed"]
        piece = chunk.choices[0]
        text, reason = text + piece.text, piece.finish_reason
        tokens += piece.logprobs.tokens
        logprobs += piece.logprobs.token_logprobs
    return text, reason, tokens, logprobs


def test_a_trace_goes_through_all_processes(
    server: Any, client: openai.OpenAI, rows: list[dict[str, Any]]
) -> None:
    asked = {"prompt": rows[0]["prompt"], "seed": rows[0]["seed"], **OPTIONS}
    body = {"paceline": {"trace_events": True}}
    made = client.completions.create(**asked, extra_body=body)
    assert told(made.choices[0]) == whole(client, rows[0])
    events = made.model_dump()["paceline"]["trace_events"]["traceEvents"]
    processes = {e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert {"ingress", "pool"} <= processes
    assert any(name.startswith("target-") for name in processes)


def unfinished(server: Any) -> int:
    found: dict[str, int] = ray.get(server.models[0].manager.counts.remote())
    return found["unfinished"]


def counters(server: Any) -> dict[str, float]:
    """The server's metrics; of those with a reason, the name and the reason."""
    import urllib.request

    from prometheus_client.parser import text_string_to_metric_families

    with urllib.request.urlopen(f"{server.url}/metrics") as answer:
        families = text_string_to_metric_families(answer.read().decode())
    samples = [sample for family in families for sample in family.samples]
    return {
        " ".join([s.name, *(v for k, v in s.labels.items() if k != "model_name")]): s.value
        for s in samples
    }


def cancelled(server: Any) -> float:
    return counters(server)["paceline_request_errors_total cancelled"]


def wait_until_idle(server: Any, *, within_s: float) -> None:
    deadline = time.monotonic() + within_s
    while unfinished(server):
        assert time.monotonic() < deadline, "requests are still there"
        time.sleep(0.02)


@pytest.mark.parametrize("concurrency", [1, 16])
def test_the_seed_of_a_row_gives_its_text_streamed_or_not(client, rows, concurrency) -> None:
    with ThreadPoolExecutor(concurrency) as pool:
        answers = list(pool.map(lambda row: whole(client, row), rows))
        streams = list(pool.map(lambda row: streamed(client, row), rows))
    assert answers == streams
    assert [answer[:2] for answer in answers] == [
        (row["completion"], row["finish_reason"]) for row in rows
    ]
    assert {row["finish_reason"] for row in rows} == {"stop", "length"}


def test_drafters_change_under_open_streams(client, rows, checkpoints) -> None:
    with ThreadPoolExecutor(8) as pool:
        streams = [pool.submit(streamed, client, row) for row in rows for _ in range(4)]
        for drafter in ("lookup", checkpoints["draft"], "lookup", checkpoints["draft"]):
            assert change(client, drafter)["drafter"] == drafter
        found = [stream.result()[:2] for stream in streams]
    expected = [(row["completion"], row["finish_reason"]) for row in rows for _ in range(4)]
    assert found == expected
    with pytest.raises(openai.BadRequestError, match="there is no such folder"):
        change(client, "/nowhere")


def test_an_answer_without_a_seed_can_be_had_again(client) -> None:
    first = client.completions.create(model="tiny", prompt="Once", n=3)
    assert len({choice.text for choice in first.choices}) == 3
    again = client.completions.create(model="tiny", prompt="Once", n=3, seed=first.seed)
    assert again.choices == first.choices
    assert again.system_fingerprint == first.system_fingerprint
    assert first.usage.completion_tokens <= 48
    alone = client.completions.create(model="tiny", prompt="Once", seed=first.seed)
    assert alone.choices[0] == first.choices[0]


def test_prompts_are_texts_or_tokens_one_or_many(client, server) -> None:
    same = ["Once", [ord(letter) - 33 for letter in "Once"]]
    answers = [client.completions.create(model="tiny", prompt=p, seed=3) for p in same]
    assert answers[0].choices[0].text == answers[1].choices[0].text
    both = client.completions.create(model="tiny", prompt=["Once", "Twice"], seed=3, n=2)
    assert [choice.index for choice in both.choices] == [0, 1, 2, 3]
    assert both.choices[0].text == answers[0].choices[0].text


def test_chats_whole_and_streamed(client) -> None:
    messages = [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": [{"type": "text", "text": "Hello"}]},
    ]
    same: dict[str, Any] = {"model": "tiny", "messages": messages, "seed": 4, "n": 2}
    same |= {"max_completion_tokens": 40, "logprobs": True, "top_logprobs": 2}
    made = client.chat.completions.create(**same)
    options = {"include_usage": True}
    texts, spelled, reasons = ["", ""], [[], []], [None, None]
    chunks = list(client.chat.completions.create(stream=True, stream_options=options, **same))
    for chunk in chunks[:-1]:
        (choice,) = chunk.choices
        texts[choice.index] += choice.delta.content or ""
        spelled[choice.index] += choice.logprobs.content if choice.logprobs else []
        reasons[choice.index] = choice.finish_reason
    assert texts == [choice.message.content for choice in made.choices]
    assert spelled == [choice.logprobs.content for choice in made.choices]
    assert reasons == [choice.finish_reason for choice in made.choices]
    assert (chunks[-1].choices, chunks[-1].usage) == ([], made.usage)
    assert made.usage.prompt_tokens == len("<system>Be brief.\n<user>Hello\n<assistant>")
    assert all(len(entry.top_logprobs) == 2 for entry in spelled[0])


def test_errors_are_openai_s(client) -> None:
    with pytest.raises(openai.BadRequestError) as refused:
        client.completions.create(model="tiny", prompt="a", extra_body={"best_off": 2})
    assert refused.value.param == "best_off"
    assert refused.value.response.headers["x-should-retry"] == "false"
    with pytest.raises(openai.NotFoundError, match="this server has 'tiny'"):
        client.completions.create(model="gpt", prompt="a")
    with pytest.raises(openai.BadRequestError, match="the server takes 40 at once"):
        client.completions.create(model="tiny", prompt=["a"] * 21, n=2)
    with pytest.raises(openai.BadRequestError, match="256 tokens"):
        client.completions.create(model="tiny", prompt="a" * 300)
    answered: Any = [{"role": "assistant", "content": "a"}]
    with pytest.raises(openai.BadRequestError, match="assistant's"):
        client.chat.completions.create(model="tiny", messages=answered)
    with pytest.raises(openai.NotFoundError):
        client.embeddings.create(model="tiny", input="a")
    (model,) = client.models.list().data
    assert (model.id, model.max_model_len) == ("tiny", 256)
    assert client.models.retrieve("tiny") == model


def test_a_second_server_on_the_cluster_is_refused(server, served_target) -> None:
    """Ray Serve would keep the first one's address."""
    config = ServeConfig(target=served_target, port=free_port())
    with pytest.raises(JobFailed, match="already runs Ray Serve"), serving(config):
        pass


def test_a_full_queue_turns_requests_away_and_runs_the_others(client, server) -> None:
    with client.completions.create(prompt="a", n=16, stream=True, **LONG) as first:
        next(iter(first))
        with pytest.raises(openai.RateLimitError) as refused:
            client.completions.create(prompt=["a", "b"], n=16, **LONG)
        assert refused.value.response.headers["retry-after"] == "1"
    wait_until_idle(server, within_s=20)


@pytest.mark.parametrize("header", [{}, {"x-request-disconnect-disabled": "?1"}])
def test_a_client_that_leaves_takes_its_requests_out_of_the_batch(client, server, header) -> None:
    """Ray Serve's proxy obeys the header, the ingress does not."""
    many: dict[str, Any] = {"prompt": ["a", "b"], "n": 16, "seed": 1, "extra_headers": header}
    many |= LONG
    began = time.monotonic()
    client.completions.create(**many)
    whole_s = time.monotonic() - began
    before = cancelled(server)
    with client.completions.create(stream=True, **many) as stream:
        next(stream)
        assert unfinished(server) > 16
    wait_until_idle(server, within_s=20)
    assert cancelled(server) > before  # those that had not ended
    before = cancelled(server)
    for part in range(3, 20):  # the server may be faster by now, or slower
        impatient = client.with_options(timeout=whole_s / part)
        with suppress(openai.APITimeoutError):
            impatient.completions.create(**many)
        wait_until_idle(server, within_s=20)
        if cancelled(server) > before:
            break
    assert cancelled(server) > before


GRAMMAR: dict[str, Any] = {
    "max_tokens": 200,
    "extra_body": {
        "structured_outputs": {"regex": "([a-m]{1,3}[n-z]{2}[0-9]){40}"},
        "frequency_penalty": 0.5,
    },
}


@pytest.mark.parametrize("asked", [LONG, GRAMMAR], ids=["text", "grammar"])
def test_a_killed_target_s_streams_go_on_with_the_same_text(client, server, asked) -> None:
    same: dict[str, Any] = {"prompt": "Once", "n": 16, "seed": 8, "logprobs": 1, **asked}
    same["model"] = "tiny"
    expected = client.completions.create(**same)
    pids = ray.get(server.models[0].manager.counts.remote())
    (before,) = (pid for name, pid in pids.items() if name.startswith("target-"))
    texts, logprobs = [""] * 16, [[] for _ in range(16)]
    for count, chunk in enumerate(client.completions.create(stream=True, **same)):
        piece = chunk.choices[0]
        texts[piece.index] += piece.text
        logprobs[piece.index] += piece.logprobs.token_logprobs
        if count == 0:
            os.kill(before, signal.SIGKILL)
            assert unfinished(server) >= ROWS
    assert texts == [choice.text for choice in expected.choices]
    assert logprobs == [choice.logprobs.token_logprobs for choice in expected.choices]
    assert before not in ray.get(server.models[0].manager.counts.remote()).values()


def test_metrics_equal_what_clients_were_told(client, server) -> None:
    """Prometheus' counters against the client's own tally; also the drafts of one answer."""
    deadline = time.monotonic() + DRAFTS_WITHIN_S
    for seed in itertools.count():  # a remote draft that comes too late is not waited for
        before = counters(server)
        made = client.completions.create(prompt="Once", n=3, seed=seed, **LONG)
        after = counters(server)
        for name, told in (("prompt", 3 * 4), ("generation", made.usage.completion_tokens)):
            key = f"paceline_{name}_tokens_total"
            assert after[key] - before[key] == told
        drafts = made.metrics["speculative_decoding"]
        if drafts is not None:
            break
        assert time.monotonic() < deadline, f"{seed + 1} answers without a draft"
    assert sum(drafts["acceptance_histogram"]) == drafts["num_spec_steps"] > 0
    assert (after["paceline_num_requests_running"], after["paceline_target_actors"]) == (0, 1)
