"""Sizes within a latency limit: from the table of layers, corrected by the time of whole networks."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import nn

from thresher.budget.counts import call, eval_mode
from thresher.budget.language import Amount
from thresher.deploy import latency as clock
from thresher.errors import BudgetError
from thresher.recovery.ranks import of_first
from thresher.shrinking.allocation.timing import MIN_TIME, LatencyTable
from thresher.structure import CoupledGroup, ShrinkPlan

ROUNDS, TRIES = 5, 5


@dataclass(frozen=True, kw_only=True)
class LatencyReport:
    """asked: the limit in words. limit, dense, got: seconds of one forward pass on the example: the limit, the whole
    network, the smaller one. speedup, low, high: median, least and largest of time(dense) / time(small) over `rounds`
    rounds in turning order. predicted: what the table had said. on: device and threads."""

    asked: str
    limit: float
    dense: float
    got: float
    speedup: float
    low: float
    high: float
    rounds: int
    predicted: float
    on: str

    def __str__(self) -> str:
        return (
            f"latency {self.got * 1e3:.3g} ms of {self.dense * 1e3:.3g} ms (asked {self.asked}, predicted "
            f"{self.predicted * 1e3:.3g} ms): {self.speedup:.2f} times as fast, {self.low:.2f} to {self.high:.2f} over "
            f"{self.rounds} rounds on {self.on}"
        )


def compared(dense: nn.Module, small: nn.Module, example: Any) -> clock.Ratio:
    """time(dense) / time(small) on `example`, in one run."""
    with eval_mode(dense), eval_mode(small), torch.inference_mode():
        return clock.measure_ratio(
            lambda: call(dense, example), lambda: call(small, example), rounds=ROUNDS, min_time=MIN_TIME
        )


def verified(
    model: nn.Module,
    example: Any,
    groups: Sequence[CoupledGroup],
    amount: Amount,
    choose: Callable[[Callable[[Mapping[str, int]], float], float], dict[str, int]],
) -> tuple[dict[str, int], float, float]:
    """Sizes whose network was measured within `amount`, the limit in seconds, and what the table had said.

    choose: from a function (kept) -> seconds and a limit to sizes. The network of those sizes is cut (any units: only
    shapes count) and timed beside the whole one; the table is rescaled by what it brought, and again, up to five times.

    Errors: BudgetError with the least that was measured.
    """
    table = LatencyTable(model, example, groups)
    dense = compared(model, model, example).a.seconds
    limit = dense * amount.share if amount.share is not None else float(amount.absolute or 0.0)
    best: float | None = None
    for _ in range(TRIES):
        sizes = choose(partial(table.seconds, dense), limit)
        predicted = table.seconds(dense, sizes)
        plans = tuple(group.plan(range(sizes[group.name])) for group in groups)
        sizes = dict(zip(sizes, of_first(list(sizes.values()), _place(model)), strict=True))
        ratio = compared(model, ShrinkPlan(model=type(model).__name__, groups=plans).apply(model), example)
        dense = ratio.a.seconds
        if amount.share is not None:
            limit = dense * amount.share
        got = dense / ratio.ratio
        if of_first([got <= limit], _place(model))[0]:
            return sizes, limit, predicted
        best = got if best is None else min(best, got)
        if table.saved(sizes) > 0:
            table.scale = min(max((dense - got) / table.saved(sizes), 0.05), table.scale * 0.95)
    raise BudgetError(
        f"latency={amount if amount.share is not None else f'{limit * 1e3:.3g}ms'}",
        f"at least {(best or dense) * 1e3:.3g} ms of {dense * 1e3:.3g} ms, the least that was measured",
        "loosen the budget or the rules, let more layers be cut (scope='across'), or measure on an idle machine",
    )


def report_of(
    amount: Amount, limit: float, predicted: float, dense: nn.Module, small: nn.Module, example: Any
) -> LatencyReport:
    """Both networks once more, the smaller one with its final weights."""
    ratio = compared(dense, small, example)
    asked = str(amount) if amount.share is not None else f"{(amount.absolute or 0.0) * 1e3:.15g}ms"
    return LatencyReport(
        asked=asked,
        limit=limit,
        dense=ratio.a.seconds,
        got=ratio.b.seconds,
        speedup=ratio.ratio,
        low=ratio.low,
        high=ratio.high,
        rounds=ratio.a.rounds,
        predicted=predicted,
        on=f"{_place(dense).type}, {torch.get_num_threads()} threads",
    )


def _place(model: nn.Module) -> torch.device:
    return next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
