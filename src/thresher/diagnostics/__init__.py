"""What a run did, read from plain data: its L1 coefficient, its support, and how near it came to an optimum."""

from thresher.diagnostics.l1 import Spread, implied_l1, l1_spread
from thresher.diagnostics.optimality import OptimalityGap, optimality_gap
from thresher.diagnostics.support import churn, regrowth

__all__ = ["OptimalityGap", "Spread", "churn", "implied_l1", "l1_spread", "optimality_gap", "regrowth"]
