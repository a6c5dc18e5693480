"""Thresholding operators on groups of weights: pure tensor maths, no state, no checks, traceable in one graph."""

from .gate import gate_values, soft_gate
from .groups import UNSTRUCTURED, Groups, parse_groups
from .hard import hard_threshold
from .power import power_threshold
from .rescaled import channel_rescale, rescaled_soft_threshold
from .soft import soft_threshold, soft_threshold_autograd
from .through import straight_through

__all__ = [
    "UNSTRUCTURED",
    "Groups",
    "channel_rescale",
    "gate_values",
    "hard_threshold",
    "parse_groups",
    "power_threshold",
    "rescaled_soft_threshold",
    "soft_gate",
    "soft_threshold",
    "soft_threshold_autograd",
    "straight_through",
]
