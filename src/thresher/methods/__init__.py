"""The pruning methods, by name: one file each, chosen through `REGISTRY`."""

from thresher.methods.lats import Lats
from thresher.methods.magnitude import Gmp, Magnitude, Random
from thresher.methods.registry import (
    PRESETS,
    REGISTRY,
    method_from_record,
    method_names,
    method_record,
    parse_method,
)

__all__ = [
    "PRESETS",
    "REGISTRY",
    "Gmp",
    "Lats",
    "Magnitude",
    "Random",
    "method_from_record",
    "method_names",
    "method_record",
    "parse_method",
]
