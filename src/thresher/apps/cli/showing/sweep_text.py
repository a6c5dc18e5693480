"""The plan of a sweep, and the news of its runs, as text."""

from __future__ import annotations

import time

import typer

from thresher.apps.sweep import Sweep, SweepConfig, planned_groups, planned_runs, short_error
from thresher.apps.sweep.search import ranges_for
from thresher.budget.report import aligned


def plan_lines(asked: SweepConfig, model: str, count: int, seconds: float) -> list[str]:
    """What would run, and for how long. `seconds`: of one run."""
    runs, groups = planned_runs(asked), planned_groups(asked)
    lines = [f"plan: {count} runs, {model} on {asked.base.data}, {asked.base.epochs} epochs each; nothing was written"]
    for group in groups:
        ranges = ranges_for(asked.search, group.method, asked.methods, asked.lr[0])
        spelled = ", ".join(f"{each.what} {each.low:g} to {each.high:g}" for each in ranges)
        lines.append(f"tuning: {asked.tune} runs for {group.method} at {group.budget}: {spelled}")
    if groups:
        share = f"{100 * asked.held_out:g}%"
        lines.append(f"tuning runs are tested on {share} of the training images, held out, with seed {asked.seeds[0]}")
    rows = [("run of the table", "method", "budget", "lr", "seed")]
    for run in runs:
        rate = "tuned" if run.lr is None else f"{run.lr:g}"
        rows.append((run.name, run.method, run.budget, rate, str(run.seed)))
    total = f"about {span(seconds)} for a run, {span(count * seconds)} for all, one after the other"
    return [*lines, "", *aligned(rows), "", total]


class News:
    """Says on stderr which runs have ended since it was last asked, and how long the rest will take."""

    def __init__(self, sweep: Sweep) -> None:
        self._sweep, self._began = sweep, time.monotonic()
        self._known = {(study, entry.number) for study, entry in sweep.ended()}
        self._before = len(self._known)
        if self._known:
            typer.echo(f"{self._before} of {sweep.count} runs had ended before", err=True)

    def tell(self) -> None:
        """A line for each run that is news."""
        ended = self._sweep.ended()
        fresh = [(study, entry) for study, entry in ended if (study, entry.number) not in self._known]
        for number, (study, entry) in enumerate(fresh, start=len(ended) - len(fresh) + 1):
            self._known.add((study, entry.number))
            what = "FAILED" if entry.value is None else f"accuracy {entry.value:.2f} %"
            what += f" ({short_error(entry.error)})" if entry.error else ""
            left = (time.monotonic() - self._began) / (len(self._known) - self._before) * (self._sweep.count - number)
            rest = f"; about {span(left)} left" if number < self._sweep.count else ""
            typer.echo(f"[{number}/{self._sweep.count}] {study}/{entry.run}: {what}{rest}", err=True)


def span(seconds: float) -> str:
    """A time for people.

    >>> span(41), span(600), span(9000)
    ('41 s', '10 minutes', '2.5 hours')
    """
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} minutes" if seconds < 7200 else f"{seconds / 3600:.1f} hours"
