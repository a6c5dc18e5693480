"""A structured run: what was cut, what it did to each group, and how the measured error lies beside the predicted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from thresher.plots.figures.figure import Axis, Detail, Figure, Series, rounded, spread, table
from thresher.plots.formats import count, number, percent, plain, share
from thresher.plots.reading import Record, Run

MOST_BARS = 120
STAGES = {"before": "dense", "cut": "after the cut", "reestimated": "batch norm anew", "finetuned": "fine-tuned"}


@dataclass(frozen=True, kw_only=True)
class Group:
    """One row of the shrink report, as far as it can be read."""

    name: str
    units: float
    kept: float
    error: float | None
    predicted: float | None
    exponent: float | None
    slope: float | None
    curve: tuple[tuple[float, float], ...]
    losses: tuple[float, ...]
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
        energy = number(row.get("energy"))
        losses = [number(value) for value in row["losses"]] if isinstance(row.get("losses"), list) else []
        found.append(
            Group(
                name=str(row.get("name"))[:120],
                units=units,
                kept=kept,
                error=number(row.get("relative_error")),
                predicted=number(row.get("predicted_error")),
                exponent=number(row.get("exponent")),
                slope=number(row.get("measured_slope")),
                curve=_curve(row.get("curve")),
                losses=tuple(value / energy for value in losses if value is not None) if energy else (),
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
    return _bars("What was cut: widths before and after", axis, groups, (before, after), head, rows, detail)


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
        y=Axis(label="accuracy", format="percent", low=0),
        across=tuple(float(place) for place in range(1, len(found) + 1)),
        names=tuple(STAGES.get(name, name) for name, _ in found),
        series=(Series(label="accuracy", values=tuple(rounded(at) for _, at in found)),),
        table=table(["stage", "accuracy"], [(STAGES.get(name, name), percent(at)) for name, at in found], detail.rows),
    )


def group_errors(run: Run, detail: Detail) -> Figure | None:
    """Squared relative error of what each group gives to its readers: measured, and as it was predicted."""
    groups = [one for one in groups_of(run) if one.error is not None]
    rows = [
        (one.name, plain(one.error), plain(one.predicted), plain(number(one.row.get("residual")))) for one in groups
    ]
    series = [Series(label="measured", values=tuple(rounded(one.error) for one in groups))]
    if any(one.predicted is not None for one in groups):
        values = tuple(rounded(one.predicted) for one in groups)
        series.append(Series(label="predicted, at the output", values=values, style="dots"))
    head = ["group", "measured ‖V‖²/‖U‖²", "predicted", "‖V‖ per sample"]
    axis = Axis(label="relative error", low=0)
    made = _bars("Error by group", axis, groups, series, head, rows, detail)
    return None if made is None else replace(made, caption=_bound(run.shrink))


def residuals(run: Run, detail: Detail) -> Figure | None:
    """Residual against units kept, measured, beside the decay s^(1 - 2/p) that compressibility predicts."""
    found = []
    for one in groups_of(run):
        curve = [(units, left) for units, left in one.curve if units > 0 and left > 0]
        if len(curve) < 2:
            continue
        curve = [curve[place] for place in spread(len(curve), min(detail.points, 80))]
        first = curve[0]
        series = [Series(label="measured", values=tuple(rounded(left) for _, left in curve), style="linked")]
        # From p = 2 on the theory promises no decay.
        if one.exponent is not None and -50 < one.exponent < 0:
            decay = [first[1] * (units / first[0]) ** one.exponent for units, _ in curve]
            series.append(
                Series(
                    label=f"predicted decay s^{one.exponent:.2f}",
                    values=tuple(rounded(value) if value > 1e-300 else None for value in decay),
                    style="dashed",
                )
            )
        columns = zip(curve, *(each.values for each in series), strict=True)
        figure = Figure(
            title="Residual against units kept",
            kind="lines",
            x=Axis(label="units kept", format="count", log=True),
            y=Axis(label="‖V‖²/‖U‖²", log=True),
            across=tuple(units for units, _ in curve),
            series=tuple(series),
            table=table(
                ["units kept", *(each.label for each in series)],
                [(count(at[0]), *(plain(value) for value in values)) for at, *values in columns],
                60,
                evenly=True,
            ),
            caption=f"{count(one.kept)} of {count(one.units)} units were kept."
            + ("" if one.slope is None else f" Measured slope {one.slope:.2f}.".replace("-", "−"))
            + (" Compressibility promises no decay here (p of 2 or more)." if (one.exponent or 0) > 0 else ""),
            marks=(one.kept,),
        )
        found.append((one.name, figure))
    if not found:
        return None
    shown = found[: detail.histograms]
    return replace(shown[0][1], variants=tuple(shown) if len(shown) > 1 else ())


def _bound(report: Mapping[str, object]) -> str:
    error, bound = number(report.get("error_per_sample")), number(report.get("bound"))
    relative, predicted = number(report.get("output_error")), number(report.get("predicted_error"))
    parts = []
    if relative is not None:
        beside = "" if predicted is None else f", predicted {plain(predicted)}"
        parts.append(f"Relative error of the output: {plain(relative)} measured{beside}.")
    if error is not None and bound is not None:
        proven = "" if report.get("bound_proven") is True else " (an indication: the network is no plain chain)"
        parts.append(f"Error per sample {plain(error)}, propagated bound {plain(bound)}{proven}.")
    return " ".join(parts)


def _bars(
    title: str,
    axis: Axis,
    groups: Sequence[Group],
    series: Sequence[Series],
    head: Sequence[str],
    rows: Sequence[Sequence[str]],
    detail: Detail,
) -> Figure | None:
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


def _curve(value: object) -> tuple[tuple[float, float], ...]:
    found = []
    for pair in value if isinstance(value, list) else ():
        if isinstance(pair, list) and len(pair) == 2:
            units, left = number(pair[0]), number(pair[1])
            if units is not None and left is not None:
                found.append((units, left))
    return tuple(sorted(dict(found).items()))
