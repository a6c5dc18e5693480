"""From residual curves and limits to the units that each group keeps."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from torch import nn

from thresher.budget.language import Amount, Budget
from thresher.shrinking.allocation.costs import Cost, Costs
from thresher.shrinking.allocation.curves import falling
from thresher.shrinking.allocation.greedy import Option, allocate, uniform
from thresher.shrinking.allocation.latency import verified
from thresher.shrinking.allocation.predicting import Prediction
from thresher.shrinking.choosing import Choice

# The latency limit, in a unit in which whole numbers can be read.
MICROSECONDS = "latency in us"


def sizes_of(
    budget: Budget | None,
    choices: Sequence[Choice],
    costs: Costs,
    predicted: Mapping[str, Prediction] | None,
    *,
    model: nn.Module,
    one: Any,
) -> tuple[dict[str, int], tuple[Amount, float, float] | None]:
    """Units to keep in each group, and for a latency budget the same, its limit and what was predicted, in seconds.

    predicted: None for the same share everywhere. one: the input whose forward pass is timed.

    Errors: BudgetError when a limit cannot be met.
    """
    options = [_option(choice, None if predicted is None else predicted[choice.group.name]) for choice in choices]
    limits = _limits(budget, costs)
    split = allocate if predicted is not None else uniform
    if budget is None or budget.latency is None:
        return split(options, limits, costs.of), None

    def choose(seconds: Callable[[Mapping[str, int]], float], limit: float) -> dict[str, int]:
        def cost_of(kept: Mapping[str, int]) -> Cost:
            return {**costs.of(kept), MICROSECONDS: seconds(kept) * 1e6}

        return split(options, {**limits, MICROSECONDS: limit * 1e6}, cost_of)

    sizes, limit, expected = verified(model, one, [choice.group for choice in choices], budget.latency, choose)
    return sizes, (budget.latency, limit, expected)


def _option(choice: Choice, predicted: Prediction | None) -> Option:
    errors = {size: 0.0 if predicted is None else predicted.error(size) for size in choice.sizes}
    return Option(name=choice.group.name, sizes=choice.sizes, errors=tuple(falling(errors).values()))


def _limits(budget: Budget | None, costs: Costs) -> dict[str, float]:
    whole = costs.of({})
    amounts: dict[str, Amount | None] = (
        {} if budget is None else {"flops": budget.flops, "params": budget.params, "bytes": budget.bytes}
    )
    return {name: amount.limit(whole[name]) for name, amount in amounts.items() if amount is not None}
