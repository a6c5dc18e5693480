"""Claims about the lr-coupled schedule and the penalty a threshold stands for."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thresher.errors import InputError
from thresher.schedules import Coupled, SLats, penalty_of_threshold, threshold_of_penalty

quick = settings(max_examples=30, deadline=None, derandomize=True)
rate_lists = st.lists(st.floats(0, 1), min_size=1, max_size=40).filter(lambda rates: sum(rates) > 1e-6)


def test_four_steps():
    table = Coupled().table(4, [0.1, 0.1, 0.01, 0.01])
    expected = [0, 0.4545454545, 0.9090909091, 0.9545454545, 1]
    assert table.tolist() == pytest.approx(expected, abs=1e-9)


def test_five_warm_up_epochs_then_cosine():
    rates = [(e + 1) / 5 if e < 5 else (1 + math.cos(math.pi * (e - 5) / 95)) / 2 for e in range(100)]
    assert sum(rates) == pytest.approx(51)
    table = Coupled().table(100, rates)
    expected = [0.0039215686, 0.0588235294, 0.1567020966, 0.4380116181, 0.7999227459, 0.9714165854, 0.9979484672]
    assert table[[1, 5, 10, 25, 50, 75, 90]].tolist() == pytest.approx(expected, abs=1e-9)


@quick
@given(rates=rate_lists, beta=st.sampled_from([0.01, 0.5, 1.0, 4.0]))
def test_table_is_the_weighted_running_sum(rates, beta):
    table = Coupled(beta=beta).table(len(rates), rates)
    weights = [rate * beta ** (k / len(rates)) for k, rate in enumerate(rates)]
    for n in range(len(rates) + 1):
        assert table[n].item() == pytest.approx(sum(weights[:n]) / sum(weights), abs=1e-12)
    assert table[0] == 0
    assert table[-1] == 1
    assert (table.diff() >= 0).all()


@quick
@given(rates=rate_lists, scale=st.sampled_from([1e-6, 3.0, 1e6]))
def test_only_the_ratios_of_rates_count(rates, scale):
    first = Coupled().table(len(rates), rates)
    second = Coupled().table(len(rates), [rate * scale for rate in rates])
    torch.testing.assert_close(first, second, rtol=0, atol=1e-12)


def test_steps_with_rate_zero_do_not_move_the_threshold():
    assert Coupled().table(3, [0.0, 1.0, 0.0]).tolist() == [0, 0, 1, 1]


def test_cosine_rates_approach_the_closed_form():
    steps = 20000
    x = torch.arange(steps, dtype=torch.float64) / steps
    cosine = 1 + torch.cos(math.pi * x)
    torch.testing.assert_close(Coupled().table(steps, cosine), SLats().table(steps), rtol=0, atol=1e-4)
    damped = Coupled(beta=0.01)
    torch.testing.assert_close(damped.table(steps, cosine), damped.table(steps), rtol=0, atol=2e-4)


def test_beta_below_one_sparsifies_early_under_a_constant_rate():
    assert Coupled(beta=0.01).table(100, [0.1] * 100)[25] > 0.6
    assert Coupled().table(100, [0.1] * 100)[25].item() == pytest.approx(0.25)


def test_the_default_keeps_the_penalty_constant():
    rates = torch.rand(50, dtype=torch.float64, generator=torch.Generator().manual_seed(0)) + 0.01
    penalties = Coupled().table(50, rates).diff() / rates
    torch.testing.assert_close(penalties, penalties[:1].expand(50), rtol=1e-9, atol=0)


@pytest.mark.parametrize(
    ("steps", "rates"),
    [(3, [0.1, 0.1]), (2, [0.1, -0.1]), (2, [0.1, math.nan]), (2, [0.1, math.inf]), (2, [0.0, 0.0]), (1, 0.1)],
)
def test_bad_rates_are_refused(steps, rates):
    with pytest.raises(InputError, match="rate"):
        Coupled().table(steps, rates)


def test_rates_are_ignored_where_the_curve_is_closed():
    assert torch.equal(SLats().table(3, [1.0, 2.0, 3.0]), SLats().table(3))


def test_penalty_of_a_final_threshold():
    rate_sum = 0.256 * 100 * 5004 / 2  # cosine without warm-up
    assert penalty_of_threshold(0.1, rate_sum, momentum=0.875) == pytest.approx(1.951563749e-7, rel=1e-9)
    assert threshold_of_penalty(1.951563749e-7, rate_sum, momentum=0.875) == pytest.approx(0.1, abs=1e-9)


@pytest.mark.parametrize("bad", [(-1.0, 1.0, 0.0), (0.1, 0.0, 0.0), (0.1, 1.0, 1.0), (math.nan, 1.0, 0.0)])
def test_bad_penalty_arguments_are_refused(bad):
    value, rate_sum, momentum = bad
    for function in (penalty_of_threshold, threshold_of_penalty):
        with pytest.raises(InputError):
            function(value, rate_sum, momentum=momentum)
