"""Claims with published numbers: soft threshold, STR, proximal step, ASL, LTP."""

import math

import pytest
import torch

from thresher.operators import (
    gate_values,
    hard_threshold,
    soft_gate,
    soft_threshold,
    soft_threshold_autograd,
)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def tensor(*values, grad=False):
    return torch.tensor(values, dtype=torch.float64, requires_grad=grad)


def close(actual, expected, atol=1e-9):
    torch.testing.assert_close(actual, torch.as_tensor(expected, dtype=actual.dtype), rtol=0, atol=atol)


SOFT = (0.5, -0.3, 0.1, -0.05, 0.0, 0.2)


def test_soft_threshold_shrinks_and_passes_every_gradient():
    theta = tensor(*SOFT, grad=True)
    w = soft_threshold(theta, tensor(0.2))
    close(w, [0.3, -0.1, 0, 0, 0, 0], 1e-15)
    w.sum().backward()
    assert theta.grad.tolist() == [1.0] * 6


def test_soft_threshold_gives_the_threshold_no_gradient():
    theta, threshold = tensor(*SOFT, grad=True), tensor(0.2, grad=True)
    soft_threshold(theta, threshold).sum().backward()
    assert threshold.grad is None


def test_str_gradients_are_the_true_ones():
    theta, s = tensor(*SOFT, grad=True), tensor(math.log(0.25), grad=True)
    close(s.detach().sigmoid(), [0.2])
    alpha = s.sigmoid()
    alpha = alpha + (0.2 - alpha).detach()  # without its rounding: one weight lies exactly on the threshold
    w = soft_threshold_autograd(theta, alpha)
    close(w.detach(), [0.3, -0.1, 0, 0, 0, 0])
    (w * tensor(1, 2, 3, 4, 5, 6)).sum().backward()
    assert theta.grad.tolist() == [1, 2, 0, 0, 0, 0]
    close(s.grad, [0.16])


def test_a_weight_step_and_a_threshold_step_make_one_proximal_step():
    theta, rate, gradient = tensor(0.5), 0.1, 0.4
    w = soft_threshold(theta, tensor(0.2))
    close(w, [0.3])
    after = soft_threshold(theta - rate * gradient, tensor(0.23))
    close(after, [0.23])
    close(soft_threshold(w - rate * gradient, tensor(0.03)), after.tolist())


def test_float32_sigmoid_dies_far_out():
    s = torch.tensor([-110.0], requires_grad=True)
    s.sigmoid().backward()
    assert s.sigmoid().item() == 0
    assert s.grad.item() == 0
    assert torch.tensor(-10.0).sigmoid().item() == pytest.approx(4.5398e-5, rel=1e-3)


def test_asl_threshold_weights_and_gradients():
    theta, b = tensor(1, -2, 0.5, -0.25, 3, -2.25, grad=True), tensor(0.6, grad=True)
    threshold = b * theta.detach().std()
    close(threshold.detach(), [1.1811011811])
    w = hard_threshold(theta, threshold)
    assert w.tolist() == [0, -2, 0, 0, 3, -2.25]
    (w * tensor(1, 2, 3, 4, 5, 6)).sum().backward()
    assert theta.grad.tolist() == [1, 2, 3, 4, 5, 6]
    close(b.grad, [-2.5])


def test_asl_gradient_is_that_of_scaling_in_and_out_of_a_straight_through_step():
    theta, threshold = torch.randn(20, dtype=torch.float64), tensor(0.7, grad=True)
    gradient = torch.randn(20, dtype=torch.float64)
    (hard_threshold(theta, threshold) * gradient).sum().backward()
    scale = tensor(0.7, grad=True)
    x = theta / scale
    step = x + (x * (x.abs() > 1) - x).detach()
    (scale * step * gradient).sum().backward()
    close(threshold.grad, scale.grad, 1e-12)


def test_hard_threshold_at_zero_gives_the_threshold_zero_gradient():
    threshold = torch.zeros(1, requires_grad=True)
    hard_threshold(torch.tensor([1.0, 0.0]), threshold).sum().backward()
    assert threshold.grad.tolist() == [0.0]


def test_hard_threshold_reduces_its_gradient_to_the_shape_of_the_threshold():
    theta, threshold = torch.randn(4, 5), torch.full((4, 1), 0.8, requires_grad=True)
    hard_threshold(theta, threshold).sum().backward()
    expected = -(theta * (theta.abs() <= 0.8)).sum(1, keepdim=True) / 0.8
    torch.testing.assert_close(threshold.grad, expected)


W, G = (0.30, -0.20, 0.10, -0.05, 0.02), (1.0, -1.0, 2.0, 0.5, -3.0)
M = [0.9996646499, 0.9525741268, 0.5, 0.3208213008, 0.2768781949]


def ltp(full_gradient):
    w, tau = tensor(*W, grad=True), tensor(0.01, grad=True)
    v = soft_gate(w, tau, 0.01, full_gradient=full_gradient)
    m = gate_values(w, tau, 0.01, full_gradient=full_gradient)
    ((v * tensor(*G)).sum() + 0.1 * m.sum()).backward()
    return w, tau, v, m


def test_ltp_mask_and_gradients():
    w, tau, v, m = ltp(full_gradient=False)
    close(m.detach(), M)
    close(m.detach().sum(), 3.0499382724)
    close(v.detach(), (w * m).tolist())
    close(w.grad, [0.9996646499, -0.9525741268, 1.0, 0.1604106504, -0.8306345846])
    close(tau.grad, [-11.3037883923])


def test_ltp_full_gradient():
    w, tau, _, _ = ltp(full_gradient=True)
    close(w.grad, [1.0077103540, -1.4946940436, 2.5, -0.0030105949, -0.7985999190])
    close(tau.grad, [-11.3037883923])


def test_ltp_temperature_scale_is_the_population_variance_of_magnitudes():
    assert tensor(*W).abs().var(unbiased=False).item() == pytest.approx(0.010624, abs=1e-9)
    by_tensor = gate_values(tensor(*W), tensor(0.01), tensor(0.01))
    close(by_tensor, gate_values(tensor(*W), tensor(0.01), 0.01).tolist(), 1e-15)


def test_soft_l0_never_pulls_on_weights():
    w, tau = tensor(*W, grad=True), tensor(0.01, grad=True)
    gate_values(w, tau, 0.01).sum().backward()
    assert w.grad is None
    assert tau.grad.item() < 0


@pytest.mark.parametrize("temperature", [0.0, 1e-30, torch.zeros(1)])
def test_gate_stays_finite_at_zero_temperature_and_zero_weights(temperature):
    theta, tau = torch.zeros(4, requires_grad=True), torch.zeros(1, requires_grad=True)
    v = soft_gate(theta, tau, temperature, full_gradient=True)
    v.sum().backward()
    assert v.isfinite().all()
    assert theta.grad.isfinite().all()
    assert tau.grad.isfinite().all()


def test_gate_squares_small_half_weights_in_float32():
    theta = torch.tensor([1e-4, 3e-4], dtype=torch.float16)  # squares underflow in float16
    m = gate_values(theta, torch.tensor([4e-8]), 1e-9)
    assert m.dtype == torch.float32
    assert m[0] < 1e-6
    assert m[1] > 1 - 1e-6
