"""The networks that a run kept on the way: what accuracy costs, in zeros, bytes and multiply-adds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from thresher.plots.figures.figure import Axis, Detail, Figure, Frame, Series, rounded, table
from thresher.plots.formats import count, percent, plain, share, size
from thresher.plots.points import Stop
from thresher.plots.reading import Run


def trail(run: Run, detail: Detail) -> Figure | None:
    """Accuracy along the trail, against zeros, bytes or multiply-adds."""
    if run.trail is None:
        return None
    stops = run.trail.stops
    costs: tuple[tuple[str, Axis, Callable[[Stop], float | None]], ...] = (
        ("zeros", Axis(label="zeros", format="percent"), lambda stop: 100 * stop.sparsity),
        ("bytes", Axis(label="bytes", format="bytes"), lambda stop: stop.bytes),
        ("multiply-adds", Axis(label="multiply-adds left", format="count"), lambda stop: stop.flops),
    )
    rows = [
        (
            str(stop.step),
            share(stop.sparsity),
            percent(stop.accuracy),
            plain(stop.drop),
            size(stop.bytes),
            count(stop.flops),
            count(stop.images),
        )
        for stop in stops
    ]
    head = ["step", "zeros", "accuracy", "points under dense", "size", "multiply-adds", "test images"]
    behind = table(head, rows, detail.rows, evenly=True)
    found = []
    for name, axis, cost in costs:
        known = [
            (at, place)
            for place, stop in enumerate(stops)
            if (at := cost(stop)) is not None and stop.accuracy is not None
        ]
        if not known:
            continue
        known.sort()
        where = {place: number for number, (_, place) in enumerate(known)}
        values = tuple(rounded(stops[place].accuracy) for _, place in known)
        series = [Series(label="accuracy", values=values, style="linked")]
        if run.trail.dense_accuracy is not None:
            dense = tuple(rounded(run.trail.dense_accuracy) for _ in known)
            series.append(Series(label="dense network", values=dense, style="dashed", colour=7))
        figure = Figure(
            title="The trail",
            kind="scatter",
            x=axis,
            y=Axis(label="accuracy", format="percent"),
            across=tuple(rounded(at) or 0.0 for at, _ in known),
            names=tuple(f"step {stops[place].step:,}" for _, place in known),
            series=tuple(series),
            table=behind,
            caption="Accuracy of the networks that the run kept on its way.",
            frames=tuple(Frame(place=where.get(place)) for place in range(len(stops))),
        )
        found.append((f"against {name}", figure))
    if not found:
        return None
    return replace(found[0][1], variants=tuple(found) if len(found) > 1 else ())
