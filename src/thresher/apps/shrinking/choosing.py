"""From a configuration to a smaller network: load, choose units layer by layer, cut."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor

from thresher.apps.data import ArrayData, Batches
from thresher.apps.shrinking.config import ShrinkConfig
from thresher.apps.shrinking.method import Told, selection_of
from thresher.apps.train.device import machine_settings
from thresher.apps.train.setup import Workbench, assemble
from thresher.budget.language import Amount, Budget
from thresher.deploy.storage import predicted_file_bytes
from thresher.errors import BudgetError, InputError
from thresher.shrinking import Selection, Shrunk, shrink_plan, torch_pruned
from thresher.shrinking.composing import composed
from thresher.shrinking.selections.torch_pruners import KINDS
from thresher.structure import CoupledGroup, ShrinkPlan

_BATCH = 128
Layers = Callable[[int, int, str], None]
"""Told (layers done, layers in all, the layer that is next); 0 in all as long as that is not known."""


@dataclass(frozen=True, eq=False)
class Chosen:
    """bench: with the network as it was given. shrunk: what was cut from it. plan: what is cut in all from the network
    of that name, earlier cuts included. seconds: of choosing and cutting."""

    config: ShrinkConfig
    bench: Workbench
    shrunk: Shrunk
    plan: ShrinkPlan
    seconds: float


def choose(config: ShrinkConfig, layers: Layers | None = None) -> Chosen:
    """Load what `config` names and shrink it; nothing is written.

    Errors: InputError for settings, data and weights that do not fit; BudgetError for what cannot be reached.
    """
    name = config.train.method or "ispasp"
    method = name if name in KINDS else selection_of(name)  # before anything slow: a wrong name is told at once
    if name in KINDS and (config.keep or config.train.rules or config.round_to > 1):
        raise InputError(f"{name} with keep, rules or round_to", "a budget and a scope", "remove them")
    if config.train.groups != "weight" or config.train.start or config.train.trail:
        raise InputError("groups, start or trail for shrink", "settings of shrinking", "remove them")
    with machine_settings(config.train):
        bench = assemble(config.train)
        batches = calibration_of(bench, config.calibration)
        began = time.perf_counter()
        shrunk, plan = _within(config, bench, method, batches, layers)
    return Chosen(config, bench, shrunk, plan, time.perf_counter() - began)


def _within(
    config: ShrinkConfig, bench: Workbench, method: Selection | str, batches: list[Any], layers: Layers | None
) -> tuple[Shrunk, ShrinkPlan]:
    """Shrink to the budget; a limit on bytes counts the whole file, with the plan that it will carry."""
    budget = None if config.train.budget is None else Budget.parse(config.train.budget)
    limit = None if budget is None or budget.bytes is None else budget.bytes.limit(predicted_file_bytes(bench.model))
    lowered = limit
    while True:
        try:
            shrunk = _shrunk(config, bench, method, budget, batches, layers)
        except BudgetError as error:
            if lowered == limit:
                raise
            raise BudgetError(
                f"a budget of {config.train.budget}", f"{error.expected}, and the plan in the file besides", error.do
            ) from error
        earlier = bench.network.plan
        plan = shrunk.plan if earlier is None else composed(earlier, shrunk.plan)
        if budget is None or limit is None or lowered is None:
            return shrunk, plan
        network = dataclasses.replace(bench.network, plan=plan)
        size = predicted_file_bytes(shrunk.model, record=network.record(bench.record["normalisation"]))
        if size <= limit:
            return shrunk, plan
        # How long the plan is shows only when it is there.
        lowered -= size - limit
        budget = dataclasses.replace(budget, bytes=Amount(absolute=max(lowered, 0.0)))


def _shrunk(
    config: ShrinkConfig,
    bench: Workbench,
    method: Selection | str,
    budget: Budget | None,
    batches: list[Any],
    layers: Layers | None,
) -> Shrunk:
    if isinstance(method, str):
        assert budget is not None
        if layers is not None:
            layers(0, 0, "pruning ratios of torch-pruning")
        return torch_pruned(bench.model, method, budget, calibration=batches, scope=config.scope)
    return shrink_plan(
        bench.model,
        method if layers is None else cast(Selection, Told(method, _Stages(layers))),
        budget,
        calibration=batches,
        keep=dict(config.keep) or None,
        rules=config.train.rules,
        round_to=config.round_to,
        scope=config.scope,
        allocation=config.allocation,
    )


def calibration_of(bench: Workbench, images: int) -> list[tuple[Tensor, Tensor]]:
    """Batches of training images drawn by the run's seed, without augmentation, the same at each pass."""
    data, (mean, std) = bench.data.train, bench.record["normalisation"]
    # Drawn, not the first ones: the files of some data sets are sorted by class.
    rows = torch.randperm(len(data), generator=torch.Generator().manual_seed(bench.config.seed))[:images]
    some = ArrayData(data.images[rows], data.labels[rows])
    size = min(_BATCH, len(some))
    return list(Batches(some, size, train=False, mean=mean, std=std, device=bench.device))


class _Stages:
    """Counts layers: every group is looked at several times on the dense network first, then cut one by one."""

    def __init__(self, layers: Layers) -> None:
        self._layers = layers
        self._known: set[str] = set()
        self._cut = 0

    def __call__(self, group: CoupledGroup, sizes: int) -> None:
        if sizes > 1:  # a residual curve
            self._layers(0, 0, f"{'curve of' if group.name in self._known else 'effect of'} {group.name}")
            self._known.add(group.name)
            return
        self._layers(self._cut, max(len(self._known), self._cut + 1) if self._known else 0, group.name)
        self._cut += 1
