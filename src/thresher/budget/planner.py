"""One budget, one set of tensors: which entries stay, at every moment of a run and at its end."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from thresher.budget.counts import kept_count
from thresher.budget.guards import Guard, bounds_of, units_of
from thresher.budget.language import Budget
from thresher.budget.latency import LatencyTable, milliseconds
from thresher.budget.ranking import Solution, Units, fewest, first_reaching, solve, unit_scores, unreachable
from thresher.budget.selecting import neighbours
from thresher.errors import BudgetError, StateError
from thresher.operators import Groups
from thresher.targets import Target

FileSize = Callable[[Sequence[Tensor]], int]


class Planner:
    """Turns scores into masks that meet `budget`.

    Args:
        budget: what is asked.
        targets: the prunable tensors.
        groups: what is pruned as one.
        other_params: parameters of the model outside the targets; they count whole against `params=`.
        file_size: size in bytes of the saved file for given keep masks; needed for `bytes=`.
        latency: the network's seconds by what its targets keep; needed for `latency=`.

    Guards that hold below 100 % sparsity: no tensor empties, and each depthwise filter keeps an entry.
    """

    def __init__(
        self,
        budget: Budget,
        targets: Sequence[Target],
        groups: Groups,
        *,
        other_params: int = 0,
        file_size: FileSize | None = None,
        latency: LatencyTable | None = None,
    ) -> None:
        self.budget, self.targets, self.groups = budget, tuple(targets), groups
        self.entries = sum(target.numel for target in targets)
        self._other_params = other_params
        self._file_size, self.latency = file_size, latency
        self._costs: tuple[float, ...] | None = None
        self._fixed_macs = 0.0
        self._units = units_of(self.targets, groups)
        alive = budget.sparsity != 1.0
        self._guards = tuple(
            Guard(target, groups, index, sizes, alive)
            for target, index, sizes in zip(self.targets, self._units.index, self._units.sizes, strict=True)
        )
        self._bounds = tuple(bounds_of(target) for target in self.targets)
        self._least = tuple(guard.fewest() for guard in self._guards)
        self._check()

    @property
    def needs_positions(self) -> bool:
        """Whether a `flops=` limit still waits for the layers' output positions."""
        return self.budget.flops is not None and self._costs is None

    def set_positions(self, positions: Mapping[str, float], fixed_macs: float) -> None:
        """Give P_l of each target (0 when the layer never ran) and the multiply-adds outside the targets.

        Errors: BudgetError when `flops=` turns out not to be reachable.
        """
        self._costs = tuple(positions.get(target.name, 0.0) for target in self.targets)
        self._fixed_macs = fixed_macs
        if self.budget.flops is None:
            return
        whole = self._whole_macs()
        least = fixed_macs + sum(cost * low for cost, low in zip(self._costs, self._least, strict=True))
        if self.budget.flops.limit(whole) < least - 1e-6:
            raise unreachable(f"flops={self.budget.flops}", f"{least / whole:.2%} ({least:,.0f} multiply-adds)", "100%")

    def solve(self, scores: Sequence[Tensor], fraction: float = 1.0) -> Solution:
        """Masks for `fraction` of the way to the budget, ranking entries by `scores` (larger stays longer).

        Errors: StateError when `flops=` has no positions yet; NumericsError on NaN.
        """
        device = scores[0].device
        units = self._on(device)
        per_unit = unit_scores(scores, units)
        forced = [guard.forced(score, unit) for guard, score, unit in zip(self._guards, scores, per_unit, strict=True)]
        shapes = [target.shape for target in self.targets]

        def fits(target_of: Tensor, unit_of: Tensor, free: int) -> int:
            return self._must_leave(target_of, unit_of, free, units, shapes)

        return solve(per_unit, shapes, units, forced, self._bounds, fits, fraction)

    def threshold(self, scores: Sequence[Tensor], fraction: float = 1.0) -> float:
        """`solve(scores, fraction).threshold`, the same number, without sorting where a count alone decides."""
        loose = all(bounds == (0, target.numel) for bounds, target in zip(self._bounds, self.targets, strict=True))
        entries = all(index is None for index in self._units.index)
        limits = (self.budget.flops, self.budget.bytes, self.budget.latency)
        if not (loose and entries) or any(limit is not None for limit in limits):
            return self.solve(scores, fraction).threshold
        flats = unit_scores(scores, self._on(scores[0].device))
        whole = self._count_to_leave()
        leave = int(whole * fraction + 1e-9)
        tops = torch.stack([guard.lowest_top(flat) for guard, flat in zip(self._guards, flats, strict=True)])
        flat, held = torch.cat(flats), sum(guard.most_forced for guard in self._guards)
        if not 0 < leave < len(flat) - held or whole > len(flat) - held:
            return self.solve(scores, fraction).threshold
        last_out, first_in = neighbours(flat, leave)
        # What the guards keep would have stayed anyway if it all lies above; never so with NaN.
        if not float(tops.amin()) > first_in:
            return self.solve(scores, fraction).threshold
        return (last_out + first_in) / 2

    def _count_to_leave(self) -> int:
        """How many entries `sparsity=` and `params=` send away."""
        leave = 0
        if self.budget.sparsity is not None:
            leave = self.entries - kept_count(self.budget.sparsity, self.entries)
        if self.budget.params is not None:
            whole = self.entries + self._other_params
            leave = max(leave, math.ceil(whole - self.budget.params.limit(whole) - 1e-6))
        return leave

    def _on(self, device: torch.device) -> Units:
        if self._units.sizes[0].device != device:
            moved = tuple(None if ids is None else ids.to(device) for ids in self._units.index)
            self._units = Units(moved, tuple(size.to(device) for size in self._units.sizes))
        return self._units

    def _must_leave(
        self, target_of: Tensor, unit_of: Tensor, free: int, units: Units, shapes: Sequence[tuple[int, ...]]
    ) -> int:
        offsets = torch.tensor([0, *(len(size) for size in units.sizes)], device=unit_of.device).cumsum(0)
        flat = unit_of + offsets[target_of]
        sizes = torch.cat(units.sizes)[flat].to(torch.float64)
        gone = sizes.cumsum(0)
        leave = first_reaching(gone, self._count_to_leave())
        if self.budget.flops is not None:
            if self._costs is None:
                raise StateError(
                    "a flops= budget before any forward pass",
                    "known output positions of every layer",
                    "pass example=one_batch to thresher.prune, or train one step first",
                )
            costs = torch.tensor(self._costs, dtype=torch.float64, device=unit_of.device)[target_of]
            leave = max(
                leave,
                first_reaching(
                    (costs * sizes).cumsum(0), self._whole_macs() - self.budget.flops.limit(self._whole_macs())
                ),
            )
        if self.budget.latency is not None:
            leave = self._leave_for_latency(min(leave, free), target_of, sizes, free)
        if self.budget.bytes is not None:
            leave = self._leave_for_bytes(min(leave, free), flat, free, units, shapes)
        if leave > free:
            least = 1 - float(gone[free - 1]) / self.entries if free else 1.0
            raise unreachable(str(self.budget), f"{least:.4%} of the prunable weights kept", "100%")
        return leave

    def _leave_for_bytes(
        self, leave: int, flat: Tensor, free: int, units: Units, shapes: Sequence[tuple[int, ...]]
    ) -> int:
        assert self._file_size is not None
        lengths = [len(size) for size in units.sizes]

        def size_after(count: int) -> int:
            stays = torch.ones(len(flat), dtype=torch.bool, device=flat.device)
            stays[flat[:count]] = False
            masks = [
                (part if index is None else part[index]).reshape(shape)
                for part, index, shape in zip(stays.split(lengths), units.index, shapes, strict=True)
            ]
            return self._file_size(masks)  # type: ignore[misc]

        assert self.budget.bytes is not None
        limit = self.budget.bytes.limit(size_after(0))
        found = fewest(leave, free, lambda count: size_after(count) <= limit)
        if found is None:
            raise unreachable(f"bytes={self.budget.bytes}", f"{size_after(free):,} bytes", f"{size_after(0):,} bytes")
        return found

    def _leave_for_latency(self, leave: int, target_of: Tensor, sizes: Tensor, free: int) -> int:
        assert self.budget.latency is not None
        table = self.table

        def seconds_after(count: int) -> float:
            gone = torch.bincount(target_of[:count], weights=sizes[:count], minlength=len(self.targets)).tolist()
            return table.seconds([target.numel - out for target, out in zip(self.targets, gone, strict=True)])

        limit = table.limit(self.budget.latency)
        found = fewest(leave, free, lambda count: seconds_after(count) <= limit)
        if found is None:
            raise unreachable(f"latency={milliseconds(limit)}", milliseconds(seconds_after(free)), "more")
        return found

    @property
    def table(self) -> LatencyTable:
        """The table of times of a `latency=` budget. Errors: BudgetError without one."""
        if self.latency is None:
            raise BudgetError(
                f"{Budget(latency=self.budget.latency)} without an engine"
                if self.budget.latency is not None
                else "a budget without latency=",
                "the engine whose time counts, and one batch of inputs",
                'pass engine="thresher" and example=inputs to thresher.prune, or use thresher.shrink',
            )
        return self.latency

    def _whole_macs(self) -> float:
        assert self._costs is not None
        return self._fixed_macs + sum(
            cost * target.numel for cost, target in zip(self._costs, self.targets, strict=True)
        )

    def _check(self) -> None:
        if self.budget.latency is not None:
            table = self.table
            limit, fastest = table.limit(self.budget.latency), table.seconds(self._least)
            if limit < fastest:
                raise unreachable(f"latency={milliseconds(limit)}", milliseconds(fastest), "more")
        least, most = sum(self._least), sum(high for _, high in self._bounds)
        if self.budget.sparsity is not None:
            kept = kept_count(self.budget.sparsity, self.entries)
            if kept < least or kept > most:
                low, high = 1 - most / self.entries, 1 - least / self.entries
                raise unreachable(f"sparsity={self.budget.sparsity:.4%}", f"{low:.4%}", f"{high:.4%}")
        if self.budget.params is not None:
            whole = self.entries + self._other_params
            if self.budget.params.limit(whole) < least + self._other_params:
                floor = least + self._other_params
                raise unreachable(f"params={self.budget.params}", f"{floor:,} ({floor / whole:.2%})", f"{whole:,}")
        if self.budget.bytes is not None and self._file_size is None:
            raise BudgetError(f"bytes={self.budget.bytes}", "a way to measure the file", "use thresher.prune")
