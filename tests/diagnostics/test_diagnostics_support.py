"""Churn, regrowth and the optimality gap on hand-made cases."""

import math

import pytest
import torch
from torch import Tensor

from thresher.diagnostics import churn, optimality_gap, regrowth
from thresher.errors import InputError


def tensors(*rows: list[float]) -> list[Tensor]:
    return [torch.tensor(row) for row in rows]


def test_nothing_flips_between_a_moment_and_itself() -> None:
    moment = tensors([0.0, 1.0], [2.0, 0.0, 0.0])
    assert churn(moment, moment) == regrowth(moment, moment) == 0.0


def test_churn_counts_both_ways_and_regrowth_one() -> None:
    before, after = tensors([0.0, 1.0], [2.0, 0.0, 0.0]), tensors([1.0, 0.0], [2.0, -1.0, 0.0])
    assert churn(before, after) == 3 / 5
    assert regrowth(before, after) == 2 / 5
    assert regrowth(after, before) == 1 / 5


def test_a_value_that_changes_without_dying_is_no_churn() -> None:
    assert churn(tensors([1.0, -0.0]), tensors([-5.0, 0.0])) == 0.0


def test_masks_count_like_weights() -> None:
    weights = tensors([0.0, 1.0]), tensors([1.0, 1.0])
    masks = [[weight != 0 for weight in moment] for moment in weights]
    assert churn(*masks) == churn(*weights) == 0.5


def test_no_entries_have_no_churn() -> None:
    assert churn([], []) == regrowth([torch.zeros(0)], [torch.zeros(0)]) == 0.0


def test_moments_of_different_networks_are_refused() -> None:
    with pytest.raises(InputError, match="the same tensors"):
        churn(tensors([0.0]), tensors([0.0, 1.0]))


def test_an_optimum_has_no_gap() -> None:
    gap = optimality_gap(torch.tensor([3.0, -2.0, 0.0, 0.0]), torch.tensor([-0.5, 0.5, 0.5, -0.25]), 0.5)
    assert (gap.max, gap.mean) == (0.0, 0.0)


def test_the_sign_of_the_gradient_matters_on_the_support() -> None:
    gap = optimality_gap(torch.tensor([3.0]), torch.tensor([0.5]), 0.5)
    assert gap.on_max == 1.0


def test_the_two_conditions_are_told_apart() -> None:
    gap = optimality_gap(torch.tensor([1.0, 1.0, 0.0, 0.0]), torch.tensor([-0.25, -0.5, 2.5, 0.1]), 0.5)
    assert (gap.on_max, gap.on_mean, gap.off_max, gap.off_mean) == (0.25, 0.125, 2.0, 1.0)
    assert (gap.max, gap.mean) == (2.0, 2.25 / 4)


def test_parts_without_entries_have_no_violation() -> None:
    assert optimality_gap(torch.zeros(0), torch.zeros(0), 1.0).max == 0.0
    assert optimality_gap(torch.zeros(2), torch.full((2,), 3.0), 1.0).on_max == 0.0


def test_half_precision_is_widened_first() -> None:
    half = torch.tensor([1.0], dtype=torch.float16)
    assert optimality_gap(half, torch.tensor([-1.0], dtype=torch.float16), 1 + 1e-6).max == pytest.approx(1e-6)


@pytest.mark.parametrize(
    ("weight", "gradient", "l1"),
    [
        ([1.0], [1.0, 2.0], 1.0),
        ([1.0], [1.0], 0.0),
        ([1.0], [1.0], math.inf),
        ([1.0], [math.nan], 1.0),
        ([math.nan], [1.0], 1.0),
    ],
)
def test_what_cannot_be_judged_is_refused(weight: list[float], gradient: list[float], l1: float) -> None:
    with pytest.raises(InputError):
        optimality_gap(torch.tensor(weight), torch.tensor(gradient), l1)
