"""A schedule read step by step: what moves now, what is left, and what a rate says of those to come."""

import pytest

from thresher.methods.scheduled.pace import Pace


def test_a_fixed_curve_moves_by_its_differences_whatever_the_rate() -> None:
    pace = Pace("linear", [0.1] * 4)
    assert pace.whole == 1.0
    assert [pace.step(step, 9.0) for step in (1, 2, 3, 4)] == [(0.25, 0.75), (0.25, 0.5), (0.25, 0.25), (0.25, 0.0)]


def test_a_coupled_schedule_moves_by_the_rates_that_occur() -> None:
    pace = Pace("coupled", [0.4, 0.3, 0.2, 0.1])
    assert pace.whole == pytest.approx(1.0)
    move, left = pace.step(1, 0.4)
    assert (move, left) == pytest.approx((0.4, 0.6))
    move, left = pace.step(2, 0.6)  # twice the forecast: so are those to come, as far as one can tell
    assert (move, left) == pytest.approx((0.6, 0.6))


def test_a_rate_of_zero_says_nothing_of_those_to_come() -> None:
    assert Pace("coupled", [0.5, 0.5]).step(1, 0.0) == pytest.approx((0.0, 0.5))


def test_a_warm_up_below_the_forecast_does_not_shorten_what_is_left() -> None:
    pace = Pace("coupled", [0.4, 0.4, 0.4, 0.4])
    assert pace.step(1, 0.1) == pytest.approx((0.1, 1.2))
    assert pace.step(2, 0.2) == pytest.approx((0.2, 0.8))
    assert pace.step(3, 0.1) == pytest.approx((0.1, 0.1))  # past its peak: now it counts


def test_without_any_forecast_a_constant_rate_is_assumed() -> None:
    pace = Pace("coupled", [0.0, 0.0, 0.0, 0.0])
    assert pace.whole > 0
    assert pace.step(1, 0.2) == pytest.approx((0.2, 0.6))


@pytest.mark.parametrize("schedule", ["coupled", "slats"])
@pytest.mark.parametrize("step", [0, 5, 6])
def test_outside_the_run_nothing_moves(schedule: str, step: int) -> None:
    assert Pace(schedule, [0.1] * 4).step(step, 0.1) == (0.0, 0.0)


def test_a_resumed_pace_keeps_the_forecast_of_the_start() -> None:
    first, second = Pace("coupled:beta=0.1", [0.4, 0.2, 0.1]), Pace("coupled:beta=0.1", [0.1] * 3)
    second.load_state_dict(first.state_dict())
    assert [second.step(step, 0.1) for step in (1, 2, 3)] == [first.step(step, 0.1) for step in (1, 2, 3)]
