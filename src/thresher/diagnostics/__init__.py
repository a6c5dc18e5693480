"""What any run or network tells: its L1 coefficient, its support, its optimality, the sensitivity of its layers."""

from thresher.diagnostics.l1 import Spread, implied_l1, l1_spread
from thresher.diagnostics.layer_curves import CurvePoint, LayerCurve, Sensitivity
from thresher.diagnostics.optimality import OptimalityGap, optimality_gap
from thresher.diagnostics.sensitivity import sensitivity
from thresher.diagnostics.support import churn, regrowth

__all__ = [
    "CurvePoint",
    "LayerCurve",
    "OptimalityGap",
    "Sensitivity",
    "Spread",
    "churn",
    "implied_l1",
    "l1_spread",
    "optimality_gap",
    "regrowth",
    "sensitivity",
]
