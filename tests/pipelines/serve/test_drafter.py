"""POST /drafter: another drafter while answers are made, and who may ask for it."""

from typing import Any

import openai
import pytest

from tests.pipelines.serve.conftest import demo_config
from tests.pipelines.serve.local import local_server
from tests.pipelines.serve.test_limits import KEYS, client_of

DRAFT = "examples/models/text-draft"
BODY: dict[str, Any] = {"model": "demo", "prompt": "def f(x):", "max_tokens": 48, "seed": 3}


def change(client: openai.OpenAI, drafter: str) -> Any:
    """What the server answers."""
    url = str(client.base_url).removesuffix("/v1/")
    other = client.with_options(base_url=url)
    return other.post("/drafter", body={"drafter": drafter}, cast_to=object)


def test_a_stream_goes_on_with_another_drafter(demo: openai.OpenAI, demo_target: str) -> None:
    expected = demo.completions.create(**BODY).choices[0].text
    with (
        local_server(demo_config(demo_target, "lookup")) as url,
        openai.OpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0) as client,
    ):
        text, answers = "", []
        for chunk in client.completions.create(stream=True, **BODY):
            text += chunk.choices[0].text
            if not answers:
                answers.append(change(client, DRAFT))
        assert text == expected
        assert answers[0] == {"model": "demo", "drafter": DRAFT}
        again = client.completions.create(**BODY)
        assert again.choices[0].text == expected
        assert again.model_extra["metrics"]["speculative_decoding"]["num_draft_tokens"] > 0


@pytest.mark.parametrize(
    ("drafter", "told"),
    [
        ("none", "a drafter, in a loop"),
        ("/nowhere", "there is no such folder"),
        ("lokup", "did you mean 'lookup'"),
        (f"{DRAFT[:-1]}", f"did you mean {DRAFT}"),
    ],
)
def test_what_cannot_draft_is_refused_and_nothing_changes(
    demo: openai.OpenAI, drafter: str, told: str
) -> None:
    before = demo.completions.create(**BODY).choices[0].text
    with pytest.raises(openai.BadRequestError, match=told) as refused:
        change(demo, drafter)
    assert refused.value.param == "drafter"
    assert demo.completions.create(**BODY).choices[0].text == before


def test_a_key_may_not_change_the_server_unless_its_line_says_so(demo_target: str) -> None:
    config = demo_config(demo_target, "lookup")
    with (
        local_server(config, key_hashes=KEYS, admin_hashes=KEYS[:1]) as url,
        client_of(url, "one") as one,
        client_of(url, "two") as two,
    ):
        with pytest.raises(openai.PermissionDeniedError, match="admin"):
            change(two, DRAFT)
        assert change(one, DRAFT) == {"model": "demo", "drafter": DRAFT}
