"""The report page as text: what it says, what it refuses to become, how large it gets."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest

from thresher.apps.report import write_report
from thresher.apps.report.outcome import outcome_of
from thresher.apps.report.reading import read_run
from thresher.errors import InputError

HOSTILE = "</script><img src=x onerror=alert(1)><script>alert(2)</script>{{7*7}}'\""


def write_run(folder: Path, *, layers: int = 3, steps: int = 40, name: str = "layer{}.weight", **changes: Any) -> Path:
    """A finished run folder, made by hand."""
    folder.mkdir(parents=True)
    names = [name.format(number) for number in range(layers)]
    config = {"model": "small", "method": "lats", "budget": "sparsity=90%", "lr": 0.05, **changes}
    rows = [
        {"kind": "step", "epoch": 1, "step": n, "loss": 2 / n, "lr": 0.05, "sparsity": 0.9 * n / steps, "seconds": n}
        for n in range(1, steps + 1)
    ]
    rows += [
        {"kind": "epoch", "epoch": n, "step": n * 10, "accuracy": 80.0 + n, "sparsity": 0.2 * n} for n in (1, 2, 4)
    ]
    clock = [0.5 * n for n in range(steps + 1)]
    trace = {
        "names": names,
        "every": 1,
        "steps": list(range(steps + 1)),
        "clock": clock,
        "thresholds": [[1e-3 * at * (1 + number) for number in range(layers)] for at in clock],
    }
    report = {
        "version": 1,
        "method": "lats",
        "asked": "sparsity=90%",
        "got": {"sparsity": 0.9},
        "sparsity": 0.9,
        "entries": 1000 * layers,
        "layers": [
            {
                "name": each,
                "shape": [10, 100],
                "entries": 1000,
                "zeros": 900,
                "macs": 1e6,
                "macs_left": 1e5,
                "bytes": 525,
            }
            for each in names
        ],
        "bytes": 525 * layers + 900,
        "dense_bytes": 4000 * layers,
    }
    result = {"accuracy_before": 91.73, "accuracy_after": 91.02, "bytes": 128_400, "dense_bytes": 1_081_000}
    result |= {"sparsity": 0.9, "seconds": 62.0, "milliseconds_dense": 3.0, "milliseconds": 1.5}
    (folder / "config.json").write_text(json.dumps(config))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    (folder / "trace.json").write_text(json.dumps(trace))
    (folder / "report.json").write_text(json.dumps(report))
    (folder / "result.json").write_text(json.dumps(result))
    return folder


def page_of(*runs: Path, out: Path) -> str:
    return write_report(runs, out).read_text(encoding="utf-8")


def data_in(page: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)
    assert found is not None
    return json.loads(found[1])  # type: ignore[no-any-return]


class Tags(HTMLParser):
    """Counts elements, and collects attributes that could run or fetch something."""

    def __init__(self, page: str) -> None:
        super().__init__()
        self.seen: list[str] = []
        self.suspect: list[tuple[str, str]] = []
        self.feed(page)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.append(tag)
        for key, value in attrs:
            if key.startswith("on") or key == "src" or (key == "href" and not (value or "").startswith("#")):
                self.suspect.append((tag, key))


def test_verdict_names_what_was_asked_and_what_was_got(tmp_path: Path) -> None:
    page = html.unescape(page_of(write_run(tmp_path / "a"), out=tmp_path / "r.html"))
    expected = (
        "Asked for sparsity=90%, got 90.00 % zeros; accuracy 91.73 % before and 91.02 % after (−0.71 points); "
        "128.4 KB instead of 1.1 MB, 8.42× smaller; 1.5 ms a pass instead of 3, 2× faster."
    )
    assert expected in page
    assert "budget met" in page


def test_plots_hold_the_numbers_of_the_folder(tmp_path: Path) -> None:
    figures = {one["title"]: one for one in data_in(page_of(write_run(tmp_path / "a"), out=tmp_path / "r")).values()}
    assert figures["Accuracy over time"]["across"] == [10, 20, 40]
    assert figures["Accuracy over time"]["series"][0]["values"] == [81, 82, 84]
    assert figures["Zeros over time"]["series"][0]["values"][-1] == 90
    assert len(figures["Thresholds over time"]["series"]) == 3
    penalty = figures["Implied L1 coefficient λ"]["series"][0]
    assert penalty["values"] == pytest.approx([2e-3] * 40)  # the middle of three tensors at 1e-3, 2e-3, 3e-3
    assert (penalty["low"][0], penalty["high"][0]) == pytest.approx((1e-3, 3e-3))
    assert figures["Zeros by layer"]["series"][0]["values"] == [90, 90, 90]


def test_equal_thresholds_share_a_line(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    trace = json.loads((run / "trace.json").read_text())
    trace["thresholds"] = [[row[0]] * 3 for row in trace["thresholds"]]
    (run / "trace.json").write_text(json.dumps(trace))
    figures = data_in(page_of(run, out=tmp_path / "r")).values()
    drawn = next(one for one in figures if one["title"] == "Thresholds over time")
    assert [one["label"] for one in drawn["series"]] == ["all 3 tensors"]


def test_hostile_names_stay_text(tmp_path: Path) -> None:
    hostile = write_run(tmp_path / "<b>run&", name=HOSTILE.replace("{{7*7}}", "") + "{}", model=HOSTILE, method=HOSTILE)
    plain = write_run(tmp_path / "plain")
    page = page_of(hostile, plain, out=tmp_path / "r.html")
    tags, reference = Tags(page), Tags(page_of(plain, plain, out=tmp_path / "s.html"))
    assert tags.suspect == []
    for tag in ("script", "img", "b", "style"):
        assert tags.seen.count(tag) == reference.seen.count(tag)
    assert "<img" not in page
    assert "&lt;b&gt;run&amp;" in page
    assert "{{7*7}}" in page
    assert any("</script><img" in label for one in data_in(page).values() for label in one["names"])


def test_nothing_is_fetched(tmp_path: Path) -> None:
    page = page_of(write_run(tmp_path / "a"), out=tmp_path / "r.html")
    assert Tags(page).suspect == []
    assert "link" not in Tags(page).seen
    assert "default-src 'none'" in html.unescape(page)
    assert "@import" not in page
    assert "url(" not in page


def test_half_written_folder_still_makes_a_page_and_says_what_is_missing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    (run / "metrics.jsonl").write_text(
        '{"kind":"epoch","epoch":1,"step":5,"accuracy":80.5,"sparsity":0.3}\n{"kind":"ep'
    )
    (run / "config.json").write_text('{"method": "la')
    (run / "result.json").unlink()
    (run / "report.json").unlink()
    page = page_of(run, out=tmp_path / "r.html")
    assert "metrics.jsonl: 1 of 2 lines half written" in page
    assert "config.json cannot be read, or is only half written" in page
    assert "result.json is not there" in page
    assert "Not drawn: Zeros by layer (from report.json)" in page
    assert "got 30.00 % zeros; accuracy 80.50 %" in page
    assert "has not finished" in page


def test_empty_folder_makes_a_page(tmp_path: Path) -> None:
    (tmp_path / "a").mkdir()
    page = page_of(tmp_path / "a", out=tmp_path / "r.html")
    assert page.count("is not there") == 5
    assert data_in(page) == {}


@pytest.mark.parametrize(
    "rubbish",
    ["[]", "null", '"text"', '{"layers": 3, "names": {}, "steps": "x", "got": []}', "[" * 5000, '{"a":1e999}'],
)
def test_alien_json_makes_a_page(tmp_path: Path, rubbish: str) -> None:
    (tmp_path / "a").mkdir()
    for name in ("config.json", "trace.json", "report.json", "result.json", "metrics.jsonl"):
        (tmp_path / "a" / name).write_text(rubbish)
    assert "</html>" in page_of(tmp_path / "a", out=tmp_path / "r.html")


def test_numbers_that_are_none_are_left_out(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    (run / "metrics.jsonl").write_text(
        '{"kind":"epoch","step":1,"accuracy":NaN}\n{"kind":"epoch","step":2,"accuracy":true}'
    )
    (run / "result.json").write_text('{"accuracy_after": Infinity, "bytes": "many", "seconds": null}')
    page = page_of(run, out=tmp_path / "r.html")
    assert "Not drawn: Accuracy over time (from metrics.jsonl)" in page
    assert "NaN" not in json.dumps(data_in(page))


def test_threshold_dropping_to_zero_is_the_fixed_support(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    trace = json.loads((run / "trace.json").read_text())
    trace["thresholds"][20:] = [[0.0] * 3 for _ in trace["thresholds"][20:]]
    (run / "trace.json").write_text(json.dumps(trace))
    page = page_of(run, out=tmp_path / "r.html")
    assert "The support was fixed at step 20" in page
    figures = {one["title"]: one for one in data_in(page).values()}
    assert figures["Thresholds over time"]["across"][-1] == 19
    assert min(figures["Implied L1 coefficient λ"]["series"][0]["low"]) > 0


def test_thresholds_that_stand_still_end_the_penalty_trace(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    trace = json.loads((run / "trace.json").read_text())
    trace["thresholds"][35:] = [trace["thresholds"][35]] * 6
    (run / "trace.json").write_text(json.dumps(trace))
    page = html.unescape(page_of(run, out=tmp_path / "r.html"))
    assert "stays between +0.0 % and +0.0 % of that. No threshold moves after step 34." in page


def test_missed_budget_is_said(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    report = json.loads((run / "report.json").read_text())
    report["got"] = {"sparsity": 0.898}
    (run / "report.json").write_text(json.dumps(report))
    assert outcome_of(read_run(run)).met is False
    assert "budget missed" in page_of(run, out=tmp_path / "r.html")


def test_small_differences_in_time_are_not_called_faster(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    result = json.loads((run / "result.json").read_text()) | {"milliseconds_dense": 2.0, "milliseconds": 1.9}
    (run / "result.json").write_text(json.dumps(result))
    page = page_of(run, out=tmp_path / "r.html")
    assert "faster" not in page
    assert "1.9 ms a pass, as long as the dense network" in page


def test_plain_training_misses_nothing(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a", method=None, budget=None)
    (run / "trace.json").unlink()
    (run / "report.json").unlink()
    page = page_of(run, out=tmp_path / "r.html")
    assert "Trained without pruning" in page
    assert "is not there" not in page
    assert "Not drawn" not in page


def test_several_runs_are_compared(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / "x" / "run"), write_run(tmp_path / "y" / "run", method="gmp", lr=0.1)]
    page = html.unescape(page_of(*runs, out=tmp_path / "r.html"))
    assert "2 runs compared" in page
    assert "x/run" in page
    assert "y/run" in page
    assert "Settings that differ (2)" in page
    scatter = data_in(page)["all-0"]
    assert scatter["title"] == "Accuracy against zeros"
    assert [one["label"] for one in scatter["series"]] == ["lats", "gmp"]
    assert [one["values"] for one in scatter["series"]] == [[91.02, None], [None, 91.02]]


def test_large_runs_stay_under_the_limit(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"r{number}", layers=150, steps=800, seed=number) for number in range(3)]
    out = write_report(runs * 12, tmp_path / "r.html")
    assert out.stat().st_size < 1_500_000
    assert "36 runs compared" in out.read_text(encoding="utf-8")


def test_one_run_page_is_small(tmp_path: Path) -> None:
    assert write_report([write_run(tmp_path / "a")], tmp_path / "r.html").stat().st_size < 150_000


def test_bad_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folders"):
        write_report([], tmp_path / "r.html")
    with pytest.raises(InputError, match="a run folder"):
        write_report([tmp_path / "nowhere"], tmp_path / "r.html")
    with pytest.raises(InputError, match="cannot be written"):
        write_report([write_run(tmp_path / "a")], tmp_path / "none" / "r.html")
