"""Zeros, multiply-adds and bytes layer by layer, from report.json and the trail."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from thresher.plots.figures.figure import Axis, Detail, Figure, Frame, Series, rounded, table
from thresher.plots.formats import UNKNOWN, count, number, share, size
from thresher.plots.points import LayerState
from thresher.plots.reading import Run

MOST_BARS = 120


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One row of report.json as far as it can be read."""

    name: str
    key: str
    shape: str
    entries: float
    zeros: float
    macs: float | None
    macs_left: float | None
    bytes: float | None


def layers_of(run: Run) -> list[Layer]:
    """The readable layers."""
    rows = run.report.get("layers")
    found = []
    for row in rows if isinstance(rows, list) else []:
        if not isinstance(row, dict):
            continue
        entries, zeros = number(row.get("entries")), number(row.get("zeros"))
        if entries is None or zeros is None or entries <= 0:
            continue
        shape = row.get("shape")
        found.append(
            Layer(
                name=str(row.get("name"))[:120].removesuffix(".weight"),
                key=str(row.get("name")),
                shape="×".join(str(extent)[:12] for extent in shape[:8]) if isinstance(shape, list) else "",
                entries=entries,
                zeros=zeros,
                macs=number(row.get("macs")),
                macs_left=number(row.get("macs_left")),
                bytes=number(row.get("bytes")),
            )
        )
    return found


def zeros_by_layer(run: Run, detail: Detail) -> Figure | None:
    """Share of zeros in each tensor."""
    layers = layers_of(run)
    axis = Axis(label="zeros", format="percent", low=0, high=100)
    rows = [
        (
            *(layer.name, layer.shape, count(layer.entries), count(layer.zeros)),
            *(share(layer.zeros / layer.entries), count(layer.macs), count(layer.macs_left)),
        )
        for layer in layers
    ]
    head = ["tensor", "shape", "entries", "zeros", "share", "multiply-adds", "left"]
    series = [Series(label="zeros", values=tuple(100 * layer.zeros / layer.entries for layer in layers))]
    frames = _frames(run, layers, lambda layer, state: 100 * state.zeros / layer.entries, behind=0)
    return _bars("Zeros by layer", axis, layers, series, head, rows, detail, frames)


def macs_by_layer(run: Run, detail: Detail) -> Figure | None:
    """Multiply-adds of each tensor, dense and left."""
    layers = [layer for layer in layers_of(run) if layer.macs is not None and layer.macs_left is not None]
    rows = [
        (layer.name, count(layer.macs), count(layer.macs_left), _part(layer.macs_left, layer.macs)) for layer in layers
    ]
    head = ["tensor", "multiply-adds, dense", "left", "share"]
    series = [
        Series(label="dense", values=tuple(layer.macs for layer in layers), style="ghost"),
        Series(label="left", values=tuple(layer.macs_left for layer in layers), colour=0),
    ]
    frames = _frames(run, layers, lambda layer, state: (layer.macs or 0) * (1 - state.zeros / layer.entries), behind=1)
    axis = Axis(label="multiply-adds", format="count", low=0)
    return _bars("Multiply-adds by layer", axis, layers, series, head, rows, detail, frames)


def bytes_by_layer(run: Run, detail: Detail) -> Figure | None:
    """Bytes of each tensor in the saved file."""
    layers = [layer for layer in layers_of(run) if layer.bytes is not None]
    rows = [(layer.name, count(layer.entries - layer.zeros), size(layer.bytes), count(layer.bytes)) for layer in layers]
    head = ["tensor", "non-zero entries", "size", "bytes"]
    series = [Series(label="bytes", values=tuple(layer.bytes for layer in layers))]
    frames = _frames(run, layers, lambda _, state: state.bytes, behind=0)
    axis = Axis(label="bytes", format="bytes", low=0)
    return _bars("Bytes by layer, as saved", axis, layers, series, head, rows, detail, frames)


def _frames(
    run: Run, layers: Sequence[Layer], value: Callable[[Layer, LayerState], float], *, behind: int
) -> tuple[Frame, ...]:
    """The bars at each point of the trail; none unless every layer is known at every point."""
    stops = run.trail.stops if run.trail is not None else ()
    if not all(layer.key in stop.layers for stop in stops for layer in layers):
        return ()
    still: tuple[None, ...] = (None,) * behind
    return tuple(
        Frame(values=(*still, tuple(rounded(value(layer, stop.layers[layer.key])) for layer in layers[:MOST_BARS])))
        for stop in stops
    )


def _part(one: float | None, whole: float | None) -> str:
    return share(one / whole) if one is not None and whole else UNKNOWN


def _bars(
    title: str,
    axis: Axis,
    layers: Sequence[Layer],
    series: Sequence[Series],
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    detail: Detail,
    frames: tuple[Frame, ...],
) -> Figure | None:
    if not layers:
        return None
    shown = min(len(layers), MOST_BARS)
    return Figure(
        title=title,
        kind="bars",
        x=Axis(label="tensor, in the order of the network", format="count"),
        y=axis,
        across=tuple(float(place) for place in range(1, shown + 1)),
        names=tuple(layer.name for layer in layers[:shown]),
        series=tuple(replace(one, values=tuple(rounded(value) for value in one.values[:shown])) for one in series),
        table=table(head, rows, detail.rows),
        caption="" if shown == len(layers) else f"The first {shown} of {len(layers)} tensors.",
        frames=frames,
    )
