"""The pruning methods, by name: one file each, chosen through `REGISTRY`."""

from thresher.methods.asl import Asl
from thresher.methods.lats import Lats
from thresher.methods.ltp import Ltp
from thresher.methods.magnitude import Gmp, Magnitude, Random
from thresher.methods.power import Power
from thresher.methods.registry import (
    PRESETS,
    REGISTRY,
    method_from_record,
    method_names,
    method_record,
    parse_method,
)
from thresher.methods.reparameterized import Str
from thresher.methods.st3 import St3

__all__ = [
    "PRESETS",
    "REGISTRY",
    "Asl",
    "Gmp",
    "Lats",
    "Ltp",
    "Magnitude",
    "Power",
    "Random",
    "St3",
    "Str",
    "method_from_record",
    "method_names",
    "method_record",
    "parse_method",
]
