"""Claims about the receding horizon, on a plant that behaves as its model says and on one that does not."""

from __future__ import annotations

import json
import math

import pytest

from thresher.budget.control import RecedingHorizon, expected_reach, fit_reach, model_gap
from thresher.errors import InputError

STEPS = 2000
PRIOR = 2.3  # that of RecedingHorizon, whose band is 0.1


def cosine(step: int) -> float:
    return 0.5 * (1 + math.cos(math.pi * step / STEPS))


def drive(reach: float, *, band: float = 0.1) -> tuple[list[float], float]:
    """Rates over a run, and the relative gap at its end, when the gap closes as the model says."""
    horizon, start, moved, rates = RecedingHorizon(band=band), 0.2, 0.0, []
    clock = [cosine(step) for step in range(STEPS)]
    rate = horizon.start(start, sum(clock))
    for step, pace in enumerate(clock, start=1):
        left = sum(clock[step - 1 :])
        if step % 50 == 0 and left > 0.03 * sum(clock):
            gap = start * model_gap(moved / start, reach)
            rate = horizon.replan(moved + gap, moved, left, step / STEPS)
        moved += rate * pace
        rates.append(rate)
    return rates, model_gap(moved / start, reach)


@pytest.mark.parametrize("reach", [1.6, 2.1, 3.0])
def test_reach_is_recovered_from_points_on_the_model(reach: float) -> None:
    points = [(share * reach, model_gap(share * reach, reach)) for share in (0.8, 0.9, 0.97)]
    assert fit_reach(points, prior=2.5) == pytest.approx(reach, rel=0.03)


def test_early_points_hardly_move_the_prior() -> None:
    assert fit_reach([(0.1, model_gap(0.1, 1.6))], prior=2.5) == pytest.approx(2.5, rel=0.02)


def test_without_observations_the_prior_stands() -> None:
    assert fit_reach([], prior=2.5) == 2.5


@pytest.mark.parametrize("reach", [2.12, 2.2, 2.3, 2.4, 2.48])
def test_a_plant_near_the_prior_is_driven_to_the_budget_at_a_steady_rate(reach: float) -> None:
    rates, gap = drive(reach)
    steady = sorted(rates[STEPS // 10 :])
    median = steady[len(steady) // 2]
    assert gap < 0.025
    assert steady[0] > 0.8 * median
    assert steady[-1] < 1.2 * median


@pytest.mark.parametrize("reach", [1.5, 1.8, 2.8, 3.2, 4.5])
def test_a_plant_far_from_the_prior_ends_nearer_than_at_the_first_plan(reach: float) -> None:
    rates, _ = drive(reach)
    moved = sum(rate * cosine(step) for step, rate in enumerate(rates)) / 0.2
    assert abs(moved - reach) < abs(PRIOR - reach)


def test_the_rate_never_leaves_the_band_after_half_time() -> None:
    rates, _ = drive(4.0, band=0.1)
    later = rates[STEPS // 2 + 50 :]
    assert max(later) / min(later) <= 1.1 / 0.9 + 1e-9


def test_sparser_targets_are_expected_to_resist_more() -> None:
    assert expected_reach(0.1) < expected_reach(0.05) < expected_reach(0.02)
    assert expected_reach(1.0) > 1.0


def test_a_plant_that_overshoots_is_slowed_but_never_reversed() -> None:
    rates, _ = drive(0.7)
    assert min(rates) >= 0.0
    assert rates[-1] < rates[0]


def test_state_survives_json_and_continues_alike() -> None:
    first = RecedingHorizon()
    first.start(0.2, 100.0)
    first.replan(0.21, 0.02, 90.0, 0.05)
    second = RecedingHorizon()
    second.load_state_dict(json.loads(json.dumps(first.state_dict())))
    assert second.replan(0.22, 0.05, 80.0, 0.2) == first.replan(0.22, 0.05, 80.0, 0.2)


@pytest.mark.parametrize("wrong", [{"prior": 0.0}, {"gain": 1.5}, {"band": -0.1}])
def test_nonsense_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(InputError):
        RecedingHorizon(**wrong)
