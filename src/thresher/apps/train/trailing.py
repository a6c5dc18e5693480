"""The trail of a run: which networks the engine keeps on the way, and on which images it measures them."""

from __future__ import annotations

import torch
from torch import nn

from thresher.apps.data import ArrayData, Batches
from thresher.apps.runs import Run
from thresher.apps.train.ending.evaluate import accuracy
from thresher.apps.train.setup import Workbench
from thresher.trail import Trail

FEW = 2000
_LOOKS = 8  # as often as that for each point the engine counts zeros between epochs
_TARGET = 0.95  # of methods without a budget


class TrailKeeper:
    """Adds points to RUN/trail: a test of all images at the end of an epoch and of the run, of `FEW` between.

    The networks between fill stretches of compression that have no point yet. `target` is the sparsity that the budget
    means at the start, see `final_sparsity`; `dense_accuracy` that of the network before the run, which is the
    reference when it was a trained one.
    """

    def __init__(self, bench: Workbench, run: Run, *, target: float, dense_accuracy: float) -> None:
        assert bench.pruner is not None
        self._bench, self._pruner = bench, bench.pruner
        count = len(bench.test.data)
        self._few = bench.test if count <= FEW else _thinned(bench)
        # An untrained network is no reference: everything would be within a point of it.
        known = dense_accuracy if bench.config.weights or bench.network.name.startswith("hf:") else None
        self._reference = known
        if known is not None and count > FEW:
            self._reference = self._measure(bench.dense, self._few)
        self._every = max(bench.steps // (_LOOKS * bench.config.trail), 1)
        self._trail = Trail(run.trail_path)
        if not self._trail.points:
            self._trail = Trail(
                run.trail_path,
                dense_accuracy=known,
                points=bench.config.trail,
                target=target,
                precision="float16",
            )

    def stepped(self) -> None:
        """After each step: keep the network when it has reached a stretch without a point."""
        step = self._bench.step
        # The last step of an epoch is measured on all images anyway.
        if step % self._every == 0 and step % self._bench.steps_per_epoch and self._trail.due(self._pruner):
            self._add(self._few, reference=self._reference)

    def epoch_ended(self, measured: float) -> None:
        """After each epoch, with the accuracy on all images: keep the network unless its stretch has a better one."""
        everything = len(self._bench.test.data)
        for point in self._trail.held(self._pruner):
            if point.images == everything and (point.accuracy or 0.0) > measured and point.step != self._bench.step:
                return
        self._add(self._bench.test)

    def finished(self) -> None:
        """At the end, with plain modules: the projected network, whatever else its stretch holds."""
        self._add(self._bench.test, keep=True)

    def _add(self, batches: Batches, *, reference: float | None = None, keep: bool = False) -> None:
        self._trail.add(
            self._pruner,
            lambda network: self._measure(network, batches),
            images=len(batches.data),
            reference=reference,
            keep=keep,
        )

    def _measure(self, network: nn.Module, batches: Batches) -> float:
        return accuracy(network, batches, channels_last=self._bench.config.channels_last)


def final_sparsity(bench: Workbench) -> float:
    """The sparsity that the budget means for the weights of this moment. Call it before a checkpoint is restored, so
    that a resumed run finds the same."""
    assert bench.pruner is not None
    planner = bench.pruner.planner
    if planner is None:
        return _TARGET
    kept = sum(planner.solve(bench.pruner.process.scores()).kept)
    return min(max(1 - kept / planner.entries, 0.01), 0.999)


def _thinned(bench: Workbench) -> Batches:
    # Evenly spread, because the files of some data sets are sorted by class.
    test, rows = bench.test.data, torch.linspace(0, len(bench.test.data) - 1, FEW).round().long()
    mean, std = bench.record["normalisation"]
    size, data = bench.test.batch_size, ArrayData(test.images[rows], test.labels[rows])
    return Batches(data, size, train=False, mean=mean, std=std, device=bench.device)
