"""Units chosen elsewhere: the rest of the frame (cutting, refit, report) for any choice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

import torch
from torch import Tensor

from thresher.errors import InputError
from thresher.recovery import Problem, Recovery

if TYPE_CHECKING:
    from thresher.shrinking.selections.registry import View


@dataclass(frozen=True, kw_only=True)
class Given:
    """S = the units that `keep` names for the group.

    Args:
        keep: group name to the units that stay. label: what the report calls the method.
        debias: refit the reading weights by least squares to what the whole layer gave.
    """

    name: ClassVar[str] = "given"
    keep: Mapping[str, tuple[int, ...]]
    label: str = ""
    debias: bool = False

    def recover(self, problem: Problem, sizes: Sequence[int], view: View) -> dict[int, Recovery]:
        """The units given. Errors: InputError for a group or a size that was not given."""
        units = self.keep.get(view.group.name, ())
        wrong = [size for size in sizes if size != len(units)]
        if wrong:
            raise InputError(
                f"{wrong[0]} units of {view.group.name}",
                f"{len(units)}, which were given",
                "pass keep={group: number of units given} to shrink_plan",
            )
        return {size: recovered(problem, torch.tensor(units, dtype=torch.int64)) for size in sizes}

    def __repr__(self) -> str:
        return self.label or f"Given(debias={self.debias})"


def recovered(problem: Problem, support: Tensor) -> Recovery:
    """The record of a `support` that no iteration found."""
    loss = problem.loss(support)
    return Recovery(support=support.sort().values, loss=loss, losses=(loss,), energy=problem.energy)
