"""A sweep in its folder: which run is next, who does it, what came of it. All of it survives any kill."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from thresher.apps.runs import Run
from thresher.apps.runs.checkpoint import NAMES as CHECKPOINTS
from thresher.apps.sweep.book import Book, Entry
from thresher.apps.sweep.claims import Claims
from thresher.apps.sweep.config import SweepConfig
from thresher.apps.sweep.plan import Group, PlannedRun, group_of, planned_groups, planned_runs
from thresher.apps.sweep.search import first_points, ranges_for, sampler, settings_from, usual_settings
from thresher.apps.sweep.task import RUNS, Task, study_of, table_task, tuning_task
from thresher.errors import require

DEATHS = 5
"""Workers that may die over one run, one after the other and without a new checkpoint, before it counts as failed."""


class Sweep:
    """The sweep in `folder`, as `open_sweep` gives it.

    `runs`: those of the table; `groups`: what is tuned first; `mutex`: for what one worker at a time may do.
    """

    def __init__(self, folder: Path, config: SweepConfig) -> None:
        self.folder, self.config = folder, config
        self.runs, self.groups = planned_runs(config), planned_groups(config)
        self._claims = Claims(folder)
        self.mutex = self._claims.mutex
        with self.mutex:
            self._book = Book(folder)

    def claim(self) -> Task | None:
        """The next run for this worker: one whose worker died, else a new one; None when there is none at present."""
        with self.mutex:
            for study in self._studies():
                for entry in self._book.entries(study).values():
                    if entry.state == "running" and (task := self._take(study, entry)):
                        return task
            for study, entry in self._begun():
                if task := self._take(study, entry):
                    return task
                self._book.void(study, entry.number)
        return None

    def finish(self, task: Task, accuracy: float | None, error: str | None = None) -> None:
        """Note what came of a run, and let go of it."""
        with self.mutex:
            self._book.tell(task.study, task.entry.number, accuracy, error)
            task.lease.release()

    def retry_failed(self) -> int:
        """Let failed runs wait for another try; how many there are."""
        count = 0
        with self.mutex:
            for study in self._studies():
                for entry in self._book.entries(study).values():
                    if entry.state == "failed":
                        self._book.again(study, entry)
                        self._book.note(study, f"deaths {entry.run}", [0, None])
                        count += 1
        return count

    def entries(self) -> dict[str, Entry]:
        """The runs of the table that were begun, by name."""
        return self._book.entries(RUNS)

    def tuning(self, group: Group) -> dict[str, Entry]:
        """The tuning runs of a group that were begun, by name."""
        return self._book.entries(study_of(group))

    def ended(self) -> list[tuple[str, Entry]]:
        """(study, entry) of every run that has ended, well or not, tuning first."""
        every = ((study, entry) for study in self._studies() for entry in self._book.entries(study).values())
        return [(study, entry) for study, entry in every if entry.state in ("done", "failed")]

    @property
    def count(self) -> int:
        """How many runs there will be, tuning included."""
        return len(self.runs) + self.config.tune * len(self.groups)

    def best(self, group: Group) -> Entry | None:
        """The tuning run with the highest accuracy on held-out images, the earlier of two; None while some are left, or
        when none of them ended well."""
        done = [entry for entry in self.tuning(group).values() if entry.value is not None]
        if not done or not self._tuned(group):
            return None
        return max(done, key=lambda entry: (entry.value, -entry.number))

    def blocked(self, run: PlannedRun) -> bool:
        """Whether a run cannot begin, because none of the tuning runs for it ended well."""
        group = group_of(self.config, run, self.groups)
        return group is not None and self._tuned(group) and self.best(group) is None

    @property
    def finished(self) -> bool:
        """Whether every run has ended, well or not."""
        ended = {name for name, entry in self.entries().items() if entry.state in ("done", "failed")}
        return all(run.name in ended or self.blocked(run) for run in self.runs)

    def path(self, run: PlannedRun) -> Path:
        """The folder of a run of the table."""
        return self.folder / RUNS / run.name

    def _studies(self) -> list[str]:
        return [*map(study_of, self.groups), RUNS]

    def _tuned(self, group: Group) -> bool:
        entries = self.tuning(group).values()
        return len(entries) >= self.config.tune and all(entry.state in ("done", "failed") for entry in entries)

    def _begun(self) -> Iterator[tuple[str, Entry]]:
        """Begin one run after the other: tuning runs, then those of the table; those that wait for a retry first."""
        for group in self.groups:
            study, entries = study_of(group), self.tuning(group)
            ranges = ranges_for(self.config.search, group.method, self.config.methods, self.config.lr[0])
            space = {each.what: each.distribution() for each in ranges}
            number = len(entries)
            if any(entry.state == "waiting" for entry in entries.values()):
                yield study, self._book.next_waiting(study, space)
            elif number < self.config.tune:
                usual = usual_settings(ranges, group.method, self.config.base.model_dump())
                points = first_points(ranges, usual, self.config.tune)
                point = points[number] if number < len(points) else None
                describe = partial(settings_from, group.method)
                yield (
                    study,
                    self._book.begin(study, f"{number:03d}", space, describe, params=point, sampler=sampler(number)),
                )
        entries = self.entries()
        if any(entry.state == "waiting" for entry in entries.values()):
            yield RUNS, self._book.next_waiting(RUNS, self._space())
        for run in self.runs:
            settings = None if run.name in entries else self._settings(run)
            if settings is not None:
                params: dict[str, Any] = {"method": run.method, "budget": run.budget, "seed": run.seed}
                params |= {} if run.lr is None else {"lr": run.lr}
                yield RUNS, self._book.begin(RUNS, run.name, self._space(), partial(_same, settings), params=params)

    def _settings(self, run: PlannedRun) -> Mapping[str, Any] | None:
        """Its learning rate, or what tuning found for the run; None while that goes on, or found nothing."""
        if run.lr is not None:
            return {"lr": run.lr}
        group = group_of(self.config, run, self.groups)
        best = None if group is None else self.best(group)
        return None if best is None else best.settings

    def _space(self) -> dict[str, Any]:
        kinds = require("optuna.distributions", extra="sweep", why="sweeping")
        lists = {"method": self.config.methods, "budget": self.config.budgets, "seed": self.config.seeds}
        lists |= {} if self.config.tune else {"lr": self.config.lr}
        return {name: kinds.CategoricalDistribution(values) for name, values in lists.items()}

    def _take(self, study: str, entry: Entry) -> Task | None:
        taken = self._claims.take(f"{study}.{entry.run}")
        if taken is None:
            return None
        lease, died = taken
        group = next((group for group in self.groups if study == study_of(group)), None)
        if group is not None:
            task = tuning_task(self.config, self.folder, group, entry, lease)
        else:
            task = table_task(self.config, self.folder, self.runs, entry, lease)
        if not died or self._hopeful(task):
            return task
        self._book.tell(study, entry.number, None, f"{DEATHS} workers died over it, none wrote a new checkpoint")
        lease.release()
        return None

    def _hopeful(self, task: Task) -> bool:
        """Note that a worker died over the task; whether the next one may try."""
        checkpoint = task.folder / CHECKPOINTS[0]
        stamp = checkpoint.stat().st_mtime_ns if checkpoint.is_file() else 0
        key = f"deaths {task.entry.run}"
        count, before = self._book.note(task.study, key) or (0, None)
        count = count + 1 if stamp == before else 1
        self._book.note(task.study, key, [count, stamp])
        return count < DEATHS or Run(task.folder).finished


def _same(settings: Mapping[str, Any], params: Mapping[str, Any]) -> Mapping[str, Any]:
    return settings
