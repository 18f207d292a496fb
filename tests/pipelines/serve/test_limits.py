"""What one client may take: completions at once, and time; and what it leaves when it goes."""

import hashlib
import json
import socket
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import openai
import pytest
from prometheus_client.parser import text_string_to_metric_families

from actors.tokenizer import TokenizerActor
from models.loop.token_loop import TokenLoop
from pipelines.serve.door.limits import Limits
from pipelines.serve.generation.words import Words
from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import local_server

KEYS = tuple(hashlib.sha256(key.encode()).hexdigest() for key in ("one", "two"))
LONG: Any = {"model": "demo", "prompt": "a", "max_tokens": 400, "extra_body": {"ignore_eos": True}}


def client_of(url: str, key: str) -> openai.OpenAI:
    return openai.OpenAI(base_url=f"{url}/v1", api_key=key, max_retries=0)


@pytest.fixture(scope="module")
def limited(demo_target: str) -> Iterator[str]:
    limits = Limits(per_client=3)
    config = demo_config(demo_target, "none")
    with local_server(config, limits=limits, key_hashes=KEYS) as url:
        yield url


@pytest.fixture
def slow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Steps that take so long that LONG ones do not end while a test looks."""
    real = TokenLoop.step

    def step(self: Any) -> Any:
        time.sleep(0.05)
        return real(self)

    monkeypatch.setattr(TokenLoop, "step", step)


def running(url: str, key: str = "none") -> float:
    """Completions that the engine works on."""
    asked = urllib.request.Request(f"{url}/metrics", headers={"authorization": f"Bearer {key}"})
    with urllib.request.urlopen(asked) as answer:
        text = answer.read().decode()
    names = ("paceline_num_requests_running", "paceline_num_requests_waiting")
    samples = [s for family in text_string_to_metric_families(text) for s in family.samples]
    return sum(sample.value for sample in samples if sample.name in names)


@pytest.mark.usefixtures("slow")
def test_a_key_has_its_share_and_another_key_its_own(limited: str) -> None:
    with client_of(limited, "one") as one, client_of(limited, "two") as two:
        with pytest.raises(openai.BadRequestError, match="a key may have 3"):
            one.completions.create(model="demo", prompt="a", n=4)
        with one.completions.create(n=2, stream=True, **LONG) as stream:
            next(iter(stream))
            with pytest.raises(openai.RateLimitError, match="2 completions of this key run"):
                one.completions.create(model="demo", prompt="a", n=2)
            assert one.completions.create(model="demo", prompt="a", max_tokens=1).choices
            assert len(two.completions.create(model="demo", prompt="a", n=3, max_tokens=1).choices)
        deadline = time.monotonic() + 20
        while running(limited, "one"):
            assert time.monotonic() < deadline
        assert one.completions.create(model="demo", prompt="a", n=3, max_tokens=1).choices


@pytest.mark.usefixtures("slow")
def test_a_request_has_its_time(demo_target: str) -> None:
    """Whole, and as a stream that ends with the error."""
    config = demo_config(demo_target, "none")
    with local_server(config, limits=Limits(seconds=0.5)) as url, client_of(url, "one") as one:
        with pytest.raises(openai.APIStatusError, match=r"after 0\.5 s") as late:
            one.completions.create(**LONG)
        assert late.value.status_code == 504
        assert late.value.response.headers["x-should-retry"] == "false"
        with pytest.raises(openai.APIError, match=r"after 0\.5 s"):
            list(one.completions.create(stream=True, **LONG))


MESSAGES = [{"role": "user", "content": "a"}]
READ: dict[str, dict[str, Any]] = {
    "/v1/completions": {"prompt": "a", "max_tokens": 1},
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 1, "stream": True},
    "/v1/responses": {"input": "a", "max_output_tokens": 1},
    "/v1/messages": {"messages": MESSAGES, "max_tokens": 1},
    "/v1/messages/count_tokens": {"messages": MESSAGES},
    "/tokenize": {"prompt": "a"},
}


def test_the_time_of_a_request_begins_when_it_arrives(
    demo_target: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its body, its tokens and its grammar are a part of it."""
    config = demo_config(demo_target, "none")
    with local_server(config, limits=Limits(seconds=0.5)) as url:
        for path, body in READ.items():
            assert asked(url, path, body)[0] == 200
        grammar = {"prompt": "a", "max_tokens": 1, "structured_outputs": {"regex": "a"}}
        assert asked(url, "/v1/completions", grammar)[0] == 200

        def slowed(real: Any) -> Any:
            def wait(*given: Any, **more: Any) -> Any:
                time.sleep(0.8)
                return real(*given, **more)

            return wait

        with monkeypatch.context() as patched:
            patched.setattr(Words, "_check_grammar", slowed(Words._check_grammar))
            assert asked(url, "/v1/completions", grammar)[0] == 504
        monkeypatch.setattr(TokenizerActor, "encode_batch", slowed(TokenizerActor.encode_batch))
        for path, body in READ.items():
            status, told = asked(url, path, body)
            assert (status, "after 0.5 s" in told) == (504, True), (path, told)


