"""Claims about the power-p threshold: its two limits, the plain formula, tiny weights, stated gradient."""

import math

import pytest
import torch

from thresher.operators import hard_threshold, power_threshold, soft_threshold


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def close(actual, expected, atol):
    torch.testing.assert_close(actual, expected, rtol=0, atol=atol)


def test_power_one_is_the_soft_threshold():
    theta, t = torch.randn(200, dtype=torch.float64), tensor(0.4)
    close(power_threshold(theta, t, p=1.0), soft_threshold(theta, t), 1e-14)


def test_power_infinity_is_the_hard_threshold():
    theta, t = torch.randn(200, dtype=torch.float64), tensor(0.4)
    close(power_threshold(theta, t, p=math.inf), hard_threshold(theta, t), 0)
    close(power_threshold(theta, t, p=1e6), hard_threshold(theta, t), 1e-4)


def test_power_matches_the_plain_formula():
    theta, t = torch.randn(200, dtype=torch.float64), 0.4
    for p in (1.5, 2.0, 3.0, 7.0):
        plain = theta.sign() * (theta.abs() ** p - t**p).clamp(min=0) ** (1 / p)
        close(power_threshold(theta, tensor(t), p=p), plain, 1e-10)


def test_power_survives_tiny_float32_weights():
    theta = torch.tensor([2e-20, -1e-20, 5e-21])  # cubes underflow float32
    w = power_threshold(theta, torch.tensor([5e-21]), p=3.0)
    expected = theta.double().sign() * (theta.double().abs() ** 3 - 5e-21**3).clamp(min=0) ** (1 / 3)
    torch.testing.assert_close(w, expected.float(), rtol=1e-5, atol=0)


def test_power_scales_the_gradient_of_pruned_weights():
    theta = torch.tensor([2.0, 0.5, -1.0, 0.0], requires_grad=True)
    (power_threshold(theta, torch.tensor([1.0]), pruned_gradient=0.5) * 4).sum().backward()
    assert theta.grad.tolist() == [4, 2, 2, 2]
    theta.grad = None
    power_threshold(theta, torch.tensor([1.0])).sum().backward()
    assert theta.grad.tolist() == [1, 1, 1, 1]
