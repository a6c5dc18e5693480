"""A figure's data drawn by matplotlib, for papers: PDF and SVG stay vector graphics, text stays text."""

from __future__ import annotations

from typing import Any

from thresher.errors import require
from thresher.plots.figures.figure import Axis, Figure, Series

COLOURS = ("#2a78d6", "#d9622b", "#1a9e75", "#4a3aa7", "#c98a00", "#d4407f", "#007a2f", "#8a6d3b")
GHOST = "#c9c9c2"
_ROOMY = 28


def draw(figure: Figure, ax: Any = None) -> Any:
    """A matplotlib figure of `figure`; with `ax` it is drawn there and the axes' figure is returned.

    Nothing is shown, and no global state is touched: the figure belongs to no window, so it needs no `plt.close`.
    Of a figure with variants the first is drawn.

    Errors: MissingExtraError without matplotlib (`thresher[plot]`).
    """
    if ax is None:
        kind = require("matplotlib.figure", extra="plot", why="drawing a figure").Figure
        ax = kind(figsize=(5.2, 3.2), layout="constrained").add_subplot()
    for place, series in enumerate(figure.series):
        _series(ax, figure, series, place)
    for at in figure.marks:
        ax.axvline(at, color="#a12321", linestyle="--", linewidth=1)
    _axis(ax, "x", figure.x)
    _axis(ax, "y", figure.y)
    if figure.kind == "bars":
        ax.set_xticks(figure.across)
        ax.set_xticklabels([_plain(name) for name in figure.names], rotation=50, ha="right", fontsize=7)
        ax.set_xlabel("")
        if len(figure.names) > _ROOMY:
            ax.set_xticks([])
            ax.set_xlabel(figure.x.label)
    ax.set_title(_plain(figure.title), fontsize=10)
    ax.grid(alpha=0.3, axis="y" if figure.kind == "bars" else "both")
    ax.set_axisbelow(True)
    if len(figure.series) > 1:
        ax.legend(frameon=False, fontsize=8)
    return ax.figure


def _series(ax: Any, figure: Figure, series: Series, place: int) -> None:
    colour = GHOST if series.style == "ghost" else COLOURS[(place if series.colour is None else series.colour) % 8]
    known = [(x, y) for x, y in zip(figure.across, series.values, strict=True) if y is not None]
    across, up = [x for x, _ in known], [y for _, y in known]
    label = _plain(series.label)
    if series.style == "dashed":
        ax.plot(across, up, "--", color=colour, label=label)
    elif series.style in ("linked", "dots") or figure.kind == "scatter":
        line = "-" if series.style == "linked" else ""
        ax.plot(across, up, marker="o", markersize=4, linestyle=line, color=colour, label=label)
    elif figure.kind in ("bars", "histogram"):
        step = figure.across[1] - figure.across[0] if figure.kind == "histogram" and len(figure.across) > 1 else 1.0
        width = step if figure.kind == "histogram" else 0.8 if series.style == "ghost" else 0.6
        ax.bar(across, up, width=width, color=colour, label=label)
    else:
        ax.plot(across, up, color=colour, label=label)
    if series.low and series.high:
        _band(ax, figure, series, colour)


def _band(ax: Any, figure: Figure, series: Series, colour: str) -> None:
    known = [
        (x, low, high)
        for x, low, high in zip(figure.across, series.low, series.high, strict=True)
        if low is not None and high is not None
    ]
    across, low, high = ([row[column] for row in known] for column in range(3))
    if figure.kind == "scatter" and series.style != "linked":
        ax.vlines(across, low, high, color=colour, linewidth=1.5)
    else:
        ax.fill_between(across, low, high, color=colour, alpha=0.2, linewidth=0)


def _axis(ax: Any, which: str, axis: Axis) -> None:
    unit = {"percent": " (%)"}.get(axis.format, "")
    getattr(ax, f"set_{which}label")(_plain(axis.label) + unit)
    if axis.log:
        getattr(ax, f"set_{which}scale")("log")
        return
    limits = getattr(ax, f"set_{which}lim")
    if axis.low is not None:
        limits(axis.low, None)
    if axis.high is not None:
        limits(None, axis.high)
    if axis.format in ("bytes", "count"):
        ticker = require("matplotlib.ticker", extra="plot", why="drawing a figure")
        formatter = ticker.EngFormatter(unit="B" if axis.format == "bytes" else "", sep=" ")
        getattr(ax, f"{which}axis").set_major_formatter(formatter)


def _plain(text: str) -> str:
    """Dollar signs would start mathematics, and a broken formula would stop the drawing."""
    return text.replace("$", r"\$")
