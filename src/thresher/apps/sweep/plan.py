"""Which runs a sweep consists of, what each is called, and its configuration."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from thresher.apps.sweep.config import SweepConfig
from thresher.apps.train.asking.config import TrainConfig

_LONGEST = 100


@dataclass(frozen=True, kw_only=True)
class PlannedRun:
    """One run of the table. `name`: of its folder. `lr`: None when tuning decides it."""

    name: str
    method: str
    budget: str
    seed: int
    lr: float | None


@dataclass(frozen=True, kw_only=True)
class Group:
    """What is tuned together: one method at one budget. `name`: of the folder of its tuning runs."""

    name: str
    method: str
    budget: str


def planned_runs(config: SweepConfig) -> tuple[PlannedRun, ...]:
    """All runs in the order in which they start: every combination with the first seed, then with the second, ...

    >>> from thresher.apps.sweep.config import read_sweep
    >>> asked = {"methods": "gmp,lats", "budgets": "sparsity=90%", "model": "mlp", "lr": "0.1,0.2"}
    >>> [run.name for run in planned_runs(read_sweep(asked))][:2]
    ['gmp_sparsity-90_lr-0.1_seed-0', 'gmp_sparsity-90_lr-0.2_seed-0']
    """
    rates: tuple[float | None, ...] = (None,) if config.tune else config.lr
    runs: list[PlannedRun] = []
    taken: set[str] = set()
    for seed in config.seeds:
        for budget in config.budgets:
            for method in config.methods:
                for rate in rates:
                    parts = [method, budget, *([f"lr-{rate:g}"] if len(rates) > 1 else []), f"seed-{seed}"]
                    name = _name(parts, taken)
                    runs.append(PlannedRun(name=name, method=method, budget=budget, seed=seed, lr=rate))
    return tuple(runs)


def planned_groups(config: SweepConfig) -> tuple[Group, ...]:
    """What is tuned: each method at each budget, or at `tune_budget` alone; nothing without tuning."""
    if not config.tune:
        return ()
    taken: set[str] = set()
    return tuple(
        Group(name=_name([method, budget], taken), method=method, budget=budget)
        for budget in config.budgets
        if config.tune_budget in (None, budget)
        for method in config.methods
    )


def group_of(config: SweepConfig, run: PlannedRun, groups: Iterable[Group]) -> Group | None:
    """The group whose tuning decides the settings of `run`; None without tuning."""
    budget = config.tune_budget or run.budget
    return next((group for group in groups if (group.method, group.budget) == (run.method, budget)), None)


def run_config(config: SweepConfig, run: PlannedRun, settings: Mapping[str, Any]) -> TrainConfig:
    """The configuration of a run of the table; `settings` are those that tuning chose, or its learning rate."""
    return _filled(config, {"method": run.method, "budget": run.budget, "seed": run.seed, **settings})


def tuning_config(config: SweepConfig, group: Group, settings: Mapping[str, Any]) -> TrainConfig:
    """The configuration of a tuning run: the first seed, tested on held-out training images."""
    held = {"seed": config.seeds[0], "held_out": config.held_out}
    return _filled(config, {"method": group.method, "budget": group.budget, **held, **settings})


def _filled(config: SweepConfig, values: Mapping[str, Any]) -> TrainConfig:
    return TrainConfig.model_validate({**config.base.model_dump(), **values})


def _name(parts: Iterable[str], taken: set[str]) -> str:
    # A folder name on every system, in which two texts that differ in punctuation alone do not meet.
    stem = "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", part).strip("-.") for part in parts)
    stem = stem if len(stem) <= _LONGEST else stem[: _LONGEST // 2] + "..." + stem[-_LONGEST // 2 :]
    name, number = stem, 1
    while name in taken:
        number += 1
        name = f"{stem}_{number}"
    taken.add(name)
    return name
