"""Units by a score of the weights that make them: filter norms, batch-norm scale, chance. No data is read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar, Literal

import torch
from torch import Tensor, nn

from thresher.budget.linear import matrix_of
from thresher.errors import InputError
from thresher.recovery import Problem, Recovery, top
from thresher.shrinking.selections.given import recovered

if TYPE_CHECKING:
    from thresher.shrinking.selections.registry import View


@dataclass(frozen=True, kw_only=True)
class Scored:
    """The s units with the largest score, which needs no data.

    Args:
        score: "l1" or "l2" (norm of the filter that makes the unit), "bn-scale" (|γ| of the norm behind it),
            "random" (drawn with `seed`).
    """

    name: ClassVar[str] = "scored"
    score: Literal["l1", "l2", "bn-scale", "random"] = "l2"
    seed: int = 0
    debias: bool = False

    def __post_init__(self) -> None:
        if self.score not in ("l1", "l2", "bn-scale", "random"):
            raise InputError(f"score={self.score!r}", "'l1', 'l2', 'bn-scale' or 'random'", "correct the score")

    def recover(self, problem: Problem, sizes: Sequence[int], view: View) -> dict[int, Recovery]:
        """Top s by score, ties to the lowest index."""
        scores = self.scores(view)
        return {size: recovered(problem, top(scores, size)) for size in sizes}

    def scores(self, view: View) -> Tensor:
        """One score per unit, float64."""
        group = view.group
        if self.score == "random":
            # Of the layer's name too: otherwise layers of one width would lose the same units.
            seed = self.seed * 1_000_003 + sum((place + 1) * ord(letter) for place, letter in enumerate(group.name))
            return torch.rand(group.units, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
        total = torch.zeros(group.units, dtype=torch.float64)
        found = False
        for member in group.members:
            module = view.model.get_submodule(member.module)
            weight = None if getattr(module, "weight", None) is None or member.axis == "in" else matrix_of(module)
            wanted = (
                isinstance(module, nn.modules.batchnorm._BatchNorm)
                if self.score == "bn-scale"
                else (member.module in group.producers)
            )
            if not wanted or weight is None:
                continue
            found = True
            values = weight.detach().to("cpu", torch.float64)
            values = (values.T if isinstance(module, nn.Embedding) else values).reshape(member.size, -1)
            sizes = values.square().sum(1) if self.score == "l2" else values.abs().sum(1)
            for unit, index in enumerate(member.index):
                total[unit] += sizes[list(index)].sum()
        if not found:
            raise InputError(
                f"bn-scale for {group.name}, which has no batch norm with weights behind it",
                "a batch norm in every group that is cut",
                "exclude the layer by a rule, or score by 'l2'",
            )
        return total.sqrt() if self.score == "l2" else total
