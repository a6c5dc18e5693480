"""Mean and standard deviation over seeds, and which rows no other row beats."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from thresher.apps.train import Result

MEASURES = ("accuracy", "zeros", "bytes", "macs")
COSTS = ("zeros", "bytes", "macs")
"""What accuracy is traded against: more zeros are better, fewer bytes and multiply-adds."""


@dataclass(frozen=True)
class Spread:
    """Mean and sample standard deviation (over n - 1; None for a single value)."""

    mean: float
    std: float | None

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread | None:
        """Of `values`; None for none.

        >>> Spread.of([1.0, 3.0])
        Spread(mean=2.0, std=1.4142135623730951)
        """
        if not values:
            return None
        mean = math.fsum(values) / len(values)
        if len(values) == 1:
            return cls(mean, None)
        return cls(mean, math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (len(values) - 1)))


@dataclass(frozen=True, kw_only=True)
class Row:
    """A line of the table. `settings`: what was chosen, or swept, beside method and budget. `seeds`: of the runs that
    are done; `asked`: how many seeds there will be. `spreads`: of accuracy, zeros, bytes and macs, as far as known."""

    method: str
    budget: str
    settings: Mapping[str, Any]
    seeds: tuple[int, ...]
    asked: int
    spreads: Mapping[str, Spread]

    @classmethod
    def of(
        cls, method: str, budget: str, settings: Mapping[str, Any], results: Mapping[int, Result], asked: int
    ) -> Row:
        """The row of the `results` by seed."""
        columns = {
            "accuracy": [result.accuracy_after for result in results.values()],
            "zeros": [float(result.zeros) for result in results.values() if result.zeros is not None],
            "bytes": [float(result.bytes) for result in results.values()],
            "macs": [result.macs for result in results.values() if result.macs is not None],
        }
        spreads = {name: spread for name, values in columns.items() if (spread := Spread.of(values))}
        return cls(method=method, budget=budget, settings=settings, seeds=tuple(results), asked=asked, spreads=spreads)

    @property
    def place(self) -> str:
        """For people: method and budget."""
        return f"{self.method} at {self.budget}"

    @property
    def title(self) -> str:
        """For people: method, budget and settings."""
        chosen = ", ".join(f"{name}={value}" for name, value in self.settings.items())
        return self.place + f" ({chosen})" * bool(chosen)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready."""
        measured = {
            name: {"mean": spread.mean, "std": spread.std} if (spread := self.spreads.get(name)) else None
            for name in MEASURES
        }
        own = {"method": self.method, "budget": self.budget, "settings": dict(self.settings)}
        return {**own, "seeds": list(self.seeds), "asked": self.asked, **measured}


def pareto(rows: Sequence[Row], cost: str) -> list[int]:
    """Numbers of the rows that no other row beats: as accurate and as small at least, and better in one of the two.

    By rising cost (falling zeros). Rows without a result do not take part; of two equal rows both stay.
    """
    sign = -1.0 if cost == "zeros" else 1.0
    points = {
        number: (sign * row.spreads[cost].mean, -row.spreads["accuracy"].mean)
        for number, row in enumerate(rows)
        if cost in row.spreads and "accuracy" in row.spreads
    }
    front = [
        number
        for number, mine in points.items()
        if not any(other[0] <= mine[0] and other[1] <= mine[1] and other != mine for other in points.values())
    ]
    return sorted(front, key=lambda number: points[number])
