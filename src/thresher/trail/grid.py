"""How far apart points lie: one point for each equal stretch of compression, dense entries / kept entries.

The N lower edges are evenly spaced in compression from 1 (dense) to 1 / (1 - target):

    f_k = 1 + (1 / (1 - target) - 1) * k / (N - 1),   k = 0 ... N-1

so for a target of 95 % and N = 20: 1x, 2x, ... 20x, which is 0, 50, 66.7, 75, ... 95 % zeros. The k-th network costs
about 1 / f_k of the dense one, and the trail about the harmonic sum; evenly spaced densities (0.95, 0.9, ...) would
cost N / 2 dense networks, because most of them would be nearly dense.
"""

from __future__ import annotations

from dataclasses import dataclass

from thresher.errors import InputError


@dataclass(frozen=True, kw_only=True)
class Grid:
    """`points` cells from dense to `target` sparsity; the last one holds everything sparser.

    >>> grid = Grid(points=20, target=0.95)
    >>> [grid.cell(zeros, 1000) for zeros in (0, 498, 500, 949, 950, 1000)]
    [0, 0, 1, 18, 19, 19]

    Errors: InputError on fewer than one point, and a target outside (0, 1).
    """

    points: int = 20
    target: float = 0.95

    def __post_init__(self) -> None:
        if type(self.points) is not int or self.points < 1:
            raise InputError(f"points={self.points!r}", "a whole number, at least 1", "correct points")
        if not isinstance(self.target, float) or not 0 < self.target < 1:
            raise InputError(f"target={self.target!r}", "a sparsity above 0 and below 1", "correct target")

    def cell(self, zeros: int, entries: int) -> int:
        """The cell of a network with that many zeros: the last edge that it has reached."""
        kept = entries - zeros
        if self.points == 1 or kept <= 1:
            return self.points - 1
        span = 1 / (1 - self.target) - 1
        # Budgets are met to one weight: of 999 entries "sparsity=90%" makes 899 zeros, and that reaches the 10x edge.
        reached = (entries / (kept - 1 + 1e-6) - 1) / span * (self.points - 1)
        return max(0, min(int(reached), self.points - 1))
