"""Selection methods: which units of a group stay, for each size asked; a registry of its own, nothing here trains."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal, Protocol

import torch
from torch import Tensor, nn

from thresher.errors import InputError
from thresher.recovery import (
    Problem,
    Recovery,
    Sampled,
    gfs_sizes,
    greedy_order,
    ispasp,
    ispasp_sampled,
    omp_order,
)
from thresher.recovery.balance import balanced, reading_sizes
from thresher.recovery.samples import SCORES, Score
from thresher.shrinking.selections.given import recovered
from thresher.shrinking.selections.scored import Scored
from thresher.shrinking.selections.taylor import Taylor
from thresher.structure import CoupledGroup


@dataclass(frozen=True, eq=False)
class View:
    """What a selection sees of the network: the group, and the modules by name as they are now.

    hidden: per reader some columns of H, when the selection's `columns` asks for them.
    """

    model: nn.Module
    group: CoupledGroup
    hidden: tuple[Tensor, ...] | None = None


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
        score: of what units would do to the residual, and of their hidden values: "l2" (exact from second moments),
            "l1", or "sum" (signed, as in the published code; it cancels where values have both signs).
        samples: for "l1" and "sum", columns of hidden values (positions, tokens) to keep of each layer; losses are
            over all of them anyway.
        debias: refit the reading weights by least squares to what the whole layer gave.
        balance: measure hidden values as they are read, ‖W1[:, i]‖ ‖H_i‖, so that the choice does not depend on how the
            network shares a unit's size between its two layers.

    Source: Wolfe and Kyrillidis, arXiv 2112.04905. `debias` and `balance` are additions.
    """

    name: ClassVar[str] = "ispasp"
    iterations: int = 20
    score: Score = "l2"
    samples: int = 2048
    debias: bool = True
    balance: bool = False

    def __post_init__(self) -> None:
        for name in ("iterations", "samples"):
            value = getattr(self, name)
            if type(value) is not int or value < 1:
                raise InputError(f"{name}={value!r}", "a whole number, at least 1", f"correct {name}")
        if self.score not in SCORES:
            raise InputError(f"score={self.score!r}", "'l2', 'l1' or 'sum'", "correct the score")

    def __repr__(self) -> str:
        # What is named only where it is not the usual one: score, balance.
        scored = "" if self.score == "l2" else f", score={self.score!r}, samples={self.samples}"
        even = ", balance=True" if self.balance else ""
        return f"ISpaSP(iterations={self.iterations}{scored}, debias={self.debias}{even})"

    @property
    def columns(self) -> int:
        """Hidden values that have to be kept as they are: none for l2."""
        return 0 if self.score == "l2" else self.samples

    def recover(self, problem: Problem, sizes: Sequence[int], view: View) -> dict[int, Recovery]:
        """One run of the iteration for each size."""
        scale = reading_sizes(problem) if self.balance else torch.ones(problem.units)
        problem = balanced(problem) if self.balance else problem
        if self.score == "l2":
            return {size: ispasp(problem, size, iterations=self.iterations) for size in sizes}
        if view.hidden is None:
            raise InputError(f"score={self.score!r} without hidden values", "samples of H", "use thresher.shrink")
        pairs = zip(view.hidden, problem.parts, strict=True)
        parts = []
        for hidden, part in pairs:
            rows = scale.to(hidden).repeat_interleave(part.block)[:, None]
            parts.append(Sampled(hidden=hidden * rows, weight=part.weight, block=part.block))
        return {
            size: ispasp_sampled(
                parts,
                size,
                iterations=self.iterations,
                score=self.score,
                hidden_score=self.score,
                loss_of=problem.loss,
            )
            for size in sizes
        }


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
            return gfs_sizes(problem, sizes)
        most = max(sizes, default=1)
        order = greedy_order(problem, most) if self.kind == "greedy" else omp_order(problem, most)[0]
        return {size: recovered(problem, torch.tensor(order[:size])) for size in sizes}


SELECTIONS: dict[str, Callable[[], Selection]] = {
    "ispasp": ISpaSP,
    "gfs": lambda: Forward(kind="gfs"),
    "greedy": lambda: Forward(kind="greedy"),
    "omp": lambda: Forward(kind="omp", debias=True),
    "l1": lambda: Scored(score="l1"),
    "l2": lambda: Scored(score="l2"),
    "bn-scale": lambda: Scored(score="bn-scale"),
    "random": lambda: Scored(score="random"),
    "taylor": Taylor,
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
