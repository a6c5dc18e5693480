"""Which point to take: the sparsest within an accuracy, the most accurate within a budget, the front of both."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from thresher.budget.counts import kept_count
from thresher.budget.language import Budget
from thresher.errors import BudgetError, InputError
from thresher.trail.point import Point

_MORE_IS_BETTER = ("sparsity", "zeros", "step")


def choose(
    points: Sequence[Point],
    *,
    accuracy_drop: float | None = None,
    budget: str | Mapping[str, object] | Budget | None = None,
) -> Point:
    """With `accuracy_drop` the sparsest of the points that meet everything asked, else the most accurate of them.

    accuracy_drop: percentage points under the dense reference. budget: as for `thresher.prune`; shares are shares of
    the dense network. Ties: the more accurate of the equally sparse, the sparser of the equally accurate, then the
    later one. Accuracies are compared by `Point.estimate`.

    Errors: InputError when nothing is asked, when accuracies are needed and unknown; BudgetError, with what is
    reachable, when no point meets it.
    """
    if accuracy_drop is None and budget is None:
        raise InputError(
            "neither accuracy_drop nor budget", "one of them, or both", "write e.g. pick(accuracy_drop=1.0)"
        )
    if not points:
        raise InputError("a trail without points", "at least one point", "let the run go on, or check the path")
    meeting = list(points) if accuracy_drop is None else _close_enough(points, accuracy_drop)
    if budget is not None:
        limits = Budget.parse(budget)
        if limits.latency is not None:
            raise BudgetError(f"{limits} of a trail", "sparsity, params, flops or bytes", "time the network you pick")
        within = [point for point in meeting if meets(point, limits)]
        if not within:
            where = "" if accuracy_drop is None else f" within {accuracy_drop:g} points of the dense accuracy"
            raise BudgetError(f"{limits}{where}", _reachable(meeting, limits), "allow more, or prune further")
        meeting = within
    if accuracy_drop is not None:
        return max(meeting, key=lambda point: (point.sparsity, _worth(point), point.step))
    if all(point.accuracy is None for point in meeting):
        raise InputError(
            "points without an accuracy", "points stored with accuracy=", "pass accuracy= to trail.add from the start"
        )
    return max(meeting, key=lambda point: (_worth(point), point.sparsity, point.step))


def meets(point: Point, budget: Budget) -> bool:
    """Whether `point` keeps every limit; one whose multiply-adds are unknown keeps none on `flops`.

    >>> point = Point(step=1, entries=10, zeros=9, params=3, dense_params=12, bytes=400, dense_bytes=700)
    >>> meets(point, Budget.parse("sparsity=90%,bytes=400")), meets(point, Budget.parse("params=20%"))
    (True, False)
    """
    if budget.sparsity is not None and point.entries - point.zeros > kept_count(budget.sparsity, point.entries):
        return False
    for name in ("params", "flops", "bytes"):
        amount = getattr(budget, name)
        value, whole = point.value(name), point.value(f"dense_{name}")
        if amount is not None and (value is None or whole is None or value > amount.limit(whole)):
            return False
    return True


def front(points: Sequence[Point], x: str = "bytes", y: str = "accuracy") -> list[Point]:
    """The points that no other beats: none has as good an x and a better y, or the other way round; by rising x.

    Less of `x` is better (more, for sparsity), more of `y` is better; a leading minus turns either round, as in
    y="-loss". Points that lack one of the two are left out; equals stay together.

    Errors: InputError when no point has both.
    """
    found = [
        (a, b, point) for point in points if (a := _cost(point, x)) is not None and (b := _gain(point, y)) is not None
    ]
    if points and not found:
        raise InputError(f"x={x!r}, y={y!r}, which no point has both", "numbers of the points", "correct the names")
    kept: list[tuple[float, float, Point]] = []
    for a, b, point in sorted(found, key=lambda item: (item[0], -item[1], item[2].step)):
        if not kept or b > kept[-1][1] or (a, b) == kept[-1][:2]:
            kept.append((a, b, point))
    return [point for _, _, point in kept]


def _worth(point: Point) -> float:
    return -math.inf if point.estimate is None else point.estimate


def _cost(point: Point, name: str) -> float | None:
    turn = name.removeprefix("-") in _MORE_IS_BETTER
    value = point.value(name.removeprefix("-"))
    return None if value is None else -value if turn != name.startswith("-") else value


def _gain(point: Point, name: str) -> float | None:
    value = point.value(name.removeprefix("-"))
    return None if value is None else -value if name.startswith("-") else value


def _close_enough(points: Sequence[Point], drop: float) -> list[Point]:
    if not math.isfinite(drop):
        raise InputError(f"accuracy_drop={drop}", "a finite number of percentage points", "correct it")
    known = [(point.drop, point) for point in points if point.drop is not None]
    if not known:
        raise InputError(
            f"accuracy_drop={drop:g} without accuracies to compare",
            "a trail with the dense accuracy, and points with theirs",
            "open it as Trail(path, dense_accuracy=...), and pass accuracy= to add",
        )
    # The guard is for 92.6 - 91.6, which is a little more than 1.
    meeting = [point for far, point in known if far <= drop + 1e-9]
    if not meeting:
        least, nearest = min(known, key=lambda pair: (pair[0], -pair[1].sparsity))
        raise BudgetError(
            f"accuracy_drop={drop:g}",
            f"at least {math.ceil(least * 100) / 100:g}: the nearest point is step {nearest.step} with "
            f"{nearest.accuracy:.2f} %, {least:.2f} points under the dense {nearest.reference:.2f} %, "
            f"at {nearest.sparsity:.2%} sparsity",
            "allow a larger drop, fine-tune, or leave more points near the dense network",
        )
    return meeting


def _reachable(points: Sequence[Point], budget: Budget) -> str:
    parts = []
    if budget.sparsity is not None:
        parts.append(f"sparsity up to {max(point.sparsity for point in points):.4%}")
    for name in ("params", "flops", "bytes"):
        if getattr(budget, name) is not None:
            values = [value for point in points if (value := point.value(name)) is not None]
            known = f"{name} down to {min(values):,.0f}" if values else f"no {name}, whose number no point knows"
            parts.append(known)
    several = " (each alone; no point keeps all)" if len(parts) > 1 else ""
    return "the points reach " + ", ".join(parts) + several
