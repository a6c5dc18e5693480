"""Several runs in one plot: accuracy against what the network still costs."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from thresher.apps.report.figures.figure import Axis, Figure, Series, rounded, table
from thresher.apps.report.formats import percent, share, size
from thresher.apps.report.outcome import Outcome

MOST_METHODS = 8


def accuracy_against_zeros(outcomes: Sequence[Outcome]) -> Figure | None:
    """One dot per run, one colour per method."""
    axis = Axis(label="zeros", format="percent")
    found = [(100 * one.sparsity, one) for one in outcomes if one.sparsity is not None]
    return _scatter("Accuracy against zeros", axis, outcomes, found, lambda one: share(one.sparsity))


def accuracy_against_bytes(outcomes: Sequence[Outcome]) -> Figure | None:
    """One dot per run, one colour per method."""
    axis = Axis(label="bytes", format="bytes")
    found = [(one.bytes, one) for one in outcomes if one.bytes is not None]
    return _scatter("Accuracy against bytes", axis, outcomes, found, lambda one: size(one.bytes))


def _scatter(
    title: str,
    axis: Axis,
    outcomes: Sequence[Outcome],
    found: Sequence[tuple[float, Outcome]],
    write: Callable[[Outcome], str],
) -> Figure | None:
    dots = sorted(((at, one) for at, one in found if one.after is not None), key=lambda dot: dot[0])
    if not dots:
        return None
    # A method has one colour in every plot, drawn there or not. Past eight, where colours run out, the rest share one.
    methods = list(dict.fromkeys(one.method for one in outcomes))
    named, rest = methods[: MOST_METHODS - 1], methods[MOST_METHODS - 1 :]
    colours: list[tuple[str, set[str]]] = [(method, {method}) for method in named]
    if rest:
        colours.append((rest[0] if len(rest) == 1 else f"{len(rest)} other methods", set(rest)))
    return Figure(
        title=title,
        kind="scatter",
        x=axis,
        y=Axis(label="accuracy", format="percent"),
        across=tuple(at for at, _ in dots),
        names=tuple(one.name for _, one in dots),
        series=tuple(
            Series(label=label, values=tuple(rounded(one.after) if one.method in members else None for _, one in dots))
            for label, members in colours
        ),
        table=table(
            ["run", "method", axis.label, "accuracy"],
            [(one.name, one.method, write(one), percent(one.after)) for _, one in dots],
            200,
        ),
    )
