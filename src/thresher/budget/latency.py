"""Milliseconds as a budget: a network's time from a table of its layers' times by their zeros."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from thresher.budget.language import Amount
from thresher.errors import InputError


def milliseconds(seconds: float) -> str:
    """For people.

    >>> milliseconds(0.0051234)
    '5.12ms'
    """
    return f"{seconds * 1e3:.3g}ms"


@dataclass(frozen=True)
class LatencyCurve:
    """Seconds of a layer by its share of zeros: known at `zeros`, from 0 up; straight in between, constant beyond.

    Noise must not make zeros cost time: a value above the one before it counts as equal to it.

    >>> LatencyCurve((0.0, 0.5), (2.0, 1.0)).at(0.25)
    1.5

    Errors: InputError unless zeros rise from 0 and each has a time.
    """

    zeros: tuple[float, ...]
    seconds: tuple[float, ...]

    def __post_init__(self) -> None:
        rises = all(low < high for low, high in zip(self.zeros, self.zeros[1:], strict=False))
        if not self.zeros or self.zeros[0] != 0 or not rises or len(self.zeros) != len(self.seconds):
            raise InputError(f"a curve at {self.zeros}", "shares of zeros that rise from 0", "measure the layer again")
        object.__setattr__(self, "seconds", tuple(accumulate(self.seconds, min)))

    def at(self, zeros: float) -> float:
        """Seconds at this share of zeros."""
        place = bisect_right(self.zeros, zeros)
        if place >= len(self.zeros):
            return self.seconds[-1]
        low, high = self.zeros[place - 1], self.zeros[place]
        part = (max(zeros, low) - low) / (high - low)
        return self.seconds[place - 1] + part * (self.seconds[place] - self.seconds[place - 1])


@dataclass(frozen=True)
class LatencyTable:
    """Seconds of a network by the entries that its targets keep: `rest`, and one curve a target (None: no saving).

    `entries`: of each target. `dense`: measured seconds of the network as it was given, of which a share is a share.
    """

    dense: float
    rest: float
    entries: tuple[int, ...]
    curves: tuple[LatencyCurve | None, ...]

    def seconds(self, kept: Sequence[float]) -> float:
        """Of the network whose targets keep so many entries."""
        return self.rest + sum(
            curve.at(1 - stay / entries)
            for stay, entries, curve in zip(kept, self.entries, self.curves, strict=True)
            if curve is not None
        )

    def limit(self, amount: Amount) -> float:
        """Seconds that `amount` allows."""
        return self.dense * amount.share if amount.share is not None else float(amount.absolute or 0.0)

    def slopes(self) -> list[float]:
        """Seconds that one entry of each target costs on the whole way from no zeros to all."""
        return [
            0.0 if curve is None else (curve.seconds[0] - curve.seconds[-1]) / entries
            for entries, curve in zip(self.entries, self.curves, strict=True)
        ]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        curves = [None if c is None else [list(c.zeros), list(c.seconds)] for c in self.curves]
        return {"dense": self.dense, "rest": self.rest, "entries": list(self.entries), "curves": curves}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> LatencyTable:
        """The table that `to_dict` wrote."""
        curves = [None if c is None else LatencyCurve(tuple(c[0]), tuple(c[1])) for c in record["curves"]]
        return cls(float(record["dense"]), float(record["rest"]), tuple(record["entries"]), tuple(curves))
