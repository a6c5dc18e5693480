"""What a run would do and cost, before any of it is done."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from thresher.apps.train.asking.config import TrainConfig
from thresher.apps.train.device import machine_settings
from thresher.apps.train.engine import train_step
from thresher.apps.train.setup import Workbench, assemble
from thresher.budget.counts import count_positions
from thresher.errors import BudgetError
from thresher.operators import parse_groups
from thresher.targets import Selection, parse_rule, select

_TIMED_STEPS = 3


@dataclass(frozen=True, kw_only=True)
class Plan:
    """Tensors to prune as (name, shape, entries, MACs of one image), tensors left dense as (name, entries, reason).

    `reachable`: whether the budget can be met, None without one; `obstacle`: why not. `seconds_per_step`,
    `seconds_per_epoch` (with its evaluation): from a few timed steps, None without training.
    """

    model: str
    data: str
    method: str | None
    budget: str | None
    device: str
    targets: tuple[tuple[str, tuple[int, ...], int, float], ...]
    left_dense: tuple[tuple[str, int, str], ...]
    parameters: int
    total_macs: float
    reachable: bool | None
    obstacle: str
    train_images: int
    test_images: int
    steps_per_epoch: int
    steps: int
    seconds_per_step: float | None
    seconds_per_epoch: float | None

    @property
    def entries(self) -> int:
        """Entries of the tensors to prune."""
        return sum(entries for _, _, entries, _ in self.targets)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready."""
        return {**asdict(self), "entries": self.entries}


def make_plan(config: TrainConfig) -> Plan:
    """Load data and network, look at what would be pruned, time a few steps, and throw it all away. Writes nothing.

    Errors: InputError as `fit`; a budget that cannot be reached is no error here.
    """
    with machine_settings(config):
        bench = assemble(config)
        positions = count_positions(bench.model, bench.example)
        shapes = {name: parameter.shape for name, parameter in bench.model.named_parameters()}
        targets: list[tuple[str, tuple[int, ...], int, float]] = []
        left = [(name, shape.numel(), "no pruning asked") for name, shape in shapes.items()]
        reachable, obstacle = None, ""
        if config.method is not None:
            rules = [parse_rule(rule) for rule in config.rules]
            selection = select(bench.model, rules, groups=parse_groups(config.groups), frozen=bench.optimizer is None)
            targets = [
                (target.name, target.shape, target.numel, positions.get(target.name, 0.0) * target.numel)
                for target in selection.targets
            ]
            left = _left_dense(bench.model, selection, shapes)
            reachable, obstacle = _try_budget(bench)
        per_step, per_epoch = _time(bench)
        return Plan(
            model=bench.network.name,
            data=bench.data.name,
            method=config.method,
            budget=config.budget,
            device=str(bench.device),
            targets=tuple(targets),
            left_dense=tuple(left),
            parameters=sum(shape.numel() for shape in shapes.values()),
            total_macs=sum(positions[name] * shapes[name].numel() for name in positions if name in shapes),
            reachable=reachable,
            obstacle=obstacle,
            train_images=len(bench.data.train),
            test_images=len(bench.data.test),
            steps_per_epoch=bench.steps_per_epoch,
            steps=bench.steps,
            seconds_per_step=per_step,
            seconds_per_epoch=per_epoch,
        )


def _left_dense(model: nn.Module, selection: Selection, shapes: Mapping[str, torch.Size]) -> list[tuple[str, int, str]]:
    pruned = {id(getattr(module, tensor)) for target in selection.targets for module, tensor in target.sites}
    reasons = {skip.name: skip.reason for skip in selection.skipped}
    for target in selection.targets:
        if target.max_sparsity == 0.0:
            reasons[target.name] = "kept dense by a rule; its entries count towards sparsity"
    return [
        (name, shapes[name].numel(), reasons.get(name) or _kind(model, name))
        for name, parameter in model.named_parameters()
        if name in reasons or id(parameter) not in pruned
    ]


def _kind(model: nn.Module, name: str) -> str:
    owner, _, tensor = name.rpartition(".")
    return f"{tensor} of {type(model.get_submodule(owner)).__name__}, pruned only when a rule includes it"


def _try_budget(bench: Workbench) -> tuple[bool | None, str]:
    try:
        bench.attach()
    except BudgetError as error:
        return False, f"{error.given}: {error.expected}"
    return (None, "") if bench.config.budget is None else (True, "")


def _time(bench: Workbench) -> tuple[float | None, float | None]:
    """(seconds of a step, of an epoch): the first step, which allocates and compiles, does not count."""
    if bench.train is None:
        return None, None
    bench.model.train()
    began = 0.0
    for number, (inputs, labels) in enumerate(_endless(bench)):
        if number == 1:
            _wait()
            began = time.perf_counter()
        float(train_step(bench, inputs, labels))
        if number == _TIMED_STEPS:
            break
    step = (time.perf_counter() - began) / _TIMED_STEPS
    inputs = next(iter(bench.test))[0]
    bench.model.eval()
    began = time.perf_counter()
    with torch.no_grad():
        float(bench.model(inputs).sum())
    evaluation = (time.perf_counter() - began) * len(bench.test)
    return step, step * bench.steps_per_epoch + evaluation


def _endless(bench: Workbench) -> Any:
    assert bench.train is not None
    while True:
        yield from bench.train


def _wait() -> None:
    if torch.cuda.is_initialized():
        torch.cuda.synchronize()
