"""Accuracy, sparsity and loss over time, from metrics.jsonl."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from thresher.plots.figures.figure import Axis, Detail, Figure, Series, rounded, spread, table
from thresher.plots.formats import count, number, percent, plain
from thresher.plots.reading import Record, Run

Pairs = list[tuple[float, float]]


def accuracy(run: Run, detail: Detail) -> Figure | None:
    """Measured accuracy at the end of each epoch; of each logged step where there are no epochs."""
    axis = Axis(label="accuracy", format="percent")
    pairs = _pairs(run.epochs, "accuracy") or _pairs(run.steps, "accuracy")
    return _over_time("Accuracy over time", "accuracy", pairs, axis, percent, detail, run)


def sparsity(run: Run, detail: Detail) -> Figure | None:
    """Share of exact zeros over the prunable weights."""
    axis = Axis(label="zeros", format="percent", low=0, high=100)
    pairs = _longer(_pairs(run.steps, "sparsity"), _pairs(run.epochs, "sparsity"))
    if run.shrink and not any(value for _, value in pairs):
        return None  # whole units are gone; no zeros are left behind
    pairs = [(at, 100 * value) for at, value in pairs]
    return _over_time("Zeros over time", "zeros", pairs, axis, percent, detail, run)


def loss(run: Run, detail: Detail) -> Figure | None:
    """Training loss."""
    pairs = _longer(_pairs(run.steps, "loss"), _pairs(run.epochs, "loss"))
    return _over_time("Loss over time", "loss", pairs, Axis(label="loss"), plain, detail, run)


def _pairs(rows: Sequence[Record], key: str) -> Pairs:
    """(step, value) in order of the step; the epoch stands in where no row knows its step."""
    clock = "step" if any(number(row.get("step")) is not None for row in rows) else "epoch"
    found = [(number(row.get(clock)), number(row.get(key))) for row in rows]
    return sorted((at, value) for at, value in found if at is not None and value is not None)


def _longer(one: Pairs, other: Pairs) -> Pairs:
    return one if len(one) >= len(other) else other


def _over_time(
    title: str, label: str, pairs: Pairs, axis: Axis, write: Callable[[float], str], detail: Detail, run: Run
) -> Figure | None:
    if not pairs:
        return None
    shown = [pairs[place] for place in spread(len(pairs), detail.points)]
    has_steps = any(number(row.get("step")) is not None for row in (*run.steps, *run.epochs))
    clock = "optimizer step" if has_steps else "epoch"
    return Figure(
        title=title,
        kind="lines",
        x=Axis(label=clock, format="count"),
        y=axis,
        across=tuple(at for at, _ in shown),
        series=(Series(label=label, values=tuple(rounded(value) for _, value in shown)),),
        table=table([clock, label], [(count(at), write(value)) for at, value in shown], 60, evenly=True),
    )
