"""The playground has no violation that axe-core finds, in both colour schemes and widths."""

from collections.abc import Iterator
from itertools import product
from typing import Any

import pytest

from models.engine_config import EngineConfig
from tests.pipelines.serve.local import local_server
from tests.pipelines.serve.test_playground import browser, browsing, opened

__all__ = ["browser"]
# A token of every colour, as the page makes them.
COLOURS = """() => {
  for (const [name] of SOURCES) {
    document.querySelector(".text").append(make("span", { className: `${name} wrong` }, name));
  }
}"""
UNNAMED = """() => {
  const field = document.querySelector("#seed");
  field.closest("label").replaceWith("Seed", field);
}"""
SCHEMES, WIDTHS = ("light", "dark"), (320, 1280)


def violations(page: Any) -> dict[str, str]:
    """What axe reports, by colour scheme and width; nothing where the page is well."""
    from axe_playwright_python.sync_playwright import Axe

    reports = {}
    for scheme, width in product(SCHEMES, WIDTHS):
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 800})
        found = Axe().run(page)
        if found.violations_count:
            reports[f"{scheme}, {width}"] = found.generate_report()
    return reports


@pytest.mark.slow
@browsing
def test_texts_before_and_after_an_answer(browser: Any, demo_url: str) -> None:
    page = opened(browser, demo_url)
    assert violations(page) == {}
    page.locator("#tokens").fill("32")
    page.get_by_text("Run", exact=True).click()
    page.get_by_text("Both texts are the same").wait_for()
    page.evaluate(COLOURS)
    page.evaluate("tell('The texts differ.', true)")  # as errors are told
    page.locator(".text").first.focus()
    page.keyboard.press("ArrowRight")
    assert violations(page) == {}
    page.close()


@pytest.fixture(scope="module")
def images_url() -> Iterator[str]:
    config = EngineConfig(
        target="examples/models/digits-raster", batch_size=4, device="cpu", threads=1
    )
    with local_server(config, kind="images") as url:
        yield url


@pytest.mark.slow
@browsing
def test_images_before_and_after_an_answer(browser: Any, images_url: str) -> None:
    page = opened(browser, images_url)
    assert violations(page) == {}
    page.get_by_label("Images").fill("1")
    page.get_by_text("Run", exact=True).click()
    page.get_by_text("1 images in").wait_for()
    assert violations(page) == {}
    page.close()


@pytest.mark.slow
@browsing
def test_axe_finds_what_is_wrong(browser: Any, demo_url: str) -> None:
    """So that the others cannot pass without looking."""
    page = opened(browser, demo_url)
    page.evaluate(UNNAMED)
    found = violations(page)
    assert len(found) == 4
    assert all("label" in report for report in found.values())
    page.close()
