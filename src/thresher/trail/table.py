"""Points as rows: of one trail or of several, as data and as text."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from thresher.budget.report import aligned
from thresher.trail.picking import front
from thresher.trail.point import Point

if TYPE_CHECKING:
    from thresher.trail.trail import Trail


def view(trails: Sequence[Trail]) -> list[dict[str, Any]]:
    """The points of several trails as one list of records.

    Each is `Point.to_dict()` with `trail`, the name of its trail (its path where two have the same name), and `front`,
    whether it is on the Pareto front of bytes and accuracy of them all.
    """
    times = Counter(trail.name for trail in trails)
    pairs = [
        (trail.name if times[trail.name] == 1 else str(trail.path), point) for trail in trails for point in trail.points
    ]
    best = {id(point) for point in _front([point for _, point in pairs])}
    return [{"trail": name, **point.to_dict(), "front": id(point) in best} for name, point in pairs]


def table(records: Sequence[dict[str, Any]]) -> str:
    """The records of `view` as text; the trail's name only when there are several."""
    return "\n".join(aligned(rows(records)))


def rows(records: Sequence[dict[str, Any]]) -> list[tuple[str, ...]]:
    """The cells of that table, its head first."""
    several = len({record["trail"] for record in records}) > 1
    found: list[tuple[str, ...]] = [
        ("step", "sparsity", "multiply-adds", "bytes", "accuracy", "images", "under dense", "front")
    ]
    for record in records:
        found.append(
            (
                str(record["step"]),
                f"{record['sparsity']:.2%}",
                _number(record["flops"], ",.0f"),
                f"{record['bytes']:,}",
                _number(record["accuracy"], ".2f"),
                _number(record["images"], ","),
                _number(record["drop"], ".2f"),
                "*" if record["front"] else "",
            )
        )
    if not several:
        return found
    names = ["trail", *(printable(record["trail"]) for record in records)]
    return [(name, *row) for name, row in zip(names, found, strict=True)]


def _front(points: list[Point]) -> list[Point]:
    # Without any accuracy there is no front, and nothing is marked.
    return front(points, "bytes", "estimate") if any(point.accuracy is not None for point in points) else []


def _number(value: float | None, form: str) -> str:
    return "?" if value is None else format(value, form)


def printable(text: str) -> str:
    """`text` without control characters: a folder may be called anything, and terminals obey.

    >>> printable("runs/\x1b[2Jlats")
    'runs/?[2Jlats'
    """
    return "".join(letter if letter.isprintable() else "?" for letter in text)
