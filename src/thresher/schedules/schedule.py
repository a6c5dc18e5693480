"""progress → fraction of the final threshold: what every schedule answers, and the shared shell around its curve."""

from __future__ import annotations

import dataclasses
import math
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

import torch
from torch import Tensor

from thresher.errors import InputError

from .plot import plot


class Schedule(Protocol):
    """f(0) = 0, f(1) = 1, never falling: the fraction of the final threshold reached at `progress`."""

    name: ClassVar[str]

    def __call__(self, progress: float) -> float:
        """f(progress); progress outside [0, 1] is clipped."""

    def table(self, steps: int, rates: Sequence[float] | Tensor | None = None) -> Tensor:
        """f after 0, 1 … steps optimizer steps: float64, shape (steps + 1,)."""


class Curve(ABC):
    """f(x) from one vectorised closed form: a schedule adds `curve` and its parameters, nothing else.

    A mixin for frozen dataclasses. Errors: InputError for a NaN progress or steps < 1.
    """

    name: ClassVar[str]

    @abstractmethod
    def curve(self, x: Tensor) -> Tensor:
        """f at each x, float64 in [0, 1], same shape."""

    def __call__(self, progress: float) -> float:
        """f(progress); progress outside [0, 1] is clipped, so the step after the end holds the final value."""
        if math.isnan(progress):
            raise InputError("progress=nan", "a number, 0 at the start and 1 at the end", "pass step / steps")
        if progress <= 0:
            return 0.0
        if progress >= 1:
            return 1.0
        return float(self.curve(torch.tensor(progress, dtype=torch.float64)).clamp(0, 1))

    def table(self, steps: int, rates: Sequence[float] | Tensor | None = None) -> Tensor:
        """f(n / steps) for n = 0 … steps: float64, shape (steps + 1,); the learning rates are not used."""
        return ends(self.curve(grid(steps)))

    def plot(self, ax: Any = None) -> Any:
        """Draw the curve with matplotlib (`thresher[plot]`) and return the axes."""
        return plot([self], ax)

    @property
    def spelling(self) -> str:
        """The text that `parse_schedule` reads back to an equal schedule."""
        parts = [f"{f.name}={getattr(self, f.name)}" for f in dataclasses.fields(self)]  # type: ignore[arg-type]
        return ":".join([self.name, ",".join(parts)]) if parts else self.name


def grid(steps: int) -> Tensor:
    """n / steps for n = 0 … steps: float64, shape (steps + 1,).

    Errors: InputError unless steps is an integer ≥ 1.

    >>> grid(4).tolist()
    [0.0, 0.25, 0.5, 0.75, 1.0]
    """
    if isinstance(steps, bool) or not isinstance(steps, int) or steps < 1:
        raise InputError(f"steps={steps!r}", "an integer >= 1", "count the optimizer steps from the start of pruning")
    return torch.arange(steps + 1, dtype=torch.float64) / steps


def ends(values: Tensor) -> Tensor:
    """values with exactly 0 first and 1 last, and never falling: rounding may cost the last bit near the flat end.

    >>> ends(torch.tensor([0.1, 0.5, 0.4, 0.9])).tolist() == torch.tensor([0.0, 0.5, 0.5, 1.0]).tolist()
    True
    """
    values = values.clamp(0, 1)
    values[0], values[-1] = 0.0, 1.0
    return values.cummax(0).values


def check_share(owner: str, field: str, value: float, low: float = 0.0, high: float = 1.0) -> None:
    """low ≤ value ≤ high, or InputError (NaN included)."""
    if not low <= value <= high:
        raise InputError(f"{owner}({field}={value!r})", f"{low:g} <= {field} <= {high:g}", f"choose another {field}")


def check_window(owner: str, start: float, end: float) -> None:
    """0 ≤ start < end ≤ 1, or InputError (NaN included)."""
    if not 0 <= start < end <= 1:
        raise InputError(f"{owner}(start={start!r}, end={end!r})", "0 <= start < end <= 1", "move start before end")
