"""x → x in float32, or in float64 where x already is: the precision every operator computes in."""

from __future__ import annotations

import torch
from torch import Tensor


def widen(tensor: Tensor) -> Tensor:
    """x → float32(x), or x itself where it is float64.

    `|θ| − d` and `θ² − τ` cancel badly in half precision, so operators widen first and cast back last.

    Shapes: any, kept. Units: kept. Gradient: the identity. Errors: none.
    Source: choice.

    >>> widen(torch.tensor([0.5], dtype=torch.float16)).dtype
    torch.float32
    """
    return tensor.to(torch.float64 if tensor.dtype == torch.float64 else torch.float32)


def above(magnitude: Tensor, cap: Tensor) -> Tensor:
    """1 where magnitude > cap, else 0, in the dtype of both: a mask of numbers.

    The CPU makes and multiplies numbers several times as fast as truth values, which it converts entry by entry.

    Shapes: cap broadcasts to magnitude. Units: a pure number. Gradient: none. Errors: none. Source: choice.

    >>> above(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([2.0])).tolist()
    [0.0, 0.0, 1.0]
    """
    return (magnitude.detach() - cap.detach()).gt_(0)


def rms(tensor: Tensor, dims: tuple[int, ...], count: Tensor | int) -> Tensor:
    """sqrt(Σ x² / count) over `dims` (kept with size 1), with gradient 0 instead of NaN where all x are 0.

    Shapes: any; `count` broadcasts to the reduced shape. Units: those of x. Gradient: `x / (count · rms)`.
    Errors: none; a group whose RMS is under about 1e-22 (float32) underflows to 0.
    Source: choice.

    >>> rms(torch.tensor([[3.0, 4.0, 0.0, 0.0]]), (1,), 4).item()
    2.5
    """
    mean_square = tensor.square().sum(dims, keepdim=True) / count
    alive = mean_square > 0
    return torch.where(alive, torch.where(alive, mean_square, 1).sqrt(), 0)  # inner where: sqrt'(0) is inf
