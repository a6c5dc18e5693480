"""Several runs in one plot: accuracy against what the network still costs, methods by colour, seeds as bands."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from statistics import fmean
from typing import Literal

from thresher.plots.figures.bunches import Bunch, bunches_of, mean_of, timed_alike
from thresher.plots.figures.figure import Axis, Figure, Series, Values, rounded, table
from thresher.plots.formats import count, percent, short, size
from thresher.plots.outcome import Outcome

MOST_METHODS = 7  # one colour is the front's


def accuracy_against_zeros(outcomes: Sequence[Outcome]) -> Figure | None:
    """More zeros are better."""
    axis = Axis(label="zeros", format="percent")
    return _scatter("Accuracy against zeros", axis, outcomes, lambda one: _hundred(one.sparsity), percent, more=True)


def accuracy_against_macs(outcomes: Sequence[Outcome]) -> Figure | None:
    """Fewer multiply-adds are better."""
    axis = Axis(label="multiply-adds left", format="count")
    return _scatter("Accuracy against multiply-adds", axis, outcomes, lambda one: one.macs, count)


def accuracy_against_bytes(outcomes: Sequence[Outcome]) -> Figure | None:
    """Fewer bytes are better."""
    axis = Axis(label="bytes", format="bytes")
    return _scatter("Accuracy against bytes", axis, outcomes, lambda one: one.bytes, size)


def accuracy_against_time(outcomes: Sequence[Outcome]) -> Figure | None:
    """Fewer milliseconds are better. Only runs that were timed alike, and by an engine that their zeros matter to."""
    alike, condition = timed_alike(outcomes)
    axis = Axis(label="milliseconds a pass")
    made = _scatter("Accuracy against milliseconds", axis, alike, lambda one: one.milliseconds, short)
    return None if made is None else replace(made, caption=f"{made.caption} Timed at {condition}.".strip())


def _scatter(
    title: str,
    axis: Axis,
    outcomes: Sequence[Outcome],
    cost: Callable[[Outcome], float | None],
    write: Callable[[float | None], str],
    *,
    more: bool = False,
) -> Figure | None:
    found = [(at, bunch) for bunch in bunches_of(outcomes) if bunch.accuracies and (at := bunch.mean(cost)) is not None]
    if not found:
        return None
    found.sort(key=lambda dot: dot[0])
    means = [fmean(bunch.accuracies) for _, bunch in found]
    # A method has one colour in every plot, drawn there or not. Past the colours the rest share one.
    methods = list(dict.fromkeys(one.method for one in outcomes))
    named, rest = methods[: MOST_METHODS - 1], methods[MOST_METHODS - 1 :]
    colours: list[tuple[str, set[str]]] = [(method, {method}) for method in named]
    if rest:
        colours.append((rest[0] if len(rest) == 1 else f"{len(rest)} other methods", set(rest)))
    series = []
    for label, members in colours:
        mine = [bunch.method in members for _, bunch in found]
        values: Values = tuple(rounded(mean) if own else None for mean, own in zip(means, mine, strict=True))
        seeds = any(own and len(bunch.accuracies) > 1 for own, (_, bunch) in zip(mine, found, strict=True))
        low, high = (_ends(found, mine, end) for end in (min, max)) if seeds else ((), ())
        own = [(at, bunch.asked) for kept, (at, bunch) in zip(mine, found, strict=True) if kept]
        # A line only where it means "the same method at another budget".
        apart = len(own) > 1 and all(len(set(column)) == len(own) for column in zip(*own, strict=True))
        style: Literal["linked", ""] = "linked" if apart and len(members) == 1 else ""
        series.append(Series(label=label, values=values, low=low, high=high, style=style))
    front = _front([at for at, _ in found], means, more=more)
    if len({(found[place][0], means[place]) for place in front}) > 1:
        on = tuple(rounded(mean) if place in front else None for place, mean in enumerate(means))
        series.append(Series(label="Pareto front", values=on, style="dashed", colour=7))
    return Figure(
        title=title,
        kind="scatter",
        x=axis,
        y=Axis(label="accuracy", format="percent"),
        across=tuple(rounded(at) or 0.0 for at, _ in found),
        names=tuple(bunch.title for _, bunch in found),
        series=tuple(series),
        table=table(
            ["run", "method", "seeds", axis.label, "accuracy", "on the front"],
            [
                (
                    bunch.title,
                    bunch.method,
                    str(len(bunch.accuracies)),
                    write(at),
                    mean_of(bunch.accuracies),
                    "yes" if place in front else "",
                )
                for place, (at, bunch) in enumerate(found)
            ],
            200,
        ),
        caption="Bands and whiskers go from the lowest to the highest seed." if any(one.low for one in series) else "",
    )


def _front(costs: Sequence[float], gains: Sequence[float], *, more: bool) -> set[int]:
    """Places that no other beats in both; of equals all stay."""
    sign = -1.0 if more else 1.0
    points = [(sign * cost, -gain) for cost, gain in zip(costs, gains, strict=True)]
    return {
        place
        for place, mine in enumerate(points)
        if not any(other[0] <= mine[0] and other[1] <= mine[1] and other != mine for other in points)
    }


def _ends(found: Sequence[tuple[float, Bunch]], mine: Sequence[bool], end: Callable[[list[float]], float]) -> Values:
    return tuple(rounded(end(bunch.accuracies)) if own else None for own, (_, bunch) in zip(mine, found, strict=True))


def _hundred(value: float | None) -> float | None:
    return None if value is None else 100 * value
