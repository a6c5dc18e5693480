"""Which pattern the zeros of a network have, and which pattern is faster at equal accuracy."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from itertools import pairwise

from torch import Tensor, nn

FREE, BLOCKS, NONE = "free form", "block:4x1", "no zeros"

Point = tuple[float, float]
"""(accuracy in percent, how many times as fast)."""


def pattern_of(model: nn.Module) -> str:
    """ "block:4x1" where four neighbouring outputs share their zeros in every matrix and kernel that has some and whose
    outputs divide by four, "no zeros" where there are none, else "free form".

    >>> import torch
    >>> layer = nn.Linear(2, 4)
    >>> with torch.no_grad():
    ...     _ = layer.weight.fill_(1.0), layer.weight[:, 0].zero_()
    >>> pattern_of(layer)
    'block:4x1'
    """
    pruned = [weight.detach() for weight in model.parameters() if weight.dim() >= 2 and bool((weight == 0).any())]
    if not pruned:
        return NONE
    wide = [weight for weight in pruned if weight.shape[0] % 4 == 0]
    return BLOCKS if wide and all(map(_shared_by_four, wide)) else FREE


def _shared_by_four(weight: Tensor) -> bool:
    rows = (weight != 0).reshape(weight.shape[0] // 4, 4, -1)
    return bool((rows == rows[:, :1]).all())


def at_equal_accuracy(points: Mapping[str, Sequence[Point]]) -> list[tuple[float, dict[str, float]]]:
    """At each accuracy that some point has and at least two names span: name to speed, from the lowest accuracy up.

    Speeds between two points of a name are interpolated in the logarithm. Points that another one of the same name
    beats in both do not count.

    >>> at_equal_accuracy({"a": [(90.0, 1.0), (80.0, 4.0)], "b": [(85.0, 3.0)]})
    [(85.0, {'a': 2.0, 'b': 3.0})]
    """
    fronts = {name: _front(some) for name, some in points.items() if some}
    found = []
    for level in sorted({accuracy for front in fronts.values() for accuracy, _ in front}):
        speeds = {
            name: _between(front, level) for name, front in fronts.items() if front[0][0] <= level <= front[-1][0]
        }
        if len(speeds) > 1:
            found.append((level, speeds))
    return found


def _front(points: Sequence[Point]) -> list[Point]:
    """By rising accuracy and falling speed."""
    kept: list[Point] = []
    for accuracy, speed in sorted(points, reverse=True):
        if not kept or speed > kept[-1][1]:
            kept.append((accuracy, speed))
    return kept[::-1]


def _between(front: Sequence[Point], level: float) -> float:
    for (low, fast), (high, slow) in pairwise(front):
        if low < level < high:
            share = (level - low) / (high - low)
            return math.exp((1 - share) * math.log(fast) + share * math.log(slow))
    return dict(front)[level]
