"""What a plot is before it is drawn: numbers, labels, and the table that stands behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

Values = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """`format`: how the page writes its numbers: "number", "percent", "count" or "bytes". Bounds: fixed ends.

    `log`: a logarithmic scale; only for values above 0.
    """

    label: str
    format: str = "number"
    low: float | None = None
    high: float | None = None
    log: bool = False


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line, one set of bars or one colour of dots; `low` and `high` draw a band around it.

    `style`: "" as the figure's kind says, "ghost" (pale, behind), "dots", "linked" (dots joined by a line) or "dashed".
    `colour`: its number where the place among the series is not it.
    """

    label: str
    values: Values
    low: Values = ()
    high: Values = ()
    style: Literal["", "ghost", "dots", "linked", "dashed"] = ""
    colour: int | None = None


@dataclass(frozen=True, kw_only=True)
class Frame:
    """The figure at one point of the trail: new values for each series (None: as they are), vertical lines at `marks`,
    and which place of `across` to point out."""

    values: tuple[Values | None, ...] = ()
    marks: tuple[float, ...] = ()
    place: int | None = None


@dataclass(frozen=True, kw_only=True)
class Table:
    """The same numbers as text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A plot: `across` holds the x values; `names` what each x stands for, where that is a layer or a run.

    `marks`: vertical lines. `frames`: what it looks like at each point of the trail. `variants`: other figures of the
    same kind that may stand in its place, by name; the figure itself is the first of them.
    """

    title: str
    kind: Literal["lines", "bars", "histogram", "scatter"]
    x: Axis
    y: Axis
    across: tuple[float, ...]
    series: tuple[Series, ...]
    table: Table
    names: tuple[str, ...] = ()
    caption: str = ""
    marks: tuple[float, ...] = ()
    frames: tuple[Frame, ...] = ()
    variants: tuple[tuple[str, Figure], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """What the page's script needs (the table is written as HTML, not handed to it)."""
        record = asdict(replace(self, variants=()))
        del record["table"], record["caption"]
        record["variants"] = [[name, figure.to_dict()] for name, figure in self.variants]
        return record


@dataclass(frozen=True, kw_only=True)
class Detail:
    """How much of a run goes into the page: points per line, rows per table, points of the trail, histograms."""

    points: int = 400
    rows: int = 300
    frames: int = 40
    histograms: int = 40


def spread(length: int, most: int) -> list[int]:
    """At most `most` positions out of `length`, evenly, the first and the last among them.

    >>> spread(5, 10), spread(100, 4)
    ([0, 1, 2, 3, 4], [0, 33, 66, 99])
    """
    if length <= most:
        return list(range(length))
    return sorted({round(place * (length - 1) / (most - 1)) for place in range(most)})


def rounded(value: float | None) -> float | None:
    """Five significant digits: what a plot can show, in a fifth of the bytes."""
    return None if value is None else float(f"{value:.5g}")


def table(head: Sequence[str], rows: Sequence[Sequence[str]], most: int, *, evenly: bool = False) -> Table:
    """A table of at most `most` rows (the first ones, or `evenly` spread), with a note when some were left out."""
    places = spread(len(rows), most) if evenly else list(range(min(len(rows), most)))
    note = "" if len(places) == len(rows) else f"{len(places)} of {len(rows)} rows"
    return Table(head=tuple(head), rows=tuple(tuple(rows[place]) for place in places), note=note)
