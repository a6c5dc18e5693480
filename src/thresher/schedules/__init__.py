"""Threshold schedules: pure curves from progress, or from learning rates, to the fraction of the final threshold."""

from .coupled import Coupled
from .lats import LatsCurve
from .parse import REGISTRY, parse_schedule
from .penalty import penalty_of_threshold, threshold_of_penalty
from .pgh import Pgh
from .plot import plot
from .schedule import Curve, Schedule
from .simple import Constant, Cubic, Linear
from .slats import SLats

__all__ = [
    "REGISTRY",
    "Constant",
    "Coupled",
    "Cubic",
    "Curve",
    "LatsCurve",
    "Linear",
    "Pgh",
    "SLats",
    "Schedule",
    "parse_schedule",
    "penalty_of_threshold",
    "plot",
    "threshold_of_penalty",
]
