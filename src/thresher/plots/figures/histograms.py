"""How large the weights of each tensor are, with the threshold drawn in, from histograms.json and the trail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from thresher.plots.figures.figure import Axis, Detail, Figure, Frame, Series, rounded, table
from thresher.plots.formats import count, number, plain
from thresher.plots.points import BINS
from thresher.plots.reading import Run

MOST_BINS = 2000


def histograms(run: Run, detail: Detail) -> Figure | None:
    """One variant per tensor: before the run, and what is left; `±threshold` as lines."""
    record = run.more.get("histograms.json", {})
    rows = record.get("layers")
    whole = [figure for row in rows if (figure := _one(row, run))] if isinstance(rows, list) else []
    if not whole:
        return None
    shown = whole[: detail.histograms]
    note = "" if len(shown) == len(whole) else f" The first {len(shown)} of {len(whole)} tensors."
    shown = [(name, replace(figure, caption=figure.caption + note)) for name, figure in shown]
    return replace(shown[0][1], variants=tuple(shown) if len(shown) > 1 else ())


def _one(row: Any, run: Run) -> tuple[str, Figure] | None:
    if not isinstance(row, Mapping):
        return None
    reach = number(row.get("reach"))
    before, after = _counts(row.get("before")), _counts(row.get("after"))
    if not reach or reach <= 0 or not before or len(before) != len(after):
        return None
    name = str(row.get("name"))
    threshold = number(row.get("threshold"))
    width = 2 * reach / len(before)
    across = tuple(rounded(-reach + (place + 0.5) * width) or 0.0 for place in range(len(before)))
    frames = []
    for stop in run.trail.stops if run.trail is not None and len(before) == BINS else ():
        layer = stop.layers.get(name)
        acting = stop.thresholds.get(name)
        values = (None, tuple(float(each) for each in layer.counts)) if layer is not None else (None, None)
        frames.append(Frame(values=values, marks=_both(acting)))
    entries, zeros = number(row.get("entries")), number(row.get("zeros"))
    lines = [f"{count(zeros)} of {count(entries)} weights are zero and not drawn." if zeros is not None else ""]
    if threshold:
        lines.append(f"Lines: the threshold, {plain(threshold)}, where it last acted.")
    short = name[:120].removesuffix(".weight")
    figure = Figure(
        title="Weights, before and after",
        kind="histogram",
        x=Axis(label="weight"),
        y=Axis(label="weights", format="count", low=0),
        across=across,
        series=(
            Series(label="before the run", values=before, style="ghost"),
            Series(label="now, not zero", values=after, colour=0),
        ),
        table=table(
            ["weight around", "before", "now"],
            [(plain(at), count(old), count(new)) for at, old, new in zip(across, before, after, strict=True)],
            60,
            evenly=True,
        ),
        caption=" ".join(filter(None, lines)),
        marks=_both(threshold),
        frames=tuple(frames),
    )
    return short, figure


def _both(threshold: float | None) -> tuple[float, ...]:
    at = number(threshold)
    return () if not at else (rounded(-at) or 0.0, rounded(at) or 0.0)


def _counts(value: object) -> tuple[float, ...]:
    if not isinstance(value, list) or len(value) > MOST_BINS:
        return ()
    found = tuple(number(each) for each in value)
    return () if None in found else tuple(each for each in found if each is not None)
