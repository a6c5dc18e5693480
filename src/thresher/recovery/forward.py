"""Greedy baselines that build the support one unit at a time: GFS, plain greedy, orthogonal matching pursuit."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from thresher.recovery.ispasp import Recovery
from thresher.recovery.problem import Part, Problem, check_size

# How far a pivot may fall below its first value before it counts as spanned by the units chosen already.
SPANNED = 1e-10


def _lowest(losses: Tensor) -> int:
    # argmin does not promise the first of equal entries.
    return int((losses == losses.min()).nonzero()[0])


def gfs(problem: Problem, size: int, *, steps: int | None = None) -> Recovery:
    """f ← ((n−1)f + φ_i)/n with the i that leaves ½‖U − f‖² least, φ_i = N W1[:,i]H[i], repeats allowed.

    Ends once `size` distinct units are in (or after `steps` picks, for the trace); after 10 N picks the rest is chosen
    without repeats. `losses` has the loss after every pick; `scale` is N c_i / n, to be folded into the outgoing
    weights. Source: Ye et al. 2020, arXiv 2003.01794, with the reconstruction loss.
    """
    size = check_size(size, problem.units)
    for found in _picking(problem):
        done = len(found.support) >= size if steps is None else len(found.losses) >= steps
        if done:
            return found.recovery(problem)
    raise AssertionError("picking goes on until every unit is in")


def gfs_sizes(problem: Problem, sizes: Iterable[int]) -> dict[int, Recovery]:
    """`gfs` for several sizes, in one run."""
    wanted = sorted({check_size(size, problem.units): size for size in sizes}.items())
    found: dict[int, Recovery] = {}
    if not wanted:
        return found
    for state in _picking(problem):
        while wanted and len(state.support) >= wanted[0][0]:
            found[wanted.pop(0)[1]] = state.recovery(problem)
        if not wanted:
            break
    return found


@dataclass
class _Picked:
    """A run of greedy forward selection so far."""

    counts: Tensor
    losses: list[float]
    support: set[int]

    def recovery(self, problem: Problem) -> Recovery:
        support = (self.counts > 0).nonzero().flatten()
        scale = self.counts[support] * problem.units / len(self.losses)
        losses = tuple(self.losses)
        return Recovery(support=support, loss=losses[-1], losses=losses, energy=problem.energy, scale=scale)


def _picking(problem: Problem) -> Iterator[_Picked]:
    """The state after every pick, without end (the caller stops)."""
    quadratic, units = problem.quadratic, problem.units
    diagonal, whole = quadratic.diagonal(), quadratic.sum(1)
    total = float(whole.sum())
    counts = torch.zeros(units, dtype=torch.float64, device=quadratic.device)
    taken, square = torch.zeros_like(counts), 0.0  # Q c and cᵀ Q c, kept up to date: a pick costs one column
    state = _Picked(counts, [], set())
    while True:
        step = units / (len(state.losses) + 1)
        # With left = 1 − step c: leftᵀ Q left, and Q left.
        rest = total - 2 * step * float((whole * counts).sum()) + step * step * square
        pull = whole - step * taken
        trial = (rest - 2 * step * pull + step * step * diagonal) / 2
        if len(state.losses) >= 10 * units:
            trial = trial.masked_fill(counts > 0, torch.inf)
        pick = _lowest(trial)
        square += 2 * float(taken[pick]) + float(diagonal[pick])
        counts[pick] += 1
        taken += quadratic[pick]
        state.support.add(pick)
        state.losses.append(max(float(trial[pick]), 0.0))
        yield state


def greedy(problem: Problem, size: int) -> Recovery:
    """Add the unit that leaves ½‖V‖² least, without repeats and without new weights. O(units) per addition."""
    return in_order(problem, greedy_order(problem, size))


def greedy_order(problem: Problem, size: int) -> list[int]:
    """The units in the order in which plain greedy takes them."""
    quadratic = problem.quadratic
    chosen = torch.zeros(problem.units, dtype=torch.bool, device=quadratic.device)
    pull = quadratic.sum(1)
    order: list[int] = []
    for _ in range(check_size(size, problem.units)):
        trial = quadratic.diagonal() - 2 * pull
        pick = _lowest(trial.masked_fill(chosen, torch.inf))
        chosen[pick] = True
        pull -= quadratic[pick]
        order.append(pick)
    return order


def omp(problem: Problem, size: int) -> Recovery:
    """Add the unit with the largest ‖V H_iᵀ‖ / ‖H_i‖, refit all outgoing weights by least squares, again.

    `losses` and `loss` are those of the refitted weights (see `thresher.recovery.refit`).
    """
    order, drops = omp_order(problem, size)
    losses, left = [], problem.energy
    for drop in drops:
        left = max(left - drop, 0.0)
        losses.append(left)
    support = torch.tensor(sorted(order), device=problem.quadratic.device)
    return Recovery(support=support, loss=losses[-1], losses=tuple(losses), energy=problem.energy)


def omp_order(problem: Problem, size: int) -> tuple[list[int], list[float]]:
    """Units in order, and by how much each lowered ½‖V‖² under refit. By Schur complements of C: no solve grows."""
    chosen = torch.zeros(problem.units, dtype=torch.bool, device=problem.quadratic.device)
    # Per reader: C with the chosen units projected out, and what the residual shows of every unit, V Hᵀ.
    states = [(part.moments.clone(), part.factor @ part.moments) for part in problem.parts]
    floors = [SPANNED * part.moments.diagonal().max() for part in problem.parts]
    norms = [_inverse(_own(part, part.moments), floor) for part, floor in zip(problem.parts, floors, strict=True)]
    order, drops = [], []
    for _ in range(check_size(size, problem.units)):
        worth = torch.zeros(problem.units, dtype=torch.float64, device=chosen.device)
        for part, (_, seen), norm in zip(problem.parts, states, norms, strict=True):
            reach = seen.reshape(-1, part.units, part.block).permute(1, 0, 2)  # (units, out, block)
            worth += ((reach @ norm) * reach).sum((1, 2))
        pick = _lowest((-worth).masked_fill(chosen, torch.inf))
        chosen[pick] = True
        order.append(pick)
        drops.append(0.0)
        for part, (schur, seen), floor in zip(problem.parts, states, floors, strict=True):
            rows = part.rows(torch.tensor([pick], device=chosen.device))
            inverse = _inverse(schur[rows][:, rows][None], floor)[0]
            drops[-1] += float(((seen[:, rows] @ inverse) * seen[:, rows]).sum()) / 2
            across = inverse @ schur[rows]
            seen -= seen[:, rows] @ across
            schur -= schur[:, rows] @ across
    return order, drops


def _own(part: Part, moments: Tensor) -> Tensor:
    """The diagonal blocks of C, (units, block, block)."""
    grid = moments.reshape(part.units, part.block, part.units, part.block)
    return grid.diagonal(dim1=0, dim2=2).permute(2, 0, 1)


def _inverse(blocks: Tensor, floor: Tensor) -> Tensor:
    # Directions that the chosen units span already carry rounding noise only: they get no weight.
    values, vectors = torch.linalg.eigh((blocks + blocks.mT) / 2)
    inverse = torch.where(values > floor, 1 / values.clamp_min(torch.finfo(values.dtype).tiny), 0.0)
    return (vectors * inverse[:, None, :]) @ vectors.mT  # type: ignore[no-any-return]


def in_order(problem: Problem, order: list[int]) -> Recovery:
    """The recovery that keeps the units of `order`, with the loss after each."""
    losses = tuple(problem.loss(order[: number + 1]) for number in range(len(order)))
    support = torch.tensor(sorted(order), device=problem.quadratic.device)
    return Recovery(support=support, loss=losses[-1], losses=losses, energy=problem.energy)
