"""The implied L1 coefficient of runs whose coefficient is known."""

import math

import pytest
import torch
from torch import nn

import thresher
from thresher.diagnostics import Spread, implied_l1, l1_spread
from thresher.errors import InputError
from thresher.methods import Lats


def traced(method: object, lr: list[float], budget: str | None = None, **more: object) -> thresher.Trace:
    torch.manual_seed(0)
    model = nn.Linear(8, 4)
    optimizer = torch.optim.SGD(model.parameters(), lr=lr[0], momentum=0.5)
    pruner = thresher.prune(model, optimizer, method, budget, steps=len(lr), lr_schedule=lr, **more)  # type: ignore[arg-type]
    for rate in lr:
        optimizer.param_groups[0]["lr"] = rate
        optimizer.zero_grad()
        model(torch.ones(3, 8)).square().mean().backward()
        optimizer.step()
    return pruner.trace


COSINE = [0.1 * (1 + math.cos(math.pi * step / 40)) / 2 for step in range(40)]


def test_a_coupled_run_has_the_l1_it_was_given() -> None:
    trace = traced(Lats(l1=0.003, settle=1.0), COSINE)
    assert implied_l1(trace.clock, trace.thresholds) == pytest.approx([0.003] * 40, rel=1e-9)
    assert l1_spread(trace.clock, trace.thresholds) == pytest.approx((0.003, 1.0, 1.0), rel=1e-9)


def test_a_linear_threshold_under_a_cosine_rate_explodes_at_the_end() -> None:
    trace = traced(Lats(schedule="linear", threshold=0.1, settle=1.0), COSINE)
    values = implied_l1(trace.clock, trace.thresholds)
    assert values == sorted(values)
    assert values[-1] == pytest.approx(0.1 / 40 / (2 * COSINE[-1]))
    assert l1_spread(trace.clock, trace.thresholds).high > 100


def test_momentum_counts() -> None:
    trace = traced(Lats(schedule="linear", threshold=0.1, settle=1.0), [0.05] * 10)
    assert implied_l1(trace.clock, trace.thresholds) == pytest.approx([0.5 * 0.01 / 0.05] * 10)


def test_any_method_has_an_l1() -> None:
    trace = traced("gmp", [0.05] * 20, "sparsity=75%")
    values = implied_l1(trace.clock, trace.thresholds)
    assert len(values) == 20
    assert max(values) > 0
    assert values[10:] == [0.0] * 10  # settled at half-time


def test_rows_are_averaged_like_the_clock() -> None:
    assert implied_l1([0.0, 2.0], [[0.0, 0.0], [1.0, 3.0]]) == [1.0]


def test_an_interval_without_learning_rate_is_nan_or_infinite() -> None:
    still, moved = implied_l1([0.0, 0.0, 0.0], [0.0, 0.0, 1.0])
    assert math.isnan(still)
    assert moved == math.inf


def test_the_spread_leaves_out_a_late_start_the_first_tenth_and_the_frozen_end() -> None:
    clock = [float(step) for step in range(31)]
    levels = [0.0] * 11
    for step in range(10):
        levels.append(levels[-1] + (9.0 if step == 0 else 1.0))
    levels += [levels[-1]] * 10
    assert l1_spread(clock, levels) == Spread(1.0, 1.0, 1.0)
    assert l1_spread(clock, levels, skip=0.0) == Spread(1.0, 1.0, 9.0)


def test_a_halt_in_between_counts_and_steps_without_rate_do_not() -> None:
    assert l1_spread([0, 1, 2, 3, 4], [0, 1, 1, 2, 3], skip=0) == Spread(1.0, 0.0, 1.0)
    assert l1_spread([0, 1, 1, 2, 3], [0, 1, 1, 2, 3], skip=0) == Spread(1.0, 1.0, 1.0)


@pytest.mark.parametrize(("clock", "levels"), [([0.0], [0.0]), ([0, 1, 2], [0.5, 0.5, 0.5]), ([0, 0], [0, 1])])
def test_a_threshold_that_never_travels_has_no_spread(clock: list[float], levels: list[float]) -> None:
    assert l1_spread(clock, levels) == Spread(0.0, 1.0, 1.0)


@pytest.mark.parametrize(("clock", "levels"), [([], []), ([0.0, 1.0], [0.0]), ([0.0, 1.0, 0.5], [0, 1, 2])])
def test_data_that_do_not_fit_together_are_refused(clock: list[float], levels: list[float]) -> None:
    with pytest.raises(InputError):
        implied_l1(clock, levels)


def test_the_skipped_share_is_a_share() -> None:
    with pytest.raises(InputError, match="skip"):
        l1_spread([0, 1], [0, 1], skip=1.5)
