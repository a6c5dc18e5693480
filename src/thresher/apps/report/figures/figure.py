"""What a plot is before it is drawn: numbers, labels, and the table that stands behind it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

Values = tuple[float | None, ...]


@dataclass(frozen=True, kw_only=True)
class Axis:
    """`format`: how the page writes its numbers: "number", "percent", "count" or "bytes". Bounds: fixed ends."""

    label: str
    format: str = "number"
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True, kw_only=True)
class Series:
    """One line, one set of bars or one colour of dots; `low` and `high` draw a band around it."""

    label: str
    values: Values
    low: Values = ()
    high: Values = ()


@dataclass(frozen=True, kw_only=True)
class Table:
    """The same numbers as text."""

    head: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    note: str = ""


@dataclass(frozen=True, kw_only=True)
class Figure:
    """A plot: `across` holds the x values; `names` what each x stands for, where that is a layer or a run."""

    title: str
    kind: Literal["lines", "bars", "scatter"]
    x: Axis
    y: Axis
    across: tuple[float, ...]
    series: tuple[Series, ...]
    table: Table
    names: tuple[str, ...] = ()
    caption: str = ""

    def to_dict(self) -> dict[str, Any]:
        """What the page's script needs (the table is written as HTML, not handed to it)."""
        record = asdict(self)
        del record["table"], record["caption"]
        return record


@dataclass(frozen=True, kw_only=True)
class Detail:
    """How much of a run goes into the page: points per line, rows per table."""

    points: int = 400
    rows: int = 300


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
