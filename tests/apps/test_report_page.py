"""The report page as text: what it says, what it refuses to become, how large it gets."""

from __future__ import annotations

import html
import json
import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from report_folders import HOSTILE as HOSTILE_TEXTS
from report_folders import shrunk_run, trail_run

from thresher.apps.report import run_folders, write_report
from thresher.apps.report.explorer import command_for
from thresher.errors import InputError
from thresher.plots.outcome import outcome_of
from thresher.plots.reading import read_run

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
        "128.4 KB instead of 1.1 MB, 8.42× smaller; 1.5 ms a pass instead of 3 (torch), 2× faster."
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
    assert "stays within +0.0 % to +0.0 % of the median. No threshold moves after step 34." in page


def test_a_run_that_goes_on_shows_its_largest_threshold(tmp_path: Path) -> None:
    run = write_run(tmp_path / "a")
    (run / "trace.json").unlink()
    rows = [{"kind": "step", "step": n, "loss": 1.0, "threshold": n / 100, "sparsity": 0.1} for n in (1, 2, 3)]
    (run / "metrics.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    figures = {one["title"]: one for one in data_in(page_of(run, out=tmp_path / "r.html")).values()}
    assert figures["Thresholds over time"]["series"][0]["values"] == [0.01, 0.02, 0.03]


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
    assert "1.9 ms a pass (torch), as long as the dense network" in page


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


def test_seeds_become_one_dot_with_its_spread(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"s{seed}", seed=seed) for seed in (0, 1)]
    result = json.loads((runs[1] / "result.json").read_text()) | {"accuracy_after": 93.02}
    (runs[1] / "result.json").write_text(json.dumps(result))
    page = page_of(*runs, write_run(tmp_path / "other", lr=0.2, seed=0), out=tmp_path / "r.html")
    scatter = data_in(page)["all-0"]
    assert sorted(scatter["series"][0]["values"]) == [91.02, 92.02]
    assert sorted(scatter["series"][0]["high"]) == [91.02, 93.02]
    assert "92.02 ± 1.41 %" in page


def test_best_settings_choose_the_highest_mean(tmp_path: Path) -> None:
    runs = [write_run(tmp_path / f"r{lr}", lr=lr) for lr in (0.1, 0.2)]
    result = json.loads((runs[1] / "result.json").read_text()) | {"accuracy_after": 95.5}
    (runs[1] / "result.json").write_text(json.dumps(result))
    page = page_of(*runs, out=tmp_path / "r.html")
    best = re.search(r'<table id="best">.*?</table>', page, re.DOTALL)
    assert best is not None
    assert "lr=0.2" in best[0]
    assert "lr=0.1" not in best[0]
    assert "95.50 %" in best[0]


def test_a_front_keeps_what_nothing_beats(tmp_path: Path) -> None:
    runs = []
    for name, accuracy, size in (("a", 90.0, 100), ("b", 80.0, 50), ("c", 79.0, 60), ("d", 85.0, 70)):
        runs.append(write_run(tmp_path / name, method=name))
        result = json.loads((runs[-1] / "result.json").read_text()) | {"accuracy_after": accuracy, "bytes": size}
        (runs[-1] / "result.json").write_text(json.dumps(result))
    figures = {one["title"]: one for one in data_in(page_of(*runs, out=tmp_path / "r.html")).values()}
    front = next(one for one in figures["Accuracy against bytes"]["series"] if one["label"] == "Pareto front")
    assert figures["Accuracy against bytes"]["across"] == [50, 60, 70, 100]
    assert front["values"] == [80, None, 85, 90]


def test_a_folder_of_runs_stands_for_its_runs(tmp_path: Path) -> None:
    for name in ("gmp", "lats"):
        write_run(tmp_path / "sweep" / "runs" / name)
    (tmp_path / "sweep" / "sweep.json").write_text("{}")
    (tmp_path / "sweep" / "config.json").write_text("{}")
    assert "2 runs compared" in page_of(tmp_path / "sweep", out=tmp_path / "r.html")
    assert [path.name for path in run_folders([tmp_path / "sweep", tmp_path / "sweep" / "runs" / "gmp"])] == [
        "gmp",
        "lats",
        "gmp",
    ]


