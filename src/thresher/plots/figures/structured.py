"""A structured run: what was cut, what it did to each group, and how the measured error lies beside the predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from thresher.plots.figures.figure import Axis, Detail, Figure, Series, rounded, table
from thresher.plots.formats import count, number, percent, plain, share
from thresher.plots.reading import Record, Run

MOST_BARS = 120
STAGES = {
    "before": "dense",
    "cut": "after the cut",
    "reconstructed": "layers fitted",
    "reestimated": "batch norm anew",
    "finetuned": "fine-tuned",
}


@dataclass(frozen=True, kw_only=True)
class Group:
    """One row of the shrink report, as far as it can be read."""

    name: str
    units: float
    kept: float
    error: float | None
    predicted: float | None
    exponent: float | None
    covered: bool
    slope: float | None
    curve: tuple[tuple[float, ...], ...]
    decay: tuple[tuple[float, ...], ...]
    row: Record


def groups_of(run: Run) -> list[Group]:
    """The readable groups of the shrink report; of the plan, where there is no report."""
    found = []
    for row in _rows(run.shrink.get("groups")) or _rows(run.more.get("plan.json", {}).get("groups")):
        keep = row.get("keep")
        units, kept = number(row.get("units")), number(row.get("kept"))
        kept = float(len(keep)) if kept is None and isinstance(keep, list) else kept
        if units is None or kept is None or units <= 0:
            continue
        found.append(
            Group(
                name=str(row.get("name"))[:120],
                units=units,
                kept=kept,
                error=number(row.get("relative_error")),
                predicted=number(row.get("predicted_error")),
                exponent=number(row.get("exponent")),
                covered=row.get("covered") is True,
                slope=number(row.get("measured_slope")),
                curve=_curve(row.get("curve"), 2),
                decay=_curve(row.get("decay"), 3),
                row=row,
            )
        )
    return found


def widths(run: Run, detail: Detail) -> Figure | None:
    """Units of each group, before and after."""
    groups = groups_of(run)
    rows = [
        (
            one.name,
            count(one.units),
            count(one.kept),
            share(one.kept / one.units),
            plain(one.error),
            plain(one.predicted),
            plain(number(one.row.get("p"))),
        )
        for one in groups
    ]
    head = ["group", "before", "after", "kept", "relative error", "predicted", "p"]
    before = Series(label="before", values=tuple(one.units for one in groups), style="ghost")
    after = Series(label="after", values=tuple(one.kept for one in groups), colour=0)
    axis = Axis(label="units", format="count", low=0)
    return group_bars("What was cut: widths before and after", axis, groups, (before, after), head, rows, detail)


def stages(run: Run, detail: Detail) -> Figure | None:
    """Accuracy before the cut, straight after it, and after each repair."""
    record = run.result.get("stages")
    found = (
        [(str(name)[:60], at) for name, value in record.items() if (at := number(value)) is not None]
        if isinstance(record, Mapping)
        else []
    )
    if len(found) < 2:
        return None
    return Figure(
        title="Accuracy on the way",
        kind="bars",
        x=Axis(label="stage", format="count"),
        y=Axis(label="accuracy", format="percent"),
        across=tuple(float(place) for place in range(1, len(found) + 1)),
        names=tuple(STAGES.get(name, name) for name, _ in found),
        series=(Series(label="accuracy", values=tuple(rounded(at) for _, at in found), style="linked"),),
        table=table(["stage", "accuracy"], [(STAGES.get(name, name), percent(at)) for name, at in found], detail.rows),
    )


def group_bars(
    title: str,
    axis: Axis,
    groups: Sequence[Group],
    series: Sequence[Series],
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    detail: Detail,
) -> Figure | None:
    """Bars, one for each group; None for no groups."""
    if not groups:
        return None
    shown = min(len(groups), MOST_BARS)
    cut: list[Series] = [replace(one, values=one.values[:shown]) for one in series]
    return Figure(
        title=title,
        kind="bars",
        x=Axis(label="group, in the order of the network", format="count"),
        y=axis,
        across=tuple(float(place) for place in range(1, shown + 1)),
        names=tuple(one.name for one in groups[:shown]),
        series=tuple(cut),
        table=table(head, rows, detail.rows),
        caption="" if shown == len(groups) else f"The first {shown} of {len(groups)} groups.",
    )


def _rows(value: object) -> list[Record]:
    return [row for row in value if isinstance(row, Mapping)] if isinstance(value, list) else []


def _curve(value: object, columns: int) -> tuple[tuple[float, ...], ...]:
    """Rows of `columns` numbers by rising first number, each first number once."""
    found = {}
    for row in value if isinstance(value, list) else ():
        if isinstance(row, list) and len(row) == columns:
            numbers = [each for each in map(number, row) if each is not None]
            if len(numbers) == columns:
                found[numbers[0]] = tuple(numbers)
    return tuple(found[key] for key in sorted(found))
