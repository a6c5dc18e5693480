"""A unit may be made twice as large and read half as strongly: the same network. Here both are settled."""

from __future__ import annotations

import torch
from torch import Tensor

from thresher.recovery.problem import Part, Problem


def reading_sizes(problem: Problem) -> Tensor:
    """‖W1[:, i]‖ over all readers and all rows of unit i; shape (units,), float64.

    >>> reading_sizes(Problem.of(torch.eye(2), torch.tensor([[3.0, 0.0], [4.0, 0.0]]))).tolist()
    [5.0, 0.0]
    """
    squares = [part.weight.square().sum(0).reshape(part.units, part.block).sum(1) for part in problem.parts]
    return torch.stack(squares).sum(0).sqrt()


def balanced(problem: Problem) -> Problem:
    """The same problem with `reading_sizes` moved from W1 into H: hidden sizes then say what readers are given.

    Losses of every support are as before, and a unit that nothing reads counts as dead; what i-SpaSP chooses no longer
    depends on how a network shares the size of a unit between its two layers.

    >>> balanced(Problem.of(torch.eye(2), torch.tensor([[3.0, 4.0]]))).sizes.tolist()
    [3.0, 4.0]
    """
    sizes = reading_sizes(problem)
    parts = []
    for part in problem.parts:
        rows = sizes.repeat_interleave(part.block)
        moments = (part.moments * rows).mul_(rows[:, None])
        parts.append(Part(moments=moments, weight=part.weight / rows.masked_fill(rows == 0, 1), block=part.block))
    return Problem(tuple(parts))
