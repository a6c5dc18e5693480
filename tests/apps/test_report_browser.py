"""The report page in a real browser: no error, no request, tooltips by mouse and keyboard, readable text."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from thresher.apps.report import write_report

playwright = pytest.importorskip("playwright.sync_api", reason="the library playwright is not installed")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this machine")

ARGUMENTS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
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
  let worst = [99, ""];
  for (const node of document.querySelectorAll("body *")) {
    if (![...node.childNodes].some(c => c.nodeType === 3 && c.textContent.trim()) || !node.checkVisibility()) continue;
    if (["SCRIPT", "STYLE", "NOSCRIPT"].includes(node.tagName)) continue;
    const [a, b] = [light(parse(getComputedStyle(node).color)), light(ground(node))].sort((x, y) => y - x);
    const ratio = (a + .05) / (b + .05);
    if (ratio < worst[0]) worst = [ratio, node.className + " " + node.textContent.slice(0, 40)];
  }
  return worst;
}"""


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=ARGUMENTS)
        yield started
        started.close()


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("report")
    return write_report([_run(folder / "a", "lats"), _run(folder / "</script><b>", "gmp")], folder / "report.html")


def _run(folder: Path, method: str) -> Path:
    folder.mkdir(parents=True)
    names = ["<img src=x onerror=window.broken=1>", "conv2.weight", "fc.weight"]
    steps = list(range(50))
    rows = [{"kind": "step", "step": n, "loss": 1 / (n + 1), "sparsity": n / 60} for n in steps]
    rows += [{"kind": "epoch", "step": n, "epoch": n // 10, "accuracy": 70 + n / 5} for n in (9, 19, 29, 39, 49)]
    layers = [{"name": n, "shape": [8, 8], "entries": 64, "zeros": 50, "bytes": 90} for n in names]
    trace = {"names": names, "steps": steps, "clock": [n / 2 for n in steps]}
    trace["thresholds"] = [[1e-3 * n, 2e-3 * n, 2e-3 * n] for n in steps]
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "trace.json").write_text(json.dumps(trace))
    (folder / "report.json").write_text(
        json.dumps({"layers": layers, "sparsity": 0.78, "bytes": 300, "method": method})
    )
    (folder / "result.json").write_text(json.dumps({"accuracy_before": 81, "accuracy_after": 80, "dense_bytes": 900}))
    return folder


class Page:
    """An open page that remembers everything it should not have done."""

    def __init__(self, browser: Any, path: Path, *, scheme: str = "light", width: int = 1200) -> None:
        self.context = browser.new_context(color_scheme=scheme, viewport={"width": width, "height": 900})
        self.tab = self.context.new_page()
        self.wrong: list[str] = []
        self.tab.on("console", lambda message: self.wrong.append(message.text))
        self.tab.on("pageerror", lambda error: self.wrong.append(str(error)))
        self.tab.on("request", lambda request: self.wrong.append(request.url) if request.url != path.as_uri() else None)
        self.tab.goto(path.as_uri())
        self.tab.wait_for_selector("html[data-ready=yes]")

    def __enter__(self) -> Page:
        return self

    def __exit__(self, *_: object) -> None:
        self.context.close()


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [1200, 390])
def test_opens_without_errors_and_without_requests(browser: Any, report: Path, scheme: str, width: int) -> None:
    with Page(browser, report, scheme=scheme, width=width) as page:
        drawn = page.tab.locator(".chart canvas").count()
        assert drawn == page.tab.locator("[data-figure]").count() > 10
        assert page.tab.evaluate("document.documentElement.scrollWidth <= window.innerWidth")
        assert page.wrong == []


def test_hostile_names_run_nothing(browser: Any, report: Path) -> None:
    with Page(browser, report) as page:
        assert page.tab.evaluate("window.broken") is None
        assert page.tab.locator("main img, main b").count() == 0


def test_tooltip_by_mouse_and_by_keyboard(browser: Any, report: Path) -> None:
    with Page(browser, report) as page:
        chart = page.tab.locator("#run-0 .chart").nth(2)
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


def test_scatter_names_the_run(browser: Any, report: Path) -> None:
    with Page(browser, report) as page:
        chart = page.tab.locator("[data-figure=all-0]")
        chart.focus()
        page.tab.keyboard.press("End")
        page.tab.wait_for_timeout(100)
        assert "</script><b>" in chart.locator(".tip").inner_text() or "a\n" in chart.locator(".tip").inner_text()


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
        ratio, where = page.tab.evaluate(CONTRAST)
        assert ratio >= 4.5, where
