"""Selection methods: which units of a group stay, for each size asked; a registry of its own, nothing here trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from thresher.errors import InputError
from thresher.recovery import Problem, Recovery, gfs, greedy_order, ispasp, omp_order, top
from thresher.structure import CoupledGroup


@dataclass(frozen=True, eq=False)
class View:
    """What a selection sees of the network: the group, and the modules by name as they are now."""

    model: nn.Module
    group: CoupledGroup


class Selection(Protocol):
    """A frozen configuration that chooses units."""

    name: ClassVar[str]

    @property
    def debias(self) -> bool:
        """Whether the weights that read the units are refitted afterwards."""

    def recover(self, problem: Problem, sizes: Sequence[int], view: View) -> dict[int, Recovery]:
        """For each size the units to keep. No data is read."""


@dataclass(frozen=True, kw_only=True)
class ISpaSP:
    """S ← the s largest units of (top 2s of ‖W1ᵀV‖) ∪ S, repeated: sparse recovery from second moments.

    Args:
        iterations: at most that many for each layer; ends when a support comes back.
        debias: refit the reading weights by least squares to what the whole layer gave.

    Source: Wolfe and Kyrillidis, arXiv 2112.04905; l2 scores. `debias` is an addition.
    """

    name: ClassVar[str] = "ispasp"
    iterations: int = 20
    debias: bool = True

    def __post_init__(self) -> None:
        if type(self.iterations) is not int or self.iterations < 1:
            raise InputError(f"iterations={self.iterations!r}", "a whole number, at least 1", "correct iterations")

    def recover(self, problem: Problem, sizes: Sequence[int], view: View) -> dict[int, Recovery]:
        """One run of the iteration for each size."""
        return {size: ispasp(problem, size, iterations=self.iterations) for size in sizes}


@dataclass(frozen=True, kw_only=True)
class Forward:
    """Units one at a time: `gfs` (averages, repeats allowed), `greedy` (plain sum) or `omp` (refit after each).

    Source: gfs is greedy forward selection of Ye et al. 2020, arXiv 2003.01794, with the reconstruction loss.
    """

    name: ClassVar[str] = "forward"
    kind: Literal["gfs", "greedy", "omp"] = "gfs"
    debias: bool = False

    def __post_init__(self) -> None:
        if self.kind not in ("gfs", "greedy", "omp"):
            raise InputError(f"kind={self.kind!r}", "'gfs', 'greedy' or 'omp'", "correct the kind")

    def recover(self, problem: Problem, sizes: Sequence[int], view: View) -> dict[int, Recovery]:
        """The first s units of the order, or for gfs the run until s distinct ones are in."""
        if self.kind == "gfs":
            return {size: gfs(problem, size) for size in sizes}
        most = max(sizes, default=1)
        order = greedy_order(problem, most) if self.kind == "greedy" else omp_order(problem, most)[0]
        return {size: _kept(problem, torch.tensor(sorted(order[:size]))) for size in sizes}


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
        return {size: _kept(problem, top(scores, size)) for size in sizes}

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
            weight = getattr(module, "weight", None)
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


def _kept(problem: Problem, support: Tensor) -> Recovery:
    loss = problem.loss(support)
    return Recovery(support=support.sort().values, loss=loss, losses=(loss,), energy=problem.energy)


SELECTIONS: dict[str, Callable[[], Selection]] = {
    "ispasp": ISpaSP,
    "gfs": lambda: Forward(kind="gfs"),
    "greedy": lambda: Forward(kind="greedy"),
    "omp": lambda: Forward(kind="omp", debias=True),
    "l1": lambda: Scored(score="l1"),
    "l2": lambda: Scored(score="l2"),
    "bn-scale": lambda: Scored(score="bn-scale"),
    "random": lambda: Scored(score="random"),
}


def parse_selection(given: Selection | str) -> Selection:
    """A selection from its name, or itself.

    >>> parse_selection("ispasp")
    ISpaSP(iterations=20, debias=True)

    Errors: InputError for anything else.
    """
    if isinstance(given, str):
        if given not in SELECTIONS:
            raise InputError(f"method {given!r}", f"one of {', '.join(SELECTIONS)}", "correct the name")
        return SELECTIONS[given]()
    if not hasattr(given, "recover"):
        raise InputError(
            f"a method of type {type(given).__name__}",
            f"thresher.ISpaSP(...), or one of {', '.join(SELECTIONS)}",
            "methods such as thresher.Lats train: they go to thresher.prune",
        )
    return given
