"""Constant, linear and cubic curves, as fractions of the final value."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from .schedule import Curve, check_window


@dataclass(frozen=True, kw_only=True)
class Constant(Curve):
    """f(x) = 1[x > start]: the whole threshold at once.

    With a soft threshold the L1 penalty is 0 after the jump.

    Shapes: `table(steps)` is (steps + 1,), float64. Units: fraction of the final value. Gradient: none.
    Errors: InputError unless 0 ≤ start < 1. Source: choice.

    >>> Constant().table(3).tolist()
    [0.0, 1.0, 1.0, 1.0]
    """

    name: ClassVar[str] = "constant"
    start: float = 0.0

    def __post_init__(self) -> None:
        check_window("Constant", self.start, 1.0)

    def curve(self, x: Tensor) -> Tensor:
        return (x > self.start).to(x.dtype)


@dataclass(frozen=True, kw_only=True)
class Linear(Curve):
    """f(x) = u = clip((x − start)/(end − start), 0, 1).

    With a soft threshold under a cosine learning rate the L1 penalty goes to infinity at the end.

    Shapes: `table(steps)` is (steps + 1,), float64. Units: fraction of the final value. Gradient: none.
    Errors: InputError unless 0 ≤ start < end ≤ 1. Source: choice.

    >>> Linear(start=0.5)(0.75)
    0.5
    """

    name: ClassVar[str] = "linear"
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        check_window("Linear", self.start, self.end)

    def curve(self, x: Tensor) -> Tensor:
        return ((x - self.start) / (self.end - self.start)).clamp(0, 1)


@dataclass(frozen=True, kw_only=True)
class Cubic(Curve):
    """f(x) = 1 − (1 − u)³, u = clip((x − start)/(end − start), 0, 1); then s = s_i + (s_f − s_i)·f.

    Shapes: `table(steps)` is (steps + 1,), float64. Units: fraction of the way to the final sparsity. Gradient: none.
    Errors: InputError unless 0 ≤ start < end ≤ 1.
    Source: Zhu and Gupta, To prune, or not to prune (arXiv 1710.01878), equation 1.

    >>> round(0.9 * Cubic()(0.25), 7)
    0.5203125
    """

    name: ClassVar[str] = "cubic"
    start: float = 0.0
    end: float = 1.0

    def __post_init__(self) -> None:
        check_window("Cubic", self.start, self.end)

    def curve(self, x: Tensor) -> Tensor:
        return 1 - (1 - ((x - self.start) / (self.end - self.start)).clamp(0, 1)) ** 3
