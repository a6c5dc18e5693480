"""What a method's own numbers say at the end of an epoch, and how far its soft network is from the hard one."""

from __future__ import annotations

from thresher.apps.train.ending.evaluate import accuracy
from thresher.apps.train.setup import Workbench
from thresher.methods.learning.gated import GateShell, soft_gates


def watched(bench: Workbench, hard: float) -> dict[str, float]:
    """The pruner's diagnostics; for gates that are still soft also `soft_gap`, soft minus hard accuracy in points.

    Args:
        hard: accuracy in percent, measured with hard masks.
    """
    if bench.pruner is None:
        return {}
    found = bench.pruner.diagnostics()
    gates = [module for module in bench.model.modules() if isinstance(module, GateShell)]
    if gates:
        found["soft_gap"] = 0.0
    if any(gate.mask is None for gate in gates):
        with soft_gates(bench.model):
            found["soft_gap"] = accuracy(bench.model, bench.test, channels_last=bench.config.channels_last) - hard
    return found
