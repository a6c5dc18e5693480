"""What given keep masks use of each limit of a budget, and what one entry of each tensor costs under it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from thresher.budget.counts import kept_count
from thresher.budget.planner import Planner
from thresher.errors import StateError


def entry_costs(planner: Planner, limit: str) -> list[float]:
    """What one kept entry of each target costs under `limit` ("sparsity", "params", "flops", "bytes" or "latency").

    Multiply-adds for flops, bytes of the value alone for bytes, nanoseconds on average for latency, 1 for the others.
    Errors: StateError for flops without known output positions.
    """
    if limit == "bytes":
        return [float(next(target.module.parameters()).element_size()) for target in planner.targets]
    if limit == "latency":
        return [1e9 * slope for slope in planner.table.slopes()]
    if limit != "flops":
        return [1.0] * len(planner.targets)
    if planner._costs is None:
        raise StateError(
            "a pull weighted by multiply-adds before any forward pass",
            "known output positions of every layer",
            "pass example=one_batch to thresher.prune, or train one step first",
        )
    return list(planner._costs)


def excess(planner: Planner, masks: Sequence[Tensor], fraction: float = 1.0) -> dict[str, float]:
    """Per limit of the budget, (used - allowed)/dense for these keep masks; positive where the limit is broken.

    Args:
        fraction: share of the way from the dense model to each limit (a schedule on its way to the budget).
    """
    budget, kept = planner.budget, [int(mask.count_nonzero()) for mask in masks]
    spent: dict[str, tuple[float, float, float]] = {}  # used, allowed in the end, dense
    if budget.sparsity is not None:
        spent["sparsity"] = (sum(kept), kept_count(budget.sparsity, planner.entries), planner.entries)
    if budget.params is not None:
        whole = planner.entries + planner._other_params
        spent["params"] = (sum(kept) + planner._other_params, budget.params.limit(whole), whole)
    if budget.flops is not None:
        costs = entry_costs(planner, "flops")
        macs = planner._whole_macs()
        left = planner._fixed_macs + sum(number * cost for number, cost in zip(kept, costs, strict=True))
        spent["flops"] = (left, budget.flops.limit(macs), macs)
    if budget.latency is not None:
        table = planner.table
        seconds = table.seconds([target.numel for target in planner.targets])
        # In nanoseconds, as what is dense counts at least 1 below.
        spent["latency"] = (1e9 * table.seconds(kept), 1e9 * table.limit(budget.latency), 1e9 * seconds)
    if budget.bytes is not None:
        assert planner._file_size is not None
        dense = planner._file_size([mask.new_ones(mask.shape) for mask in masks])
        spent["bytes"] = (planner._file_size(masks), budget.bytes.limit(dense), dense)
    return {
        name: (used - dense + fraction * (dense - allowed)) / max(dense, 1)
        for name, (used, allowed, dense) in spent.items()
    }
