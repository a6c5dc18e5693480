"""Residual curves: ‖V‖²/‖U‖² against the units kept, at sizes few enough to be cheap, and between them."""

from __future__ import annotations

import bisect
import math
from collections.abc import Mapping, Sequence

import torch

from thresher.recovery import Problem, Recovery, refit_loss, refit_prefixes

Curve = dict[int, float]
# Sizes of a curve at most and at least; between, as many as MULTIPLY_ADDS allow.
MOST, LEAST, MULTIPLY_ADDS = 48, 10, 2e10


def grid_of(sizes: Sequence[int], rows: int, outputs: int) -> list[int]:
    """The sizes that are worked out: all of a small group, fewer of a large one, ends included.

    Closer together where little is kept: the iteration runs there only, and errors change fastest.

    >>> grid_of(range(1, 65), 576, 64)[:4], grid_of(range(1, 1001), 4608, 512)
    ([1, 2, 3, 4], [1, 21, 66, 130, 211, 308, 420, 546, 685, 836, 1000])
    """
    work = rows * rows * (outputs + rows / 12)
    most = int(min(max(MULTIPLY_ADDS / work, LEAST), MOST))
    if len(sizes) <= most:
        return list(sizes)
    last = len(sizes) - 1
    places = {round(last * (step / most) ** 1.7) for step in range(most + 1)}
    return [sizes[place] for place in sorted(places)]


def losses_of(problem: Problem, found: Mapping[int, Recovery], *, refits: bool) -> Curve:
    """½‖V‖² of each support, after the refit when `refits`. Nested supports share one factorisation."""
    if not refits:
        return {size: each.loss for size, each in found.items()}
    losses: Curve = {}
    left = sorted(found, reverse=True)
    while left:
        chain = [left[0]]
        for size in left[1:]:
            if set(found[size].support.tolist()) <= set(found[chain[-1]].support.tolist()):
                chain.append(size)
            else:
                break  # below, supports change with the size
        left = left[len(chain) :]
        if len(chain) == 1:
            losses[chain[0]] = refit_loss(problem, found[chain[0]].support)
            continue
        order: dict[int, None] = {}
        for size in reversed(chain):
            order.update(dict.fromkeys(found[size].support.tolist()))
        prefixes = refit_prefixes(problem, torch.tensor(list(order)))
        losses.update({size: float(prefixes[len(found[size].support) - 1]) for size in chain})
    return losses


def relative(problem: Problem, losses: Curve) -> Curve:
    """Losses over ½‖U‖², in order of size."""
    return {size: losses[size] / problem.energy if problem.energy > 0 else 0.0 for size in sorted(losses)}


def between(curve: Curve, size: int) -> float:
    """The curve at `size`: straight between known sizes, in the logarithm where both are above zero.

    >>> between({1: 1.0, 3: 0.25, 5: 0.0}, 2), between({1: 1.0, 3: 0.25, 5: 0.0}, 4)
    (0.5, 0.125)
    """
    known = sorted(curve)
    place = bisect.bisect_left(known, size)
    if place < len(known) and known[place] == size:
        return curve[size]
    low, high = known[max(place - 1, 0)], known[min(place, len(known) - 1)]
    if low == high:
        return curve[low]
    share = (size - low) / (high - low)
    if curve[low] > 0 and curve[high] > 0:
        return math.exp((1 - share) * math.log(curve[low]) + share * math.log(curve[high]))
    return curve[low] + (curve[high] - curve[low]) * share


def falling(curve: Curve) -> Curve:
    """The curve that never rises with the size: a smaller support is there to be taken as well."""
    least, found = math.inf, {}
    for size in sorted(curve):
        least = min(least, curve[size])
        found[size] = least
    return found
