"""Claims about `thresher.plots`: every plot of the page as a matplotlib figure."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "apps"))
from report_folders import shrunk_run, trail_run

from thresher import Trail, plots
from thresher.budget.report import LayerReport, Report
from thresher.errors import InputError
from thresher.plots.figures import OF_ONE_RUN, OF_SEVERAL_RUNS, Detail
from thresher.plots.figures.histograms import histograms

pytest.importorskip("matplotlib")


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("plots")
    return {"trail": trail_run(folder / "trail"), "shrunk": shrunk_run(folder / "shrunk")}


@pytest.mark.parametrize("name", OF_ONE_RUN)
def test_every_plot_of_one_run_is_drawn(name: str, runs: dict[str, Path]) -> None:
    needs = OF_ONE_RUN[name][1]
    figure = plots.plot(name, runs["shrunk" if needs in ("shrink.json", "bench.json") else "trail"])
    axes = figure.axes[0]
    assert axes.get_title()
    assert axes.lines or axes.patches


@pytest.mark.parametrize("name", OF_SEVERAL_RUNS)
def test_every_comparison_is_drawn(name: str, runs: dict[str, Path]) -> None:
    assert plots.plot(name, *runs.values()).axes[0].get_ylabel() == "accuracy (%)"


def test_bars_are_as_high_as_the_numbers(runs: dict[str, Path]) -> None:
    axes = plots.plot("widths", runs["shrunk"]).axes[0]
    assert [patch.get_height() for patch in axes.patches] == [32, 32, 32, 8, 16, 24]
    assert [label.get_text() for label in axes.get_xticklabels()] == ["block1.conv", "block2.conv", "block3.conv"]


def test_a_variant_is_another_tensor(runs: dict[str, Path]) -> None:
    first = plots.plot("residuals", runs["shrunk"])
    third = plots.plot("residuals", runs["shrunk"], variant="block3.conv")
    marks = [figure.axes[0].lines[-1].get_xdata()[0] for figure in (first, third)]
    assert marks == [8, 24]
    with pytest.raises(InputError, match="one of block1"):
        plots.plot("residuals", runs["shrunk"], variant="none")


def test_a_plot_goes_into_given_axes_and_opens_no_window(runs: dict[str, Path]) -> None:
    from matplotlib import pyplot

    before = pyplot.get_fignums()
    plots.plot("zeros", runs["trail"])
    assert pyplot.get_fignums() == before
    figure, axes = pyplot.subplots(1, 2)
    assert plots.plot("zeros", runs["trail"], ax=axes[1]) is figure
    assert not axes[0].patches
    assert axes[1].patches
    pyplot.close(figure)


def test_dollar_signs_are_no_mathematics(tmp_path: Path) -> None:
    import json

    run = shrunk_run(tmp_path / "a")
    record = json.loads((run / "shrink.json").read_text())
    record["groups"][0]["name"] = "$\\frac{$"
    (run / "shrink.json").write_text(json.dumps(record))
    plots.plot("widths", run).savefig(tmp_path / "a.svg")
    assert (tmp_path / "a.svg").stat().st_size > 1000


def test_unknown_names_missing_data_and_too_many_runs_are_refused(runs: dict[str, Path]) -> None:
    with pytest.raises(InputError, match="one of trail, accuracy"):
        plots.plot("pie", runs["trail"])
    with pytest.raises(InputError, match=r"its data, from trace\.json"):
        plots.plot("thresholds", runs["shrunk"])
    with pytest.raises(InputError, match="2 runs for 'zeros'"):
        plots.plot("zeros", *runs.values())


def test_save_all_writes_the_same_vector_files_twice(runs: dict[str, Path], tmp_path: Path) -> None:
    first = plots.save_all([runs["shrunk"]], tmp_path / "one", "pdf")
    second = plots.save_all([runs["shrunk"]], tmp_path / "two", "pdf")
    assert [path.name for path in first] == [path.name for path in second]
    assert {path.stem for path in first} >= {"widths", "errors", "residuals", "times"}
    assert all(one.read_bytes() == two.read_bytes() for one, two in zip(first, second, strict=True))


def test_histogram_frames_count_the_weights_that_are_left(runs: dict[str, Path]) -> None:
    figure = histograms(plots.read_run(runs["trail"]), Detail())
    assert figure is not None
    left = [sum(frame.values[1]) for frame in figure.frames]  # type: ignore[arg-type]
    assert left[0] == 600
    assert left == sorted(left, reverse=True)
    assert figure.marks == (-0.1, 0.1)


def report(**changes: Any) -> Report:
    layer = LayerReport(name="<b>fc", shape=(4, 4), entries=16, zeros=8, macs=16.0, macs_left=8.0, bytes=40)
    fields: dict[str, Any] = {"method": "gmp", "asked": "sparsity=50%", "got": {"sparsity": 0.5}, "layers": (layer,)}
    fields |= {"params": 8, "total_params": 16, "macs": 8.0, "total_macs": 16.0, "bytes": 60, "dense_bytes": 64}
    return Report(**{**fields, **changes})


def test_reports_and_trails_show_themselves_with_texts_escaped(runs: dict[str, Path]) -> None:
    shown = report(notes=("<script>",))._repr_html_()
    assert "&lt;b&gt;fc" in shown
    assert "<b>" not in shown
    assert "<script" not in shown
    assert "50.00%" in shown
    trail = Trail(runs["trail"] / "trail")._repr_html_()
    assert trail.count("<tr>") == 1 + 6
