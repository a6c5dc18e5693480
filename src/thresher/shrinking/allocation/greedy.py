"""Split a budget over groups: shrink where the predicted output error per saved cost is least."""

from __future__ import annotations

import bisect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial

from thresher.errors import BudgetError

Cost = Mapping[str, float]
# Sizes of one group that the way down tries at most.
RUNGS = 64


@dataclass(frozen=True, kw_only=True)
class Option:
    """What a group may keep: `sizes` in rising order, and the predicted error of each."""

    name: str
    sizes: tuple[int, ...]
    errors: tuple[float, ...]


def lower_hull(sizes: Sequence[int], errors: Sequence[float]) -> list[int]:
    """Positions of the corners of the lower convex hull of (size, error), from the largest size down.

    >>> lower_hull([1, 2, 3, 4], [9.0, 8.0, 1.0, 0.0])
    [3, 2, 0]
    """
    hull: list[int] = []
    for place in range(len(sizes) - 1, -1, -1):
        while len(hull) >= 2:
            last, before = hull[-1], hull[-2]
            now = (errors[place] - errors[before]) * (sizes[before] - sizes[last])
            then = (errors[last] - errors[before]) * (sizes[before] - sizes[place])
            if now > then:
                break
            hull.pop()
        hull.append(place)
    return hull


def _ladder(option: Option) -> list[int]:
    """Sizes to go down by: corners of the hull, of at most RUNGS sizes."""
    last = len(option.sizes) - 1
    places = sorted({round(last * step / RUNGS) for step in range(RUNGS + 1)}) if last > RUNGS else range(last + 1)
    sizes, errors = [option.sizes[place] for place in places], [option.errors[place] for place in places]
    return [sizes[place] for place in lower_hull(sizes, errors)]


def allocate(options: Sequence[Option], limits: Cost, cost_of: Callable[[Mapping[str, int]], Cost]) -> dict[str, int]:
    """Units to keep in each group, within every limit, with little predicted error in total.

    From the whole network down the convex hulls of the error curves, always where the error grows least per cost of the
    limit that is broken most; then back up, wherever what is left of the budget buys the largest drop.

    Errors: BudgetError with the least that can be reached.
    """
    curves = {option.name: dict(zip(option.sizes, option.errors, strict=True)) for option in options}
    ladders = {option.name: _ladder(option) for option in options}
    kept = {name: ladder[0] for name, ladder in ladders.items()}
    rung = dict.fromkeys(ladders, 0)
    while True:
        now = cost_of(kept)
        broken = {name: now[name] / max(limit, 1e-12) for name, limit in limits.items() if now[name] > limit}
        if not broken:
            break
        limit = max(broken, key=lambda name: broken[name])
        best: tuple[float, str] | None = None
        for name, ladder in ladders.items():
            if rung[name] + 1 == len(ladder):
                continue
            size = ladder[rung[name] + 1]
            saved = now[limit] - cost_of({**kept, name: size})[limit]
            price = (curves[name][size] - curves[name][kept[name]]) / max(saved, 1e-12)
            if saved > 0 and (best is None or price < best[0]):
                best = price, name
        if best is None:
            raise BudgetError(
                f"a budget of {limit} <= {limits[limit]:,.0f}",
                f"at least {now[limit]:,.0f}, which is left when every group is at its least",
                "loosen the budget, the rules or round_to, or let more layers be cut (scope='across')",
            )
        rung[best[1]] += 1
        kept[best[1]] = ladders[best[1]][rung[best[1]]]
    return _fill(kept, curves, limits, cost_of)


def _fill(
    kept: dict[str, int],
    curves: Mapping[str, Mapping[int, float]],
    limits: Cost,
    cost_of: Callable[[Mapping[str, int]], Cost],
) -> dict[str, int]:
    """Spend what the last step down saved too much: always on the group that gains most from all that is left."""

    def too_large(name: str, size: int) -> bool:
        trial = cost_of({**kept, name: size})
        return any(trial[key] > limit for key, limit in limits.items())

    while True:
        best: tuple[float, str, int] | None = None
        for name, curve in curves.items():
            larger = [size for size in curve if size > kept[name]]
            # Costs rise with sizes: the first that does not fit.
            end = bisect.bisect_left(larger, True, key=partial(too_large, name))
            if not end:
                continue
            drop = curve[kept[name]] - curve[larger[end - 1]]
            if drop > 0 and (best is None or drop > best[0]):
                best = drop, name, larger[end - 1]
        if best is None:
            return kept
        kept[best[1]] = best[2]


def uniform(options: Sequence[Option], limits: Cost, cost_of: Callable[[Mapping[str, int]], Cost]) -> dict[str, int]:
    """The same share of units in every group, the largest within every limit (sizes rounded down, at least the least).

    Errors: BudgetError when even the least sizes break a limit.
    """

    def at(share: float) -> dict[str, int]:
        return {
            each.name: max((size for size in each.sizes if size <= share * each.sizes[-1]), default=each.sizes[0])
            for each in options
        }

    def fits(share: float) -> bool:
        found = cost_of(at(share))
        return all(found[key] <= limit for key, limit in limits.items())

    shares = sorted({size / each.sizes[-1] for each in options for size in each.sizes} | {0.0}, reverse=True)
    for share in shares:
        if fits(share + 1e-12):
            return at(share + 1e-12)
    least = cost_of(at(0.0))
    raise BudgetError(
        "a budget of " + ", ".join(f"{key} <= {limit:,.0f}" for key, limit in limits.items()),
        "at least " + ", ".join(f"{key} {least[key]:,.0f}" for key in limits),
        "loosen the budget, the rules or round_to",
    )
