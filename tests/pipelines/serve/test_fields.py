"""Any fields of a body with any drafter: the same answer, alone and beside others.

In `make soak`: 2,000 bodies. Servers whose draft actors die are tested in test_soak.py.
"""

import json
import urllib.error
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

import hypothesis
import pytest
from hypothesis import strategies as st
from prometheus_client.parser import text_string_to_metric_families

from models.drafting.heads.medusa_head import write_medusa
from tests.models.drafting.heads.random_heads import medusa_head
from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import local_server
from tests.pipelines.serve.sizes import sized

ROUNDS, MOST = sized(8, 500), sized(4, 32)  # bodies at once, up to MOST, in each round
CHOICES = 3  # of a body, at most
PREDICTED = "Once upon a time"
DRAFTERS: dict[str, dict[str, Any]] = {
    "none": {},
    "lookup": {},
    "chain": {"drafter": "draft", "draft_width": 1, "draft_tokens": 4},
    "tree": {"drafter": "draft", "draft_width": 4, "draft_tokens": 3},
    "auto": {"drafter": "draft"},
    "heads": {"drafter": "heads"},
}


@pytest.fixture(scope="module")
def urls(
    served_target: str, checkpoints: dict[str, str], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[dict[str, str]]:
    """Servers of one target, by how they draft."""
    heads: Path = tmp_path_factory.mktemp("heads") / "heads"
    write_medusa(medusa_head(vocab_size=257, width=32), heads)
    folders = {**checkpoints, "heads": str(heads)}
    with ExitStack() as stack:
        found = {}
        for name, options in DRAFTERS.items():
            options = {**options}
            drafter = options.pop("drafter", name)
            config = demo_config(served_target, folders.get(drafter, drafter))
            config = replace(config, max_length=256, batch_size=8, **options)
            server = local_server(config, max_unfinished=MOST * CHOICES)
            found[name] = stack.enter_context(server)
        yield found


def some(name: str, values: st.SearchStrategy[Any]) -> st.SearchStrategy[dict[str, Any]]:
    """The field, or nothing."""
    return st.one_of(st.just({}), values.map(lambda value: {name: value}))


TEXTS = st.sampled_from(
    ["a", "Once upon a time", "Tell me. Tell me. Tell me", "ä 漢 🙂", "1, 2, 3, "]
)
FIELDS = st.tuples(
    some("temperature", st.sampled_from([0, 0.3, 1, 1.7])),
    some("top_p", st.sampled_from([0.1, 0.8, 1])),
    some("top_k", st.integers(0, 40)),
    some("min_p", st.sampled_from([0, 0.05, 0.5])),
    some("presence_penalty", st.sampled_from([-2, 0.5, 2])),
    some("frequency_penalty", st.sampled_from([-1, 0.7])),
    some("repetition_penalty", st.sampled_from([0.8, 1.3])),
    some("logit_bias", st.dictionaries(st.integers(0, 255).map(str), st.integers(-100, 30))),
    some("stop", st.lists(st.text("abceqz .", min_size=1, max_size=3), max_size=4)),
    some("stop_token_ids", st.lists(st.integers(0, 255), max_size=3)),
    some("min_tokens", st.integers(0, 8)),
    some("n", st.integers(1, CHOICES)),
    some("seed", st.integers(-(2**63), 2**63 - 1)),
    some("cache_salt", st.sampled_from(["", "mine"])),
    some("priority", st.integers(-3, 3)),
    some("stream", st.booleans()),
    some("prediction", st.sampled_from([PREDICTED, "1, 2, 3, 4"]).map(
        lambda text: {"type": "content", "content": text}
    )),
    st.one_of(
        some("ignore_eos", st.booleans()),
        some("structured_outputs", st.sampled_from([
            {"regex": "([a-m]{1,3}[n-z]{2}[0-9]){4}"},
            {"choice": ["yes", "no", "maybe so"]},
            {"json": {"type": "object", "properties": {"a": {"type": "boolean"}},
                      "required": ["a"], "additionalProperties": False}},
        ])),
    ),
)  # fmt: skip
COMPLETIONS = st.tuples(
    st.one_of(TEXTS, st.lists(st.integers(0, 255), min_size=1, max_size=9)).map(
        lambda prompt: {"prompt": prompt}
    ),
    some("logprobs", st.integers(0, 4)),
    some("echo", st.booleans()),
)
CHATS = st.tuples(
    TEXTS.map(lambda text: {"messages": [{"role": "user", "content": text}]}),
    st.one_of(
        st.just({}),
        st.integers(0, 4).map(lambda top: {"logprobs": True, "top_logprobs": top}),
    ),
)


def joined(parts: Any) -> dict[str, Any]:
    """One body of many parts."""
    fields, own, tokens = parts
    body: dict[str, Any] = {"seed": 7, "max_tokens": tokens}
    for part in (*fields, *own):
        body |= part
    return body


BODIES = st.tuples(FIELDS, st.one_of(COMPLETIONS, CHATS), st.integers(1, 24)).map(joined)


def answer(url: str, body: dict[str, Any]) -> tuple[int, Any]:
    """Status, and what is said; of a stream by choice."""
    path = "/v1/chat/completions" if "messages" in body else "/v1/completions"
    headers = {"content-type": "application/json"}
    if body.get("stream"):
        body = body | {"stream_options": {"include_usage": True}}
    asked = urllib.request.Request(url + path, json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(asked, timeout=60) as got:
            raw = got.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)
    if not body.get("stream"):
        made = json.loads(raw)
        return 200, (said(made["choices"]), used(made))
    lines = [line[6:] for line in raw.split(b"\n") if line[:6] == b"data: "]
    chunks = [json.loads(line) for line in lines[:-1]]  # the last one is [DONE]
    choices = [choice for chunk in chunks for choice in chunk["choices"]]
    return 200, (said(choices), used(chunks[-1]))


def said(choices: list[Any]) -> dict[int, list[Any]]:
    """Text, log-probabilities and end by choice, of a whole answer or of chunks."""
    out: dict[int, list[Any]] = {}
    for choice in choices:
        whole = out.setdefault(choice["index"], ["", [], None])
        told = choice.get("delta") or choice.get("message") or choice
        whole[0] += told.get("text") or told.get("content") or ""
        logprobs = choice["logprobs"] or {}
        whole[1] += logprobs.get("content") or logprobs.get("token_logprobs") or []
        whole[2] = choice["finish_reason"] or whole[2]
    return out


def used(answer: Any) -> tuple[int, int]:
    return answer["usage"]["prompt_tokens"], answer["usage"]["completion_tokens"]


class Served:
    """What a server counts beside what its client was told."""

    def __init__(self, url: str) -> None:
        self.url, self.before = url, tokens(url)
        self.told = [0, 0]

    def note(self, status: int, told: Any, body: dict[str, Any]) -> None:
        if status == 200:
            self.told[0] += told[1][0] * body.get("n", 1)
            self.told[1] += told[1][1]


def tokens(url: str) -> tuple[float, float]:
    """Of prompts and answers, as /metrics has them."""
    with urllib.request.urlopen(f"{url}/metrics") as got:
        families = text_string_to_metric_families(got.read().decode())
    values = {each.name: each.value for family in families for each in family.samples}
    names = ("paceline_prompt_tokens_total", "paceline_generation_tokens_total")
    return values[names[0]], values[names[1]]


def test_every_field_with_every_drafter_says_the_same(urls: dict[str, str]) -> None:
    """And the counters are the client's own sums."""
    served = {name: Served(url) for name, url in urls.items()}
    statuses: list[int] = []

    @hypothesis.settings(
        max_examples=ROUNDS,
        deadline=None,
        derandomize=True,
        database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate],
    )
    @hypothesis.given(st.lists(BODIES, min_size=1, max_size=MOST))
    def asked_of_all(bodies: list[dict[str, Any]]) -> None:
        expected = [answer(urls["none"], body) for body in bodies]  # one after the other
        statuses.extend(status for status, _ in expected)
        for status, told, body in ((*e, b) for e, b in zip(expected, bodies, strict=True)):
            assert status in (200, 400), told
            served["none"].note(status, told, body)
        for name, url in urls.items():
            with ThreadPoolExecutor(len(bodies)) as threads:
                found = list(threads.map(answer, [url] * len(bodies), bodies))
            for one, other, body in zip(found, expected, bodies, strict=True):
                assert one == other, (name, body)
                served[name].note(*one, body)

    asked_of_all()
    assert statuses.count(200) > len(statuses) / 2
    for name, each in served.items():
        after = tokens(each.url)
        counted = [now - then for now, then in zip(after, each.before, strict=True)]
        assert counted == each.told, name
    print(f"{len(statuses)} bodies, {statuses.count(400)} refused, with each of {list(urls)}")