def test_every_text_of_a_folder_may_be_hostile(tmp_path: Path) -> None:
    makers = (trail_run, shrunk_run)
    bad = [make(tmp_path / f"bad{number}", spoil=True) for number, make in enumerate(makers)]
    good = [make(tmp_path / f"good{number}") for number, make in enumerate(makers)]
    page = page_of(*bad, out=tmp_path / "r.html")
    tags, reference = Tags(page), Tags(page_of(*good, out=tmp_path / "s.html"))
    assert tags.suspect == []
    for tag in ("script", "style", "img", "svg", "b", "iframe"):
        assert tags.seen.count(tag) == reference.seen.count(tag)
    assert not any(each in page for each in HOSTILE_TEXTS if "<" in each)
    assert sum(html.unescape(page).count(each) for each in HOSTILE_TEXTS) > 20  # they are there, as texts


def test_trail_has_a_place_for_each_network_and_the_command_that_exports_it(tmp_path: Path) -> None:
    run = trail_run(tmp_path / "my run")
    page = page_of(run, out=tmp_path / "r.html")
    places = json.loads(re.search(r'id="trails">(.*?)</script>', page, re.DOTALL)[1])["run-0"]  # type: ignore[index]
    assert [place["step"] for place in places] == [10, 20, 30, 40, 50, 60]
    assert places[1]["texts"]["zeros"] == "50.00 %"
    assert places[1]["command"] == f"thresher trail '{run}' --pick step=20 --out picked.safetensors"
    figures = {one["title"]: one for one in data_in(page).values()}
    frames = figures["Zeros by layer"]["frames"]
    assert [len(frame["values"][0]) for frame in frames] == [2] * 6
    zeros = [sum(share * n for share, n in zip(frame["values"][0], (600, 200), strict=True)) / 100 for frame in frames]
    assert zeros == pytest.approx([0, 400, 533, 600, 640, 666], abs=1)
    assert figures["Weights, before and after"]["variants"][0][0] == "first"


def test_a_name_that_a_terminal_would_obey_gives_no_command() -> None:
    assert command_for("runs/\x1b[2Ja", 3) == ""
    assert command_for("runs/a\nb", 3) == ""
    assert command_for("-rf", 3).startswith("thresher trail ./-rf ")
    assert command_for("a;b", 3).startswith("thresher trail 'a;b' ")


def test_damaged_networks_of_a_trail_are_named(tmp_path: Path) -> None:
    run = trail_run(tmp_path / "a")
    files = sorted((run / "trail").iterdir())
    files[0].write_bytes(files[0].read_bytes()[:200])
    whole = bytearray(files[2].read_bytes())
    whole[-1] ^= 255
    files[2].write_bytes(whole)
    page = html.unescape(page_of(run, out=tmp_path / "r.html"))
    assert "point-00000010.safetensors" in page
    assert "the layers of its networks cannot be read" in page
    assert "The trail" in {one["title"] for one in data_in(page_of(run, out=tmp_path / "s.html")).values()}


def test_a_structured_run_shows_widths_errors_and_the_bound(tmp_path: Path) -> None:
    page = html.unescape(page_of(shrunk_run(tmp_path / "a"), out=tmp_path / "r.html"))
    assert "Asked for flops=40%, got 40.00 % of the multiply-adds; accuracy 91.00 % before and 89.50 % after" in page
    assert "The bound is proven." in page
    assert "is not there" not in page
    figures = {one["title"]: one for one in data_in(page).values()}
    error = figures["Error of the output"]
    assert error["names"] == ["measured", "predicted", "bound"]
    # The bound holds for the error per sample, 1.5, which is 0.19 of the output.
    assert error["series"][0]["values"] == pytest.approx([0.19, 0.18, 41 * 0.19 / 1.5], rel=1e-4)
    widths = figures["What was cut: widths before and after"]["series"]
    assert [one["values"] for one in widths] == [[32, 32, 32], [8, 16, 24]]
    residual = figures["Residual against units kept"]
    assert residual["marks"] == [8]
    after, before, promised = residual["series"]
    assert after["values"][:2] == pytest.approx([2, 2 / 2**1.5], rel=1e-4)
    assert before["values"][:2] == [4, 2]
    assert promised["values"][:2] == pytest.approx([3, 3 / 2**1.5], rel=1e-4)
    assert promised["label"] == "predicted decay s^-1.50"
    times = dict(figures["Milliseconds a pass"]["variants"])
    drawn = {
        key: dict(zip(figure["names"], figure["series"][0]["values"], strict=True)) for key, figure in times.items()
    }
    assert drawn == {
        "at the end of the run": {"dense, measured": 5, "multiply-adds promise": 2, "now, measured": 3.1},
        "bench": {"torch dense": 2.4, "multiply-adds promise": 0.96, "thresher pruned": 1.2},
        "the budget's own measurement": {"dense": 5, "limit asked": 4, "predicted": 3.5, "now, measured": 3.9},
    }
    layers = figures["Milliseconds by layer"]
    assert layers["names"] == ["conv1"]
    assert [(one["label"], one["values"]) for one in layers["series"]] == [("dense, in torch", [1.0]), ("now", [0.4])]
    assert "1.2 ms a pass instead of 2.4 (bench), 2× faster" in page


