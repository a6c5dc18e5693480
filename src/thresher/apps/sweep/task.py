"""A claimed run: its configuration, its folder, and the lease that keeps other workers away."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thresher.apps.sweep.book import Entry
from thresher.apps.sweep.config import SweepConfig
from thresher.apps.sweep.plan import Group, PlannedRun, run_config, tuning_config
from thresher.apps.train import TrainConfig

RUNS = "runs"
"""Name of the study, and of the folder, that hold the runs of the table."""


@dataclass(frozen=True, kw_only=True, eq=False)
class Task:
    """What a worker does next. `folder`: of the run. `study`, `entry`: where the book has it. `tuning`: whether it is
    tested on held-out images, to choose a setting."""

    title: str
    config: TrainConfig
    folder: Path
    study: str
    entry: Entry
    lease: Any
    tuning: bool


def study_of(group: Group) -> str:
    """Name of the study of a group's tuning runs, and of the folder that holds theirs."""
    return f"tuning/{group.name}"


def tuning_task(config: SweepConfig, folder: Path, group: Group, entry: Entry, lease: Any) -> Task:
    """A tuning run in the sweep's `folder`."""
    return Task(
        title=f"tuning {group.method}, {group.budget}, run {int(entry.run) + 1} of {config.tune}",
        config=tuning_config(config, group, entry.settings),
        folder=folder / study_of(group) / entry.run,
        study=study_of(group),
        entry=entry,
        lease=lease,
        tuning=True,
    )


def table_task(config: SweepConfig, folder: Path, runs: Sequence[PlannedRun], entry: Entry, lease: Any) -> Task:
    """A run of the table in the sweep's `folder`."""
    run = next(run for run in runs if run.name == entry.run)
    rate = f", lr {run.lr:g}" if len(config.lr) > 1 else ""
    return Task(
        title=f"{run.method}, {run.budget}{rate}, seed {run.seed}",
        config=run_config(config, run, entry.settings),
        folder=folder / RUNS / run.name,
        study=RUNS,
        entry=entry,
        lease=lease,
        tuning=False,
    )
