"""The report page in a real browser: no error, no request, slider, copied command, tooltips, contrast, pictures.

Pictures go to build/report-pictures (or $THRESHER_PICTURES), which CI keeps and git does not.
"""

from __future__ import annotations

import os
import shlex
import shutil
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from report_folders import shrunk_run, trail_run
from typer.testing import CliRunner

from thresher import load_state
from thresher.apps.cli import main
from thresher.apps.report import Live, write_report

playwright = pytest.importorskip("playwright.sync_api", reason="the library playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
PICTURES = Path(os.environ.get("THRESHER_PICTURES", Path(__file__).parents[2] / "build" / "report-pictures"))
# Ratio of relative luminances (WCAG) between the text of every visible element and the first opaque ground under it.
CONTRAST = """() => {
  const parse = text => text.match(/[\\d.]+/g).map(Number);
  const linear = v => v <= .03928 ? v / 12.92 : ((v + .055) / 1.055) ** 2.4;
  const light = ([r, g, b]) => [r, g, b].map(v => linear(v / 255))
    .reduce((sum, v, i) => sum + v * [.2126, .7152, .0722][i], 0);
  const ground = node => { for (; node; node = node.parentElement) {
    const c = parse(getComputedStyle(node).backgroundColor);
    if (c.length < 4 || c[3] > .99) return c;
  } return [255, 255, 255]; };
  let worst = [99, ""], counted = 0;
  for (const node of document.querySelectorAll("body *")) {
    if (![...node.childNodes].some(c => c.nodeType === 3 && c.textContent.trim()) || !node.checkVisibility()) continue;
    if (["SCRIPT", "STYLE", "NOSCRIPT"].includes(node.tagName)) continue;
    counted += 1;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < worst[0]) worst = [ratio, node.className + " " + node.textContent.slice(0, 40)];
  }
  return [...worst, counted];
}"""
# What a canvas shows, as a number that changes with any pixel.
PIXELS = """canvas => {
  const data = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height).data;
  let sum = 7;
  for (let place = 0; place < data.length; place += 1) sum = (sum * 31 + data[place]) % 1000000007;
  return sum;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    made = tmp_path_factory.mktemp("report")
    trail_run(made / "trail")
    shrunk_run(made / "shrunk")
    trail_run(made / "<b>bad", spoil=True)
    shrunk_run(made / "'\"&bad", spoil=True)
    return made


@pytest.fixture(scope="module")
def report(folder: Path) -> Path:
    names = ("trail", "shrunk", "<b>bad", "'\"&bad")
    return write_report([folder / name for name in names], folder / "report.html")


@pytest.fixture(scope="module")
def one(folder: Path) -> Path:
    return write_report([folder / "trail"], folder / "one.html")


@pytest.fixture(scope="module")
def cut(folder: Path) -> Path:
    return write_report([folder / "shrunk"], folder / "cut.html")


class Page:
    """An open page that remembers everything it should not have done."""

    def __init__(self, browser: Any, address: Path | str, *, scheme: str = "light", width: int = 1200) -> None:
        self.context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        self.tab = self.context.new_page()
        self.wrong: list[str] = []
        url = address.as_uri() if isinstance(address, Path) else address
        self.tab.on("console", lambda message: self.wrong.append(message.text))
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.tab.on("dialog", lambda dialog: self.wrong.append(dialog.message))
        own = {url, f"{url}stamp"} if url.startswith("http") else {url}
        self.tab.on("request", lambda request: None if request.url in own else self.wrong.append(request.url))
        self.tab.goto(url)
        self.tab.wait_for_selector("html[data-ready=yes]")

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()

    def slide(self, section: str, place: int) -> None:
        slider = self.tab.locator(f"#{section}-slider")
        slider.evaluate("(slider, place) => { slider.value = place; slider.dispatchEvent(new Event('input')); }", place)
        self.tab.wait_for_timeout(60)

    def pixels(self) -> dict[str, int]:
        hosts = self.tab.locator("[data-figure]")
        return {
            self.title(hosts.nth(number)): hosts.nth(number).locator("canvas").evaluate(PIXELS)
            for number in range(hosts.count())
        }

    def title(self, host: Any) -> str:
        return str(host.locator("xpath=ancestor::figure").locator("h3").inner_text())


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_opens_without_errors_and_without_requests(browser: Any, report: Path, scheme: str, width: int) -> None:
    with Page(browser, report, scheme=scheme, width=width) as page:
        drawn = page.tab.locator(".chart canvas").count()
        assert drawn == page.tab.locator("[data-figure]").count() > 20
        assert page.tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.wrong == []


@pytest.mark.parametrize(("scheme", "width"), [("light", 1280), ("dark", 1280), ("light", 390)])
def test_pictures_of_the_page_are_kept(
    browser: Any, one: Path, cut: Path, report: Path, scheme: str, width: int
) -> None:
    PICTURES.mkdir(parents=True, exist_ok=True)
    for name, path in (("one", one), ("structured", cut), ("several", report)):
        with Page(browser, path, scheme=scheme, width=width) as page:
            picture = PICTURES / f"{name}-{scheme}-{width}.png"
            page.tab.screenshot(path=str(picture), full_page=name != "several")
            assert picture.stat().st_size > 10_000
            if scheme == "dark":  # paper is white all the same
                page.tab.pdf(path=str(PICTURES / f"{name}-print.pdf"), format="A4")


def test_hostile_texts_run_nothing_and_stay_texts(browser: Any, report: Path) -> None:
    with Page(browser, report) as page:
        page.tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        for place in ("compare", "run-2", "run-3"):
            section = page.tab.locator(f"section:has(#{place}), section#{place}").first
            for chart in section.locator(".chart").all()[:5]:
                chart.focus()
                page.tab.keyboard.press("Home")
        for pick in page.tab.locator("#run-2 figure select").all():
            pick.select_option(index=1)
        page.slide("run-2", 1)
        assert page.tab.evaluate("window.broken") is None
        assert (
            page.tab.locator("main img, main b, main svg, main script, main iframe, main a[href^=javascript]").count()
            == 0
        )
        assert "window.broken=1" in page.tab.inner_text("main")
        assert page.wrong == []


def test_slider_moves_every_other_plot_and_the_numbers(browser: Any, one: Path) -> None:
    with Page(browser, one) as page:
        before = page.pixels()
        page.slide("run-0", 1)
        after = page.pixels()
        still = {title for title in before if before[title] == after[title]}
        assert len(before) >= 9
        assert still <= {"Milliseconds a pass"}
        assert page.tab.inner_text("[data-value=zeros]") == "50.00 %"
        assert page.tab.inner_text("[data-value=accuracy]") == "90.00 % (−1.00 points)"
        assert "50.00 % zeros" in page.tab.locator("#run-0-slider").get_attribute("aria-valuetext")
        page.slide("run-0", 5)
        assert page.pixels() == before


def test_slider_answers_to_the_keyboard(browser: Any, one: Path) -> None:
    with Page(browser, one) as page:
        page.tab.focus("#run-0-slider")
        page.tab.keyboard.press("ArrowLeft")
        page.tab.keyboard.press("ArrowLeft")
        assert page.tab.inner_text("[data-value=step]") == "40"
        page.tab.keyboard.press("Home")
        assert page.tab.inner_text("[data-value=zeros]") == "0.00 %"


def test_bars_at_a_point_are_those_of_its_network(browser: Any, one: Path) -> None:
    with Page(browser, one) as page:
        page.slide("run-0", 3)
        host = page.tab.locator("[data-figure]", has=page.tab.locator("canvas"))
        chart = next(each for each in host.all() if page.title(each) == "Zeros by layer")
        chart.focus()
        page.tab.keyboard.press("Home")
        page.tab.wait_for_timeout(60)
        first = float(chart.locator(".tip p").nth(1).inner_text().removeprefix("zeros: ").removesuffix(" %"))
        page.tab.keyboard.press("End")
        page.tab.wait_for_timeout(60)
        second = float(chart.locator(".tip p").nth(1).inner_text().removeprefix("zeros: ").removesuffix(" %"))
        assert (600 * first + 200 * second) / 800 == pytest.approx(75, abs=0.1)


def test_copied_command_works_when_run(
    browser: Any, one: Path, folder: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    with Page(browser, one) as page:
        page.slide("run-0", 2)
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.tab.click("[data-copy=run-0-command]")
        playwright.expect(page.tab.locator("[data-copy=run-0-command]")).to_have_text("Copied")
        copied = page.tab.evaluate("navigator.clipboard.readText()")
    words = shlex.split(copied)
    assert words[0] == "thresher"
    monkeypatch.chdir(tmp_path)
    outcome = CliRunner().invoke(main, words[1:])
    assert outcome.exit_code == 0, outcome.output
    state = load_state(tmp_path / "picked.safetensors")[0]
    zeros = sum(int((state[name] == 0).sum()) for name in ("first.weight", "second.weight"))
    assert zeros == 533  # floor(2/3 of 800)


def test_variants_change_plot_table_and_caption(browser: Any, one: Path) -> None:
    with Page(browser, one) as page:
        figure = page.tab.locator("figure", has_text="Weights, before and after")
        figure.locator("summary").click()
        assert figure.locator("[data-variant]:not([hidden]) .of").inner_text() == "first"
        before = figure.locator("canvas").evaluate(PIXELS)
        figure.locator("select").select_option("second")
        page.tab.wait_for_timeout(60)
        assert figure.locator("[data-variant]:not([hidden]) .of").inner_text() == "second"
        assert figure.locator("canvas").evaluate(PIXELS) != before
        page.slide("run-0", 1)
        assert page.wrong == []


def test_tooltip_by_mouse_and_by_keyboard(browser: Any, one: Path) -> None:
    with Page(browser, one) as page:
        chart = page.tab.locator("figure", has_text="Zeros over time").locator(".chart")
        chart.hover()
        page.tab.wait_for_timeout(100)
        assert "optimizer step" in chart.locator(".tip").inner_text()
        chart.focus()
        page.tab.keyboard.press("Home")
        page.tab.wait_for_timeout(100)
        assert "optimizer step 0" in chart.locator(".tip").inner_text()
        page.tab.keyboard.press("ArrowRight")
        page.tab.wait_for_timeout(100)
        assert "optimizer step 1" in chart.locator(".tip").inner_text()
        page.tab.keyboard.press("Escape")
        assert not chart.locator(".tip").is_visible()


def test_dots_that_cover_each_other_are_all_named(browser: Any, report: Path) -> None:
    with Page(browser, report) as page:
        chart = page.tab.locator("[data-figure=all-0]")
        chart.focus()
        page.tab.keyboard.press("End")
        page.tab.wait_for_timeout(100)
        assert "at the same place: " in chart.locator(".tip").inner_text()
        assert {"trail", "<b>bad"} <= {word.strip(",") for word in chart.locator(".tip").inner_text().split()}


def test_two_settings_side_by_side_show_only_what_differs(browser: Any, report: Path) -> None:
    with Page(browser, report) as page:
        box = page.tab.locator("[data-differ]")
        box.locator("summary").click()
        whole = box.locator("tr:visible").count()
        one, other = box.locator("select").all()
        one.select_option(index=1)
        other.select_option(index=1)
        assert box.locator("tbody tr:visible").count() == 0
        other.select_option(index=2)
        assert box.locator("thead th:visible").count() == 3
        assert 1 < box.locator("tr:visible").count() <= whole


def test_best_settings_are_copied_as_a_table(browser: Any, report: Path) -> None:
    with Page(browser, report) as page:
        page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        page.tab.click("[data-copy=best]")
        playwright.expect(page.tab.locator("[data-copy=best]")).to_have_text("Copied")
        lines = page.tab.evaluate("navigator.clipboard.readText()").splitlines()
        assert lines[0].startswith("| method | budget |")
        assert lines[1].startswith("|---|")
        assert len({line.replace("\\|", "").count("|") for line in lines}) == 1
        assert not any("<img" in line.replace("\\<", "") for line in lines)


def test_theme_button_switches_colours(browser: Any, report: Path) -> None:
    with Page(browser, report) as page:
        ground = "getComputedStyle(document.body).backgroundColor"
        before = page.tab.evaluate(ground)
        page.tab.click("#theme")
        page.tab.click("#theme")
        assert page.tab.inner_text("#theme") == "Theme: dark"
        assert page.tab.evaluate(ground) != before


def test_legend_button_hides_a_line(browser: Any, report: Path) -> None:
    with Page(browser, report) as page:
        entry = page.tab.locator("#run-0 .legend button").first
        entry.click()
        assert entry.get_attribute("aria-pressed") == "false"


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_contrast_is_enough(browser: Any, report: Path, scheme: str) -> None:
    with Page(browser, report, scheme=scheme) as page:
        page.tab.evaluate("document.querySelectorAll('details').forEach(one => { one.open = true; })")
        ratio, where, counted = page.tab.evaluate(CONTRAST)
        assert counted > 200
        assert ratio >= 4.5, where


def test_print_shows_the_plots_with_their_legends_and_hides_the_controls(browser: Any, report: Path) -> None:
    with Page(browser, report, scheme="dark", width=720) as page:
        bars = page.tab.locator("#run-0 figure", has_text="Zeros by layer").locator("canvas")
        dark = bars.evaluate(PIXELS)
        page.tab.emulate_media(media="print")
        page.tab.evaluate("window.dispatchEvent(new Event('beforeprint'))")
        page.tab.wait_for_timeout(100)
        assert bars.evaluate(PIXELS) != dark
        assert not page.tab.locator("#theme").is_visible()
        assert not page.tab.locator("[data-copy]").first.is_visible()
        assert page.tab.locator("#run-0 .legend button").first.is_visible()
        assert page.tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.tab.locator(".explorer").first.evaluate("one => getComputedStyle(one).position") == "static"


def test_live_page_takes_in_news_and_keeps_what_was_chosen(browser: Any, tmp_path: Path) -> None:
    run = trail_run(tmp_path / "run", points=4)
    with Live([run]) as server:
        worker = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        worker.start()
        try:
            with Page(browser, server.url) as page:
                page.slide("run-0", 1)
                figure = page.tab.locator("figure", has_text="Loss over time")
                figure.locator("summary").click()
                with (run / "metrics.jsonl").open("a") as stream:
                    stream.write('{"kind": "epoch", "epoch": 5, "step": 50, "accuracy": 88.25}\n')
                (run / "result.json").unlink()
                playwright.expect(page.tab.locator(".verdict")).to_contain_text("88.25")
                assert page.tab.locator("#run-0-slider").input_value() == "1"
                assert page.tab.locator("figure", has_text="Loss over time").locator("details").evaluate("x => x.open")
                assert page.tab.locator(".chart canvas").count() == page.tab.locator("[data-figure]").count()
                assert page.wrong == []
        finally:
            server.shutdown()
            worker.join()
