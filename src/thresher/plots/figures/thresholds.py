"""Thresholds per layer over time, and the L1 coefficient that their movement implies."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from statistics import median

from thresher.plots.figures.figure import Axis, Detail, Figure, Series, rounded, spread, table
from thresher.plots.formats import count, number, plain
from thresher.plots.reading import Run

MOST_LINES = 8  # as many as there are colours that the eye tells apart


def thresholds(run: Run, detail: Detail) -> Figure | None:
    """One line per threshold; tensors that share theirs share a line. While a run goes on, the largest of them."""
    trace = run.trace
    if trace is None:
        return _largest(run, detail)
    places = spread(len(trace.steps), detail.points)
    groups: dict[tuple[float, ...], list[str]] = {}
    for column, name in enumerate(trace.names):
        groups.setdefault(tuple(trace.rows[place][column] for place in places), []).append(name)
    curves = sorted(groups.items(), key=lambda item: -item[0][-1])
    shown = [curves[place] for place in spread(len(curves), MOST_LINES)]
    notes = []
    if len(shown) < len(curves):
        notes.append(f"{len(shown)} of {len(curves)} different curves are drawn; the table has every tensor.")
    if trace.frozen is not None:
        notes.append(f"The support was fixed at step {count(trace.frozen)}; no threshold acts from there on.")
    rows = [(name, plain(trace.rows[-1][column])) for column, name in enumerate(trace.names)]
    return Figure(
        title="Thresholds over time",
        kind="lines",
        x=Axis(label="optimizer step", format="count"),
        y=Axis(label="threshold", low=0),
        across=tuple(trace.steps[place] for place in places),
        series=tuple(
            Series(label=_together(names, len(trace.names)), values=tuple(rounded(value) for value in values))
            for values, names in shown
        ),
        table=table(["tensor", "threshold at the end"], rows, detail.rows),
        caption=" ".join(notes),
    )


def _largest(run: Run, detail: Detail) -> Figure | None:
    """trace.json comes at the end of a run; until then metrics.jsonl knows the largest threshold."""
    known = [(number(row.get("step")), number(row.get("threshold"))) for row in run.steps]
    pairs = sorted((at, value) for at, value in known if at is not None and value is not None)
    if not pairs or not any(value for _, value in pairs):
        return None
    shown = [pairs[place] for place in spread(len(pairs), detail.points)]
    return Figure(
        title="Thresholds over time",
        kind="lines",
        x=Axis(label="optimizer step", format="count"),
        y=Axis(label="threshold", low=0),
        across=tuple(at for at, _ in shown),
        series=(Series(label="largest threshold", values=tuple(rounded(value) for _, value in shown)),),
        table=table(["step", "largest threshold"], [(count(at), plain(value)) for at, value in shown], 60, evenly=True),
        caption="The largest of the thresholds; each tensor has its own line once the run has ended.",
    )


def implied_penalty(run: Run, detail: Detail) -> Figure | None:
    """lambda = (threshold move) / (clock move): median over tensors, with a band from the smallest to the largest."""
    trace = run.trace
    if trace is None:
        return None
    places = spread(len(trace.steps), min(detail.points, 200) + 1)
    whole = trace.clock[-1] - trace.clock[0]
    moves = []
    for one, two in pairwise(places):
        passed = trace.clock[two] - trace.clock[one]
        if passed <= 1e-6 * whole or whole <= 0:
            continue  # where the learning rate is (almost) 0 the quotient means nothing
        values = [(b - a) / passed for a, b in zip(trace.rows[one], trace.rows[two], strict=True)]
        moves.append((trace.steps[two], median(values), min(values), max(values)))
    rest = _end_of_movement(moves)
    moves, still = moves[:rest], moves[rest:]
    if not moves:
        return None
    apart = any(high - low > 1e-9 * abs(high) for _, _, low, high in moves)
    series = Series(
        label="λ, median over tensors" if apart else "λ",
        values=tuple(rounded(value) for _, value, _, _ in moves),
        low=tuple(rounded(value) for _, _, value, _ in moves) if apart else (),
        high=tuple(rounded(value) for _, _, _, value in moves) if apart else (),
    )
    rows = [(count(at), plain(middle), plain(low), plain(high)) for at, middle, low, high in moves]
    return Figure(
        title="Implied L1 coefficient λ",
        kind="lines",
        x=Axis(label="optimizer step", format="count"),
        y=Axis(label="λ", low=0 if min(low for _, _, low, _ in moves) >= 0 else None),
        across=tuple(at for at, *_ in moves),
        series=(series,),
        table=table(["step", "λ median", "λ smallest", "λ largest"], rows, 60, evenly=True),
        caption=_steadiness([(at, middle) for at, middle, *_ in moves])
        + (f" No threshold moves after step {count(moves[-1][0])}." if still else ""),
    )


def _end_of_movement(moves: Sequence[tuple[float, float, float, float]]) -> int:
    """How many moves come before thresholds stand still for good; the one in which they stop is no whole move."""
    moving = max((place + 1 for place, (_, _, low, high) in enumerate(moves) if low or high), default=0)
    return moving if moving == len(moves) else max(moving - 1, 0)


def _steadiness(trace: Sequence[tuple[float, float]]) -> str:
    late = [value for at, value in trace if at >= trace[-1][0] / 10]
    middle = median(late)
    text = "λ is how far the threshold moves per unit of learning rate (momentum included)."
    if middle <= 0:
        return text
    below, above = min(late) / middle - 1, max(late) / middle - 1
    low, high = (f"{round(100 * move, 1) + 0.0:+.1f} %".replace("-", "−") for move in (below, above))
    return (
        f"{text} Median {middle:.3g}; after the first tenth of the run it stays within {low} to {high} of the median."
    )


def _together(names: Sequence[str], whole: int) -> str:
    if len(names) == 1:
        return names[0]
    return f"all {whole} tensors" if len(names) == whole else f"{names[0]} and {len(names) - 1} more"
