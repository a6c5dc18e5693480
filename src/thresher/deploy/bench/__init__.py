"""Fair comparisons: every engine installed, dense and pruned, interleaved, with outputs compared."""

from thresher.deploy.bench.comparing import compare
from thresher.deploy.bench.engines import ENGINES, pick
from thresher.deploy.bench.machine import Machine, machine
from thresher.deploy.bench.orders import Built, Engine, LayerTime, Order
from thresher.deploy.bench.result import Bench, Row, Skipped, Variant, ratio

__all__ = [
    "ENGINES",
    "Bench",
    "Built",
    "Engine",
    "LayerTime",
    "Machine",
    "Order",
    "Row",
    "Skipped",
    "Variant",
    "compare",
    "machine",
    "pick",
    "ratio",
]