def test_timings_alone_make_a_page_of_their_own(tmp_path: Path) -> None:
    rows = [
        {"engine": engine, "variant": kind, "batch": batch, "threads": 1, "milliseconds": at * batch, "rounds": [1, at]}
        for engine, kind, at in (("torch", "dense", 4.0), ("torch", "pruned", 4.2), ("thresher", "pruned", 1.0))
        for batch in (1, 16)
    ]
    variants = {
        "dense": {"bytes": 1000, "zeros": 0, "entries": 50},
        "pruned": {"bytes": 200, "zeros": 45, "entries": 50},
    }
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "bench.json").write_text(json.dumps({"rows": rows, "variants": variants}))
    page = html.unescape(page_of(tmp_path / "a", out=tmp_path / "r.html"))
    assert (
        "Timed, not trained, with 90.00 % zeros; 200 B instead of 1.0 KB, 5× smaller; "
        "1 ms a pass instead of 4 (batch 1, 1 thread), 4× faster" in page
    )
    assert "Not drawn" not in page
    (figure,) = data_in(page).values()
    assert [name for name, _ in figure["variants"]] == ["batch 1, 1 thread", "batch 16, 1 thread"]
    assert figure["names"] == ["torch dense", "torch pruned", "thresher pruned"]


def test_times_of_other_conditions_are_not_compared(tmp_path: Path) -> None:
    for name, at in (("a", 1.0), ("b", 2.0), ("c", None)):
        run = write_run(tmp_path / name)  # each with milliseconds in torch, to which zeros make no difference
        rows = [{"engine": "torch", "variant": "dense", "batch": 1, "milliseconds": 4.0, "agrees": True}]
        rows.append({"engine": "wrong", "variant": "pruned", "batch": 1, "milliseconds": 0.1, "agrees": False})
        rows.append({"engine": "thresher", "variant": "pruned", "batch": 1, "milliseconds": at, "agrees": True})
        if at is not None:
            (run / "bench.json").write_text(json.dumps({"rows": rows}))
    page = page_of(tmp_path / "a", tmp_path / "b", tmp_path / "c", out=tmp_path / "r.html")
    figures = {one["title"]: one for one in data_in(page).values()}
    assert figures["Accuracy against milliseconds"]["across"] == [1.5]  # runs alike: their mean, without the third
    assert "ms: one pass at batch 1." in page
    assert "1.5 ms a pass instead of 3 (torch)" in page  # its own section still says what it knows


@pytest.mark.parametrize("name", ["shrink.json", "plan.json", "bench.json", "histograms.json", "sensitivity.json"])
@pytest.mark.parametrize("rubbish", ["", "[", '{"groups": [1, {"units": 0}, {"units": "x"}], "layers": {}, "rows": 3}'])
def test_half_of_an_optional_file_makes_a_page(tmp_path: Path, name: str, rubbish: str) -> None:
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / name).write_text(rubbish)
    page = page_of(tmp_path / "a", out=tmp_path / "r.html")
    assert (f"{name} cannot be read, or is only half written" in page) == (not rubbish.endswith("}"))


def test_many_networks_stay_under_the_limit(tmp_path: Path) -> None:
    run = trail_run(tmp_path / "a", points=30)
    stored = json.loads((run / "histograms.json").read_text())
    stored["layers"] = [{**stored["layers"][0], "name": f"layer{number}.weight"} for number in range(400)]
    (run / "histograms.json").write_text(json.dumps(stored))
    out = write_report([run] * 6, tmp_path / "r.html")
    assert out.stat().st_size < 1_500_000


def test_bad_paths_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no run folders"):
        write_report([], tmp_path / "r.html")
    with pytest.raises(InputError, match="a run folder"):
        write_report([tmp_path / "nowhere"], tmp_path / "r.html")
    with pytest.raises(InputError, match="cannot be written"):
        write_report([write_run(tmp_path / "a")], tmp_path / "none" / "r.html")
