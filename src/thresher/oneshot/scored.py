"""Magnitude and Wanda: entries of lowest score leave, and the others stay as they are."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from torch import Tensor

from thresher.errors import InputError
from thresher.oneshot.problem import Problem


@dataclass(frozen=True, kw_only=True)
class Smallest:
    """The entries of smallest |w| in the layer leave; the inputs do not matter."""

    name: ClassVar[str] = "magnitude"

    def solve(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """(W', gone)."""
        gone = problem.lowest(problem.weight.abs(), by_row=False)
        return problem.weight.masked_fill(gone, 0.0), gone


@dataclass(frozen=True, kw_only=True)
class Wanda:
    """The entries of smallest |w_ij| ‖x_j‖₂ leave, compared inside each output row; the others stay as they are.

    Args:
        scope: compare inside each `row` (the paper's choice for language models) or over the whole `layer`.

    Source: Sun, Liu, Bair and Kolter 2023 (arXiv 2306.11695), equation 1 and section 3.
    """

    name: ClassVar[str] = "wanda"
    scope: Literal["row", "layer"] = "row"

    def __post_init__(self) -> None:
        if self.scope not in ("row", "layer"):
            raise InputError(f"scope={self.scope!r}", "'row' or 'layer'", "correct the scope")

    def solve(self, problem: Problem) -> tuple[Tensor, Tensor]:
        """(W', gone)."""
        gone = problem.lowest(wanda_scores(problem.weight, problem.moments), by_row=self.scope == "row")
        return problem.weight.masked_fill(gone, 0.0), gone


def wanda_scores(weight: Tensor, moments: Tensor) -> Tensor:
    """|w_ij| · sqrt(H_jj), and H_jj = ‖x_j‖₂².

    >>> import torch
    >>> wanda_scores(torch.tensor([[[2.0, -3.0]]]), torch.tensor([[[9.0, 0.0], [0.0, 1.0]]])).tolist()
    [[[6.0, 3.0]]]
    """
    return weight.abs() * moments.diagonal(dim1=-2, dim2=-1).clamp_min(0.0).sqrt()[:, None, :]
