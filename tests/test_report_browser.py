"""The report in a real browser: drawn without errors and without the network, moved by keyboard, kept by the address, whole in print.

Needs playwright and Debian's chromium (`apt-get install chromium`). Without them these tests skip; where `CI` is set they fail.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from scorescope import charts, report
from tests.synthetic import results as synthetic_results

ARGUMENTS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
DRAWN = 120_000  # ms a slow machine may take to draw every chart


def missing(reason: str) -> None:
    """Skip, or fail where a browser is a must."""
    if os.environ.get("CI"):
        pytest.fail(f"{reason}, and CI must test the report in a browser")
    pytest.skip(reason)


@pytest.fixture(scope="session")
def browser() -> Iterator:
    try:
        from playwright.sync_api import sync_playwright
    except ImportError:
        missing("playwright is not installed")
    chromium = next((found for name in ("chromium", "chromium-browser", "google-chrome") if (found := shutil.which(name))), None)
    if chromium is None:
        missing("no chromium on this machine")
    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=chromium, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="session")
def measured():
    return synthetic_results(paths=40, times=13)


@pytest.fixture(scope="session")
def drawn(measured) -> dict[str, charts.Chart]:
    return {chart.id: chart for chart in charts.available(measured)}


@pytest.fixture(scope="session")
def files(measured, tmp_path_factory) -> dict[str, Path]:
    """Reports of three models, and of one model on vectors without classes."""
    folder = tmp_path_factory.mktemp("reports")
    vectors = synthetic_results(models=("mlp",), paths=40, times=13, classes=0, shape=(64,))
    return {"three": report.write(measured, folder / "three.html"), "vectors": report.write(vectors, folder / "vectors.html")}


@dataclass
class Opened:
    """A page, with everything that it said or asked for."""

    page: object
    complaints: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)


@pytest.fixture
def opened(browser, files):
    """Opens a report and watches it; closes it after the test."""
    contexts = []

    def opener(name: str = "three", address: str = "", width: int = 1280, height: int = 800, script: bool = True) -> Opened:
        context = browser.new_context(viewport={"width": width, "height": height}, java_script_enabled=script, accept_downloads=True)
        contexts.append(context)
        made = Opened(context.new_page())
        made.page.on("console", lambda message: made.complaints.append(message.text) if message.type == "error" else None)
        made.page.on("pageerror", lambda problem: made.complaints.append(str(problem)))
        made.page.on("request", lambda request: made.requests.append(request.url))
        made.page.goto(files[name].as_uri() + address)
        if script:
            made.page.wait_for_selector("html[data-ready=true]", timeout=DRAWN)
        return made

    yield opener
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def standing(browser, files):
    """One page of three models, opened once, for tests that only look."""
    context = browser.new_context(viewport={"width": 1280, "height": 800}, accept_downloads=True)
    made = Opened(context.new_page())
    made.page.on("console", lambda message: made.complaints.append(message.text) if message.type == "error" else None)
    made.page.on("pageerror", lambda problem: made.complaints.append(str(problem)))
    made.page.on("request", lambda request: made.requests.append(request.url))
    made.page.goto(files["three"].as_uri())
    made.page.wait_for_selector("html[data-ready=true]", timeout=DRAWN)
    yield made
    context.close()


# ---- drawing ----


def test_every_chart_is_drawn_by_vega_without_errors_or_network(standing, drawn):
    places = standing.page.evaluate(
        "[...document.querySelectorAll('.chart')].map(c => [c.dataset.chart, c.dataset.drawn, c.querySelectorAll('svg').length,"
        " c.querySelectorAll('.vega svg path').length])"
    )
    assert set(drawn) - {"r_star_small"} <= {place[0] for place in places}
    for name, by, svgs, paths in places:
        assert (by, svgs) == ("vega", 1), name
        assert paths > 5, name
    assert standing.complaints == []
    assert [url for url in standing.requests if not url.startswith(("file:", "data:", "blob:"))] == []


def test_vectors_without_classes_draw_too(opened):
    made = opened("vectors")
    assert made.page.locator(".chart:not([data-drawn=vega])").count() == 0
    assert made.complaints == []
    assert made.page.locator(".card").count() > 0


@pytest.mark.parametrize("name", ["three", "vectors"])
def test_the_first_screen_needs_no_scrolling(opened, name):
    page = opened(name).page
    wanted = {"h1": 1, ".three > li": 3, ".stamp svg.marks": 1, ".four img": 8, ".health": 1, ".strip": 1}
    for selector, count in wanted.items():
        boxes = [place.bounding_box() for place in page.locator(f"#first {selector}").all()]
        assert len(boxes) == count, selector
        for box in boxes:
            assert box["width"] > 0
            assert box["x"] >= 0
            assert box["x"] + box["width"] <= 1280
            assert box["y"] + box["height"] <= 800, selector
    assert "warnings" in page.locator("#first .health").inner_text()


def test_every_picture_is_shown(standing):
    broken = standing.page.evaluate("[...document.images].filter(i => i.complete && i.naturalWidth === 0).length")
    assert broken == 0
    assert standing.page.evaluate("document.images.length") > 50


@pytest.mark.parametrize("name", ["three", "vectors"])
def test_a_narrow_screen_scrolls_down_only(opened, name):
    page = opened(name, width=420, height=900).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 420


# ---- the scrubber ----


def state(page) -> dict:
    return page.evaluate(
        """() => ({
          tiles: [...document.querySelectorAll('[data-tile]')].map(t => [t.style.backgroundImage.length, t.style.backgroundPosition]),
          read: [...document.querySelectorAll('[data-read]')].map(r => r.textContent),
          t: document.getElementById('scrub-now').textContent,
          rule: document.querySelector('[data-small]:not([hidden]) .vega').innerHTML,
          hash: location.hash,
        })"""
    )


def test_arrow_keys_scrub_and_the_address_follows(opened, measured):
    page = opened().page
    slider = page.locator("#scrub-t")
    slider.focus()
    slider.press("End")
    noise = state(page)
    slider.press("Home")
    slider.press("ArrowRight")
    page.wait_for_timeout(300)
    image = state(page)
    assert noise["t"] == "1.00"
    assert image["t"] == f"{measured['time'].values[1]:.2f}"
    for kind in range(3):
        assert noise["tiles"][kind] != image["tiles"][kind]
    assert noise["rule"] != image["rule"]
    assert "model=large" in image["hash"]
    assert "path=0" in image["hash"]
    assert image["hash"] != noise["hash"]
    here = measured.sel(model="large", region="extrapolation", path=0).isel(time=1)
    assert float(image["read"][0]) == pytest.approx(float(here["r_star"]), rel=1e-3)
    assert image["read"][3].split(",")[0] == str(int(here["top_index"]))


def test_choosing_another_path_changes_the_pictures(opened):
    page = opened().page
    before = page.evaluate("document.querySelector('[data-tile=\"0\"]').style.backgroundImage")
    page.select_option("#scrub-path", "2")
    second = page.evaluate("document.querySelector('[data-tile=\"0\"]').style.backgroundImage")
    page.select_option("#scrub-model", "small")
    assert len({before, second, page.evaluate("document.querySelector('[data-tile=\"0\"]').style.backgroundImage")}) == 3
    assert page.locator("[data-small=small]").is_visible()
    assert not page.locator("[data-small=large]").is_visible()
    assert "path=2" in state(page)["hash"]


def test_the_address_brings_back_path_and_time(opened, measured):
    t = measured["time"].values[3]
    page = opened(address=f"#model=medium&path=1&t={t}").page
    assert page.input_value("#scrub-model") == "medium"
    assert page.input_value("#scrub-path") == "1"
    assert state(page)["t"] == f"{t:.2f}"


def test_tiles_show_what_the_results_hold(opened, measured):
    page = opened().page
    page.locator("#scrub-t").focus()
    page.locator("#scrub-t").press("Home")
    shown = page.evaluate(
        """async () => {
          const tile = document.querySelector('[data-tile="1"]');
          const image = new Image();
          image.src = tile.style.backgroundImage.slice(5, -2);
          await image.decode();
          const board = Object.assign(document.createElement('canvas'), {width: image.width, height: image.height});
          const pen = board.getContext('2d');
          pen.drawImage(image, 0, 0);
          return [...pen.getImageData(0, 28, 28, 28).data].filter((_, k) => k % 4 === 0);
        }"""
    )
    values = measured["scrub_model_mean"].sel(model="large").values[0, 0].ravel()
    assert max(abs(a - b) for a, b in zip(shown, ((values + 1) * 127.5).clip(0, 255), strict=True)) <= 1


# ---- numbers, tables, downloads ----


def test_a_number_says_where_it_comes_from(standing):
    page = standing.page
    first = page.locator("#first details.number").first
    assert not first.locator(".source").is_visible()
    first.locator("summary").click()
    assert 'results["r_star"].sel(model="large", region="extrapolation")' in first.locator(".source").inner_text()
    box = first.locator(".source").bounding_box()
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 1280
    page.keyboard.press("Escape")
    assert not first.locator(".source").is_visible()


def test_downloads_hold_the_chart(standing, drawn):
    page = standing.page
    chart = drawn["score_error_models"]
    starts = {"CSV": chart.csv().encode(), "SVG": b"<svg", "PNG": b"\x89PNG"}
    for kind, start in starts.items():
        with page.expect_download() as waiting:
            page.locator("#chart-score_error_models .downloads a", has_text=kind).click()
        assert waiting.value.suggested_filename == f"score_error_models.{kind.lower()}"
        assert Path(waiting.value.path()).read_bytes().startswith(start)


def test_the_data_table_has_every_row(standing, drawn):
    page = standing.page
    chart = drawn["return_to_origin"]
    page.locator("#chart-return_to_origin details.data summary").click()
    page.wait_for_selector("#chart-return_to_origin details.data tbody tr")
    rows = page.locator("#chart-return_to_origin details.data tbody tr")
    assert rows.count() == len(chart.table)
    assert rows.first.locator("td").first.inner_text() == str(next(iter(chart.table[0].values())))


def test_tabs_show_one_models_samples(standing):
    page = standing.page
    page.locator("[data-tabs=gallery] button", has_text="small").click()
    visible = [panel.get_attribute("data-model") for panel in page.locator("[data-panel=gallery]").all() if panel.is_visible()]
    assert visible == ["small"]


# ---- without script, and on paper ----


def test_without_script_everything_still_stands(opened):
    page = opened(script=False).page
    assert page.locator(".chart > svg").count() == page.locator(".chart").count()
    assert page.locator("#chart-r_star .chart > svg").is_visible()
    assert page.locator(".still").first.is_visible()
    assert not page.locator("#scrub-t").is_visible()
    assert page.locator("[data-panel=gallery]").nth(2).is_visible()
    first = page.locator("#first details.number").first
    first.locator("summary").click()
    assert first.locator(".source").is_visible()


def test_on_paper_everything_unfolds(opened):
    page = opened().page
    page.emulate_media(media="print")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("details.more:not([open])").count() == 0
    assert page.locator("[data-panel=gallery]").nth(0).is_visible()
    assert page.locator(".still").count() == 5
    assert page.locator(".still").last.is_visible()
    assert not page.locator("#scrub-t").is_visible()
    page.evaluate("window.dispatchEvent(new Event('afterprint'))")
    assert page.locator("details.more[open]").count() == 0
