"""trace.json as columns: thresholds of every tensor against steps and the clock of learning rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from thresher.plots.formats import number


@dataclass(frozen=True, kw_only=True)
class Trace:
    """The readable part of trace.json; `frozen`: the step from which every threshold is back at 0 (fixed support)."""

    names: tuple[str, ...]
    steps: tuple[float, ...]
    clock: tuple[float, ...]
    rows: tuple[tuple[float, ...], ...]
    frozen: float | None


def trace_of(record: Mapping[str, Any]) -> Trace | None:
    """Rows up to the first that is not whole; None when fewer than two are."""
    parts = [record.get(key) for key in ("names", "steps", "clock", "thresholds")]
    names, steps, clock, rows = (part if isinstance(part, list) else [] for part in parts)
    good: list[tuple[float, float, tuple[float, ...]]] = []
    frozen = None
    for step, time, row in zip(steps, clock, rows, strict=False):
        values = tuple(number(value) for value in row) if isinstance(row, list) else ()
        at, elapsed = number(step), number(time)
        if at is None or elapsed is None or None in values or len(values) != len(names) or not values:
            break
        if good and at <= good[-1][0]:
            break
        present = tuple(value for value in values if value is not None)
        if good and not any(present) and any(good[-1][2]):
            frozen = at
            break
        good.append((at, elapsed, present))
    if len(good) < 2:
        return None
    titles = tuple(str(name)[:120].removesuffix(".weight") for name in names)
    at_steps, elapsed_at, values_at = zip(*good, strict=True)
    return Trace(names=titles, steps=at_steps, clock=elapsed_at, rows=values_at, frozen=frozen)
