"""The playground in a real browser, and the traces that it shows."""

import shutil
import urllib.request
from collections.abc import Iterator
from typing import Any

import openai
import pytest

from tests.pipelines.serve.test_constrained import FORMAT, MESSAGES

CHROMIUM = shutil.which("chromium")
browsing = pytest.mark.skipif(
    CHROMIUM is None, reason="no chromium here: the playground is NOT tested (apt install chromium)"
)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        made = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield made
        made.close()


def opened(browser: Any, url: str, **options: Any) -> Any:
    page = browser.new_page(**options)
    page.set_default_timeout(60_000)
    page.faults = []
    page.on("console", lambda message: page.faults.append(message.text))
    page.on("pageerror", lambda error: page.faults.append(str(error)))
    page.goto(url)
    page.get_by_text("tokens of context").wait_for()
    return page


@browsing
def test_both_panes_end_in_the_same_text_by_keyboard_alone(browser: Any, demo_url: str) -> None:
    page = opened(browser, demo_url, viewport={"width": 320, "height": 800}, color_scheme="dark")
    page.locator("#tokens").fill("24")
    page.get_by_label("Prompt").focus()
    page.keyboard.press("Control+a")
    page.keyboard.type("one two three one two three one two")
    page.keyboard.press("Control+Enter")
    page.get_by_text("Both texts are the same").wait_for()
    first, second = (text.inner_text() for text in page.locator(".text").all())
    assert first == second != ""
    page.locator(".text").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.locator(".detail").first.inner_text().startswith("Token 2, ")
    widest = page.locator("main").bounding_box()
    assert widest["width"] <= 320  # nothing makes the page scroll sideways
    unnamed = [
        field.get_attribute("id")
        for field in page.locator("input, select, textarea").all()
        if not field.locator("xpath=ancestor::label").count()
    ]
    assert unnamed == []
    assert page.faults == []
    page.close()


# In the page itself: a click from here could come after the last token.
STOP_AT_THE_FIRST_TOKEN = """() => {
  const seen = new MutationObserver(() => {
    if (!document.querySelector(".text span")) return;
    seen.disconnect();
    document.querySelector("#stop").click();
  });
  seen.observe(document.body, {childList: true, subtree: true});
}"""


@browsing
def test_an_error_is_told_and_a_stop_stops(browser: Any, demo_url: str) -> None:
    page = opened(browser, demo_url)
    page.locator("#tokens").fill("5000")
    page.get_by_text("Run", exact=True).click()
    page.get_by_text("max_tokens=5000 do not fit").wait_for()
    page.locator("#tokens").fill("450")
    page.evaluate(STOP_AT_THE_FIRST_TOKEN)
    page.get_by_text("Run", exact=True).click()
    page.get_by_text("Stopped.").wait_for()
    assert page.locator(".text span").count() > 0  # the first one may be a part of a character
    page.close()


@browsing
def test_a_stream_survives_a_reload(browser: Any, demo_url: str) -> None:
    page = opened(browser, demo_url)
    page.get_by_label("Prompt").fill("Tell me of Bergen.")
    page.locator("#tokens").fill("300")
    page.locator("#seed").fill("7")
    page.locator("#compare").uncheck()
    page.get_by_text("Run", exact=True).click()
    page.get_by_text("Done.").wait_for()
    whole = page.locator(".text").inner_text()
    page.get_by_text("Run", exact=True).click()
    page.locator(".text span").first.wait_for()
    page.reload()
    page.get_by_text("Done.").wait_for()
    assert page.locator(".text").inner_text() == whole
    assert page.get_by_label("Prompt").input_value() == "Tell me of Bergen."
    page.reload()  # nothing runs now
    page.get_by_text("tokens of context").wait_for()
    assert page.locator("#seed").input_value() == "7"
    assert page.locator(".text").count() == 0
    assert page.faults == []
    page.close()


def test_the_page_may_run_its_own_script_alone(demo_url: str) -> None:
    with urllib.request.urlopen(demo_url) as answer:
        policy, text = answer.headers["content-security-policy"], answer.read().decode()
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "unsafe" not in policy
    assert "innerHTML" not in text
    assert "http://" not in text.replace("http://www.w3.org", "")
    assert "https://" not in text


def traced(client: openai.OpenAI, **body: Any) -> tuple[str, list[Any]]:
    ours = {"trace": True, **body.pop("ours", {})}
    same: Any = {"model": "demo", "messages": MESSAGES, "seed": 2, "max_tokens": 60, "stream": True}
    text, steps = "", []
    for chunk in client.chat.completions.create(**same | body, extra_body={"paceline": ours}):
        text += chunk.choices[0].delta.content or ""
        steps += (getattr(chunk, "paceline", None) or {}).get("trace", [])
    return text, steps


def test_a_trace_tells_who_proposed_each_token(demo: openai.OpenAI) -> None:
    text, steps = traced(demo, response_format=FORMAT)
    tokens = [token for step in steps for token in step["tokens"]]
    assert "".join(token["text"] for token in tokens) == text
    assert {"target", "grammar"} <= {token["source"] for token in tokens}
    assert all(step["tokens"][-1]["source"] == "target" for step in steps)
    plain, plain_steps = traced(demo, response_format=FORMAT, ours={"draft": False})
    assert plain == text
    assert all(len(step["tokens"]) == 1 and not step["rejected"] for step in plain_steps)


def test_wrong_guesses_are_told(demo: openai.OpenAI) -> None:
    said = demo.chat.completions.create(model="demo", messages=MESSAGES, seed=2, max_tokens=60)
    right = said.choices[0].message.content
    wrong = f"{right[: len(right) // 2]} Something else altogether."
    body: Any = {"prediction": {"type": "content", "content": wrong}}
    text, steps = traced(demo, **body)
    assert text == right
    assert any(step["rejected"] for step in steps)


def test_a_trace_is_of_a_stream(demo: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError, match="a trace is of a stream"):
        demo.chat.completions.create(
            model="demo", messages=MESSAGES, extra_body={"paceline": {"trace": True}}
        )
