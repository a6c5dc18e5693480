"""Claims about the closed forms: published numbers, slow integrals, ends, monotony."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thresher.errors import InputError
from thresher.schedules import REGISTRY, Constant, Coupled, Cubic, LatsCurve, Linear, Pgh, SLats
from thresher.schedules.integrals import cosine_integral, decay_integral

ROWS = [0, 1, 10, 25, 50, 75, 99, 100]
COLUMNS = {
    SLats(): [0, 0.0199983551, 0.1983631643, 0.4750790790, 0.8183098862, 0.9750790790, 0.9999983551, 1],
    LatsCurve(epochs=100): [0, 0.0198019802, 0.1966334570, 0.4718069632, 0.8151323820, 0.9738575254, 0.9999951145, 1],
    Pgh(beta=0.01): [0, 0.0536001247, 0.4363436614, 0.7846956749, 0.9700635426, 0.9983457211, 0.9999999533, 1],
    Pgh(beta=0.1): [0, 0.0354418065, 0.3177868661, 0.6522496664, 0.9218345471, 0.9930886306, 0.9999997000, 1],
    Pgh(beta=10.0): [0, 0.0090347358, 0.0995690632, 0.2846817138, 0.6440377812, 0.9271495778, 0.9999927799, 1],
}
EVERY = [
    *COLUMNS,
    *(kind() for kind in REGISTRY.values()),
    Coupled(beta=0.05),
    Coupled(floor=0.1),
    Coupled(beta=20.0, floor=1.0),
    Constant(start=0.3),
    Linear(start=0.2, end=0.6),
    Cubic(start=0.2, end=0.8),
    LatsCurve(epochs=1),
    LatsCurve(epochs=7),
    Pgh(beta=1e-9),
    Pgh(beta=1e9),
]
quick = settings(max_examples=30, deadline=None, derandomize=True)


@pytest.mark.parametrize(("schedule", "column"), COLUMNS.items(), ids=repr)
def test_published_table(schedule, column):
    table = schedule.table(100)
    for n, expected in zip(ROWS, column, strict=True):
        assert table[n].item() == pytest.approx(expected, abs=1e-9)
        assert schedule(n / 100) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(("beta", "expected"), [(0.01, 0.3646424811), (0.1, 0.5578124801), (10.0, 2.2391758732)])
def test_pgh_normaliser(beta, expected):
    one = torch.ones((), dtype=torch.float64)
    assert (decay_integral(one, beta) + cosine_integral(one, beta)).item() == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize("beta", [1.0, 1 - 1e-12, 1 + 1e-12, 1 - 1e-9, 1 + 1e-9])
def test_pgh_runs_into_slats_as_beta_goes_to_one(beta):
    assert Pgh(beta=beta)(0.5) == pytest.approx(0.8183098862, abs=1e-9)


def test_pgh_settles_early():
    assert Pgh()(0.25) == pytest.approx(0.78, abs=0.01)


@pytest.mark.parametrize(("at", "expected"), [(0.25, 0.4341556101), (0.5, 0.7604353614), (0.75, 0.9341556101)])
def test_learning_rate_floor(at, expected):
    assert Coupled(floor=0.1)(at) == pytest.approx(expected, abs=1e-9)


@pytest.mark.parametrize(
    ("curve", "first", "last", "values"),
    [
        (Cubic(), 0, 0.9, {10: 0.2439, 25: 0.5203125, 50: 0.7875, 75: 0.8859375, 90: 0.8991}),
        (Cubic(start=0.2, end=0.8), 0, 0.8, {35: 0.4625, 50: 0.7, 65: 0.7875}),
        (Cubic(), 0.5, 0.95, {50: 0.89375}),
    ],
)
def test_gradual_magnitude_pruning_values(curve, first, last, values):
    for step, sparsity in values.items():
        assert first + (last - first) * curve(step / 100) == pytest.approx(sparsity, abs=1e-9)


def midpoint(penalty_times_rate, x, pieces=20000):
    """Slow reference: ∫₀ˣ by the midpoint rule."""
    return sum(penalty_times_rate((k + 0.5) * x / pieces) for k in range(pieces)) * x / pieces


@pytest.mark.parametrize("beta", [0.01, 0.5, 1.0, 10.0])
@pytest.mark.parametrize("floor", [0.0, 0.1])
def test_closed_forms_are_integrals_of_penalty_times_rate(beta, floor):
    def flow(t):
        return beta**t * (floor + (1 - floor) * (1 + math.cos(math.pi * t)) / 2)

    expected = midpoint(flow, 0.3) / midpoint(flow, 1.0)
    assert Coupled(beta=beta, floor=floor)(0.3) == pytest.approx(expected, abs=1e-7)
    if floor == 0:
        assert Pgh(beta=beta)(0.3) == pytest.approx(expected, abs=1e-7)


def test_slats_is_pgh_and_coupled_at_beta_one():
    torch.testing.assert_close(SLats().table(64), Pgh(beta=1.0).table(64), rtol=0, atol=1e-12)
    torch.testing.assert_close(SLats().table(64), Coupled().table(64), rtol=0, atol=1e-12)


@pytest.mark.parametrize(("epochs", "batches"), [(1, 5), (4, 3), (10, 7)])
def test_lats_is_the_running_sum_of_epoch_rates(epochs, batches):
    table = LatsCurve(epochs=epochs).table(epochs * batches)
    level, n = 0.0, 0
    for epoch in range(epochs):
        for _ in range(batches):
            level, n = level + (1 + math.cos(math.pi * epoch / epochs)) / (epochs + 1) / batches, n + 1
            assert table[n].item() == pytest.approx(level, abs=1e-12)


def test_lats_takes_steps_that_do_not_divide_into_epochs():
    table, fine = LatsCurve(epochs=3).table(10), LatsCurve(epochs=3).table(30)
    torch.testing.assert_close(table, fine[::3], rtol=0, atol=1e-12)
    assert LatsCurve(epochs=10).table(4).shape == (5,)


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
@pytest.mark.parametrize("steps", [1, 2, 7, 1000])
def test_tables_run_from_zero_to_one_and_never_fall(schedule, steps):
    table = schedule.table(steps)
    assert table.shape == (steps + 1,)
    assert table.dtype == torch.float64
    assert table[0] == 0
    assert table[-1] == 1
    assert (table.diff() >= 0).all()


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
@given(progress=st.floats(0, 1), further=st.floats(0, 1))
@quick
def test_curves_rise_within_their_ends(schedule, progress, further):
    low, high = sorted((progress, further))
    assert 0 <= schedule(low) <= schedule(high) + 1e-14 <= 1 + 1e-14


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_progress_outside_the_run_is_clipped(schedule):
    assert schedule(-0.5) == schedule(0) == 0
    assert schedule(1.5) == schedule(1) == schedule(math.inf) == 1


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_table_reads_the_same_curve_as_the_call(schedule):
    table = schedule.table(37)
    for n in range(38):
        assert table[n].item() == pytest.approx(schedule(n / 37), abs=1e-12)


def test_curves_wait_before_their_start():
    assert Cubic(start=0.2, end=0.8)(0.2) == 0
    assert Linear(start=0.2, end=0.6)(0.6) == 1
    assert Constant(start=0.3).table(10).tolist() == [0.0] * 4 + [1.0] * 7


@pytest.mark.parametrize("schedule", EVERY, ids=repr)
def test_nan_progress_and_bad_steps_are_refused(schedule):
    with pytest.raises(InputError):
        schedule(math.nan)
    for steps in (0, -1, 2.5, True):
        with pytest.raises(InputError):
            schedule.table(steps)


@pytest.mark.parametrize("beta", [0, -1.0, math.nan, math.inf])
@pytest.mark.parametrize("kind", [Pgh, Coupled])
def test_bad_beta_is_refused(kind, beta):
    with pytest.raises(InputError, match="beta"):
        kind(beta=beta)


@pytest.mark.parametrize("epochs", [0, -3, 1.5, math.nan, True])
def test_bad_epochs_are_refused(epochs):
    with pytest.raises(InputError, match="epochs"):
        LatsCurve(epochs=epochs)


@pytest.mark.parametrize("kind", [Linear, Cubic])
@pytest.mark.parametrize(("start", "end"), [(0.5, 0.5), (0.6, 0.2), (-0.1, 1.0), (0.0, 1.1), (math.nan, 1.0)])
def test_bad_windows_are_refused(kind, start, end):
    with pytest.raises(InputError, match="start"):
        kind(start=start, end=end)


@pytest.mark.parametrize("floor", [-0.1, 1.1, math.nan])
def test_bad_floor_is_refused(floor):
    with pytest.raises(InputError, match="floor"):
        Coupled(floor=floor)