def test_a_body_that_comes_slowly_is_not_waited_for(demo_target: str) -> None:
    config = demo_config(demo_target, "none")
    head = "POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-type: application/json\r\n"
    with (
        local_server(config, limits=Limits(seconds=0.3)) as url,
        socket.create_connection(("127.0.0.1", int(url.rpartition(":")[2])), timeout=20) as made,
    ):
        made.sendall(f'{head}content-length: 100\r\n\r\n{{"prompt":'.encode())
        assert made.recv(4096).startswith(b"HTTP/1.1 504 ")


def asked(url: str, path: str, body: dict[str, Any]) -> tuple[int, str]:
    """Status and text."""
    headers = {"content-type": "application/json"}
    request = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=30) as answer:
            return answer.status, answer.read().decode()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.read().decode()


@pytest.mark.parametrize("route", ["/v1/completions", "/v1/responses", "/v1/messages"])
def test_a_client_that_leaves_takes_its_requests_along(demo_url: str, route: str) -> None:
    message = [{"role": "user", "content": "Tell me."}]
    bodies: dict[str, dict[str, Any]] = {
        "/v1/completions": {"prompt": ["a"] * 4, "max_tokens": 400, "ignore_eos": True, "n": 4},
        "/v1/responses": {"input": message, "max_output_tokens": 400},
        "/v1/messages": {"messages": message, "max_tokens": 400},
    }
    body = json.dumps({"stream": True, **bodies[route]}).encode()
    headers = {"content-type": "application/json"}
    with urllib.request.urlopen(urllib.request.Request(f"{demo_url}{route}", body, headers)) as got:
        for _ in range(12):
            got.readline()
    deadline = time.monotonic() + 20
    while running(demo_url):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_late_urgent_request_begins_before_one_that_waits(demo_target: str) -> None:
    """The other one would take so long that the urgent one could not come first by chance."""
    config = replace(demo_config(demo_target, "none"), batch_size=1)
    order: list[str] = []
    texts: list[str] = []
    with local_server(config) as url, client_of(url, "one") as one:

        def ask(name: str, priority: int, **more: Any) -> None:
            extra = {"priority": priority, "ignore_eos": True}
            answer = one.completions.create(
                model="demo", prompt=name, seed=5, extra_body=extra, **more
            )
            order.append(name)
            texts.append(answer.choices[0].text)

        with one.completions.create(stream=True, **LONG) as first:
            next(iter(first))
            waiting = []
            for name, priority, tokens in (("patient", 0, 400), ("urgent", -1, 4)):
                more = {"max_tokens": tokens}
                thread = threading.Thread(target=ask, args=(name, priority), kwargs=more)
                thread.start()
                waiting.append(thread)
                while running(url) < 1 + len(waiting):
                    time.sleep(0.01)
            list(first)
        for thread in waiting:
            thread.join(30)
        assert order == ["urgent", "patient"]
        ask("urgent", 0, max_tokens=4)
    assert texts[0] == texts[2] != ""


def test_only_some_keys_go_before_others(demo_target: str) -> None:
    config = demo_config(demo_target, "none")
    same: Any = {"model": "demo", "prompt": "a", "max_tokens": 3, "seed": 1}
    with (
        local_server(config, key_hashes=KEYS, urgent_hashes=KEYS[:1]) as url,
        client_of(url, "one") as one,
        client_of(url, "two") as two,
    ):
        made = [
            one.completions.create(**same, extra_body={"priority": -5}),
            two.completions.create(**same, extra_body={"priority": 7}),
            two.completions.create(**same),
        ]
        assert len({answer.choices[0].text for answer in made}) == 1
        with pytest.raises(openai.PermissionDeniedError, match="priority=-1") as refused:
            two.completions.create(**same, extra_body={"priority": -1})
        assert refused.value.param == "priority"
        with pytest.raises(openai.BadRequestError, match="priority"):
            one.completions.create(**same, extra_body={"priority": 2**31})


def test_keys_do_not_share_the_cache(limited: str) -> None:
    """What another key has sent does not make an answer faster."""
    prompt = "A prompt that is long enough to fill a block of the cache. " * 12
    body: Any = {"model": "demo", "prompt": prompt, "max_tokens": 1}

    def cached(client: openai.OpenAI, **more: Any) -> int:
        usage = client.completions.create(**body, **more).usage
        return int(usage.prompt_tokens_details.cached_tokens)

    with client_of(limited, "one") as one, client_of(limited, "two") as two:
        assert [cached(one), cached(two)] == [0, 0]
        assert cached(one) > 64
        assert cached(one, extra_body={"cache_salt": "mine"}) == 0
        assert cached(one, extra_body={"cache_salt": "mine"}) > 64
        assert cached(two) > 64
