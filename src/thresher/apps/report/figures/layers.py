"""Zeros and bytes layer by layer, from report.json."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from thresher.apps.report.figures.figure import Axis, Detail, Figure, Series, rounded, table
from thresher.apps.report.formats import count, number, share, size
from thresher.apps.report.reading import Run

MOST_BARS = 120


@dataclass(frozen=True, kw_only=True)
class Layer:
    """One row of report.json as far as it can be read."""

    name: str
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
    values = [100 * layer.zeros / layer.entries for layer in layers]
    return _bars("Zeros by layer", axis, layers, values, head, rows, detail)


def bytes_by_layer(run: Run, detail: Detail) -> Figure | None:
    """Bytes of each tensor in the saved file."""
    layers = [layer for layer in layers_of(run) if layer.bytes is not None]
    rows = [(layer.name, count(layer.entries - layer.zeros), size(layer.bytes), count(layer.bytes)) for layer in layers]
    head = ["tensor", "non-zero entries", "size", "bytes"]
    values = [layer.bytes for layer in layers]
    return _bars(
        "Bytes by layer, as saved", Axis(label="bytes", format="bytes", low=0), layers, values, head, rows, detail
    )


def _bars(
    title: str,
    axis: Axis,
    layers: Sequence[Layer],
    values: Sequence[float | None],
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    detail: Detail,
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
        series=(Series(label=axis.label, values=tuple(rounded(value) for value in values[:shown])),),
        table=table(head, rows, detail.rows),
        caption="" if shown == len(layers) else f"The first {shown} of {len(layers)} tensors.",
    )
