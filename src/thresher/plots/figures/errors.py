"""What a cut does to the network's outputs: measured, predicted and bounded, as a whole, by group, by units kept."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from thresher.plots.figures.figure import Axis, Detail, Figure, Series, rounded, spread, table
from thresher.plots.figures.structured import Group, group_bars, groups_of
from thresher.plots.formats import count, number, plain
from thresher.plots.reading import Run


def output_error(run: Run, detail: Detail) -> Figure | None:
    """Relative error of the network's output: measured, predicted, and at most, by the propagated bound."""
    record = run.shrink
    measured, per_sample = number(record.get("output_error")), number(record.get("error_per_sample"))
    found = [("measured", measured, per_sample), ("predicted", number(record.get("predicted_error")), None)]
    bound = number(record.get("bound"))
    if bound is not None and measured and per_sample:
        # Both bounds are of one difference: what divides the one divides the other.
        found.append(("bound", bound * measured / per_sample, bound))
    found = [row for row in found if row[1]]
    if len(found) < 2:
        return None
    proven = "The bound is proven" if record.get("bound_proven") is True else "The bound is an indication, not proven"
    note = f"{proven}. Such bounds multiply the norms of all layers, and so lie far above what is measured."
    return Figure(
        title="Error of the output",
        kind="bars",
        x=Axis(label="", format="count"),
        y=Axis(label="relative error", log=True),
        across=tuple(float(place) for place in range(1, len(found) + 1)),
        names=tuple(name for name, *_ in found),
        series=(Series(label="‖f − f'‖/‖f‖", values=tuple(rounded(value) for _, value, _ in found), style="dots"),),
        table=table(
            ["", "‖f − f'‖/‖f‖", "‖f − f'‖ per sample"],
            [(name, plain(a), plain(b)) for name, a, b in found],
            detail.rows,
        ),
        caption=note if bound is not None else "No bound is known for this network.",
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
    return group_bars("Error by group", Axis(label="relative error", low=0), groups, series, head, rows, detail)


def residuals(run: Run, detail: Detail) -> Figure | None:
    """Residual against units kept, after and before the refit, beside the decay s^(1 - 2/p) of compressibility."""
    found = [(one.name, made) for one in groups_of(run) if (made := _residual(one, detail)) is not None]
    if not found:
        return None
    shown = found[: detail.histograms]
    return replace(shown[0][1], variants=tuple(shown) if len(shown) > 1 else ())


def _residual(one: Group, detail: Detail) -> Figure | None:
    after = {row[0]: row[1] for row in one.curve if row[0] > 0 and row[1] > 0}
    before = {row[0]: row[1] for row in one.decay if row[0] > 0 and row[1] > 0}
    theory = {row[0]: row[2] for row in one.decay if row[0] > 0 and row[2] > 1e-300}
    sizes = sorted(after.keys() | before.keys())
    if len(sizes) < 2:
        return None
    sizes = [sizes[place] for place in spread(len(sizes), min(detail.points, 80))]
    refitted = one.row.get("refitted") is True

    def column(values: dict[float, float]) -> tuple[float | None, ...]:
        return tuple(rounded(values.get(size)) for size in sizes)

    series = [Series(label="measured, refitted" if refitted else "measured", values=column(after), style="linked")]
    if before and refitted:
        series.append(Series(label="measured, before the refit", values=column(before)))
    # A slope that rises is no promise.
    if theory and one.exponent is not None and one.exponent < 0:
        series.append(
            Series(label=f"predicted decay s^{one.exponent:.2f}", values=column(theory), style="dashed", colour=2)
        )
    columns = list(zip(*(each.values for each in series), strict=True))
    return Figure(
        title="Residual against units kept",
        kind="lines",
        x=Axis(label="units kept", format="count", log=True),
        y=Axis(label="‖V‖²/‖U‖²", log=True),
        across=tuple(sizes),
        series=tuple(series),
        table=table(
            ["units kept", *(each.label for each in series)],
            [(count(size), *map(plain, values)) for size, values in zip(sizes, columns, strict=True)],
            60,
            evenly=True,
        ),
        caption=" ".join(_notes(one)),
        marks=(one.kept,),
    )


def _notes(one: Group) -> Sequence[str]:
    notes = [f"{count(one.kept)} of {count(one.units)} units were kept."]
    p = number(one.row.get("p"))
    if one.slope is not None:
        notes.append(f"Measured slope {one.slope:.2f}.".replace("-", "−"))
    if one.exponent is not None and one.exponent >= 0:
        notes.append(f"The sizes of these units promise no decay (p is {plain(p)}, 2 or more).")
    elif one.exponent is not None and not one.covered:
        notes.append(f"The decay is an indication: the theory asks for p below 1, and p is {plain(p)}.")
    return notes
