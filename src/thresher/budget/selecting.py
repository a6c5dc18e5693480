"""Two neighbours in the order of a long list, without sorting it."""

from __future__ import annotations

import math

from torch import Tensor

_SAMPLE = 1 << 14
_SURE = 6.0  # standard deviations of a sample's rank


def neighbours(flat: Tensor, rank: int) -> tuple[float, float]:
    """The `rank`-th smallest value and the next one, exactly; ranks count from 1, up to len(flat) - 1.

    A long list is cut down to what lies about that rank in a sample of it; where the sample misled, the whole list is
    searched.

    Shapes: flat (n,), real, without NaN.

    >>> neighbours(Tensor([4.0, 1.0, 3.0, 2.0]), 2)
    (2.0, 3.0)
    """
    every = len(flat) // _SAMPLE
    if every > 1:
        sample = flat[::every].contiguous()
        share = rank / len(flat)
        middle, spread = share * len(sample), _SURE * math.sqrt(share * (1 - share) * len(sample)) + 2
        low = sample.kthvalue(max(int(middle - spread), 1)).values
        high = sample.kthvalue(min(int(middle + spread) + 1, len(sample))).values
        below = flat < low
        within = flat[below.logical_xor(flat <= high)]
        left = rank - int(below.count_nonzero())
        if 1 <= left < len(within):
            flat, rank = within, left
    return float(flat.kthvalue(rank).values), float(flat.kthvalue(rank + 1).values)
