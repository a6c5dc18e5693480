"""Which weights are alive, and how that changes between two moments of a run."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from thresher.errors import InputError


def churn(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """(entries that were zero and are not, or were not and are) / entries.

    Shapes: two lists of weights (or boolean masks), pairwise of the same shape. Units: a share in [0, 1].
    Gradient: none. No entries at all give 0. NaN counts as alive.
    Errors: InputError when the lists do not fit together.
    Source: choice.

    >>> import torch
    >>> churn([torch.tensor([0.0, 1.0, 2.0, 0.0])], [torch.tensor([3.0, 0.0, 2.0, 0.0])])
    0.5
    """
    flips = [int(((old != 0) ^ (new != 0)).sum()) for old, new in _pairs(before, after)]
    return sum(flips) / max(sum(old.numel() for old in before), 1)


def regrowth(before: Sequence[Tensor], after: Sequence[Tensor]) -> float:
    """(entries that were zero and are not) / entries: the part of `churn` that came back to life.

    Shapes, units, gradient, errors, source: as `churn`.

    >>> import torch
    >>> regrowth([torch.tensor([0.0, 1.0, 2.0, 0.0])], [torch.tensor([3.0, 0.0, 2.0, 0.0])])
    0.25
    """
    grown = [int(((old == 0) & (new != 0)).sum()) for old, new in _pairs(before, after)]
    return sum(grown) / max(sum(old.numel() for old in before), 1)


def _pairs(before: Sequence[Tensor], after: Sequence[Tensor]) -> list[tuple[Tensor, Tensor]]:
    shapes = [tuple(tensor.shape) for tensor in before], [tuple(tensor.shape) for tensor in after]
    if shapes[0] != shapes[1]:
        raise InputError(
            f"tensors of shapes {shapes[0][:4]} and {shapes[1][:4]}",
            "the same tensors at two moments",
            "pass both lists in the order of pruner.targets",
        )
    return list(zip(before, after, strict=True))
