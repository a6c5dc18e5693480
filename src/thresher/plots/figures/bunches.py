"""Runs that differ in their seed only belong together: their means, and the best of them per method and budget."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean, stdev

from thresher.plots.figures.figure import Table, table
from thresher.plots.formats import UNKNOWN, count, percent, share, short, size
from thresher.plots.outcome import Outcome


@dataclass(frozen=True, kw_only=True)
class Bunch:
    """Runs that differ in their seed only. `settings`: those in which bunches of the page differ."""

    method: str
    asked: str
    settings: tuple[tuple[str, str], ...]
    runs: tuple[Outcome, ...]

    @property
    def accuracies(self) -> list[float]:
        """In percent, one per run."""
        return [run.after for run in self.runs if run.after is not None]

    def mean(self, cost: Callable[[Outcome], float | None]) -> float | None:
        """Mean cost over its runs, None when none knows it."""
        values = [value for run in self.runs if (value := cost(run)) is not None]
        return fmean(values) if values else None

    @property
    def title(self) -> str:
        """For people."""
        chosen = ", ".join(f"{name}={value}" for name, value in self.settings)
        name = self.runs[0].name if len(self.runs) == 1 else f"{self.method}, {self.asked}"
        return f"{name} ({chosen})" if chosen and len(self.runs) > 1 else name


def bunches_of(outcomes: Sequence[Outcome]) -> list[Bunch]:
    """Runs grouped over their seeds, in the order in which they came."""
    found: dict[tuple[object, ...], list[Outcome]] = {}
    for number, one in enumerate(outcomes):
        # Without settings nothing says that two runs belong together.
        key = (one.method, one.asked, one.settings) if one.settings else (number,)
        found.setdefault(key, []).append(one)
    seen: dict[str, set[str]] = {}
    for runs in found.values():
        for name, value in runs[0].settings:
            seen.setdefault(name, set()).add(value)
    differing = {name for name, values in seen.items() if len(values) > 1} - {"method", "budget", "weights"}
    return [
        Bunch(
            method=runs[0].method,
            asked=runs[0].asked,
            settings=tuple(pair for pair in runs[0].settings if pair[0] in differing),
            runs=tuple(runs),
        )
        for runs in found.values()
    ]


def timed_alike(outcomes: Sequence[Outcome]) -> tuple[list[Outcome], str | None]:
    """The runs with the times that can be compared, and the condition under which those were taken.

    Times of other conditions are left out, and those of an engine to which the zeros of the run make no difference.
    """
    telling = [one.timed for one in outcomes if one.zeros_timed or (one.sparsity is None and one.milliseconds)]
    condition = max(telling, key=telling.count, default=None)
    found = [
        one if one.timed == condition else replace(one, milliseconds=None, milliseconds_dense=None) for one in outcomes
    ]
    return found, condition


def best_settings(outcomes: Sequence[Outcome]) -> Table | None:
    """Per method and budget the bunch with the highest mean accuracy."""
    best: dict[tuple[str, str], Bunch] = {}
    for bunch in bunches_of([one for one in timed_alike(outcomes)[0] if one.pruned]):
        key = (bunch.method, bunch.asked)
        if bunch.accuracies and (key not in best or fmean(bunch.accuracies) > fmean(best[key].accuracies)):
            best[key] = bunch
    if not best:
        return None
    rows = [
        (
            bunch.method,
            bunch.asked,
            ", ".join(f"{name}={value}" for name, value in bunch.settings) or UNKNOWN,
            str(len(bunch.accuracies)),
            mean_of(bunch.accuracies),
            share(bunch.mean(lambda one: one.sparsity)),
            count(bunch.mean(lambda one: one.macs)),
            size(bunch.mean(lambda one: one.bytes)),
            short(bunch.mean(lambda one: one.milliseconds)),
        )
        for bunch in best.values()
    ]
    head = ["method", "budget", "settings", "seeds", "accuracy", "zeros", "multiply-adds", "size", "ms"]
    return table(head, rows, 100)


def mean_of(values: Sequence[float]) -> str:
    """Mean ± standard deviation, in percent; `mean_of([90.0, 92.0])` is "91.00 ± 1.41 %"."""
    if not values:
        return UNKNOWN
    return f"{fmean(values):.2f} ± {stdev(values):.2f} %" if len(values) > 1 else percent(values[0])
