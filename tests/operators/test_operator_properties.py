"""Claims that hold for every operator, pattern, shape and dtype."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thresher.operators import (
    gate_values,
    hard_threshold,
    parse_groups,
    power_threshold,
    soft_gate,
    soft_threshold,
    soft_threshold_autograd,
)


@pytest.fixture(autouse=True, scope="module")
def _seed():
    torch.manual_seed(0)


THRESHOLDING = {
    "soft": soft_threshold,
    "soft_autograd": soft_threshold_autograd,
    "hard": hard_threshold,
    "power": power_threshold,
}
SPELLINGS = ["weight", "2:4", "block:2x2", "row", "column", "kernel"]
DTYPES = [torch.float16, torch.bfloat16, torch.float32, torch.float64]

quick = settings(max_examples=30, deadline=None, derandomize=True)
# Multiples of 1/8 hit zero, ties and the threshold itself, and are exact in every dtype.
eighths = st.integers(-16, 16).map(lambda n: n / 8)


@st.composite
def weights(draw):
    shape = draw(st.sampled_from([(2, 4), (3, 8), (4, 4, 2), (5, 4, 3, 3), (1, 8), (0, 4), (3, 5)]))
    count = math.prod(shape)
    values = draw(st.lists(eighths, min_size=count, max_size=count))
    return torch.tensor(values).reshape(shape).to(draw(st.sampled_from(DTYPES)))


cases = {
    "name": st.sampled_from(sorted(THRESHOLDING)),
    "theta": weights(),
    "spelling": st.sampled_from(SPELLINGS),
}


@quick
@given(**cases)
def test_zero_threshold_is_identity(name, theta, spelling):
    w = THRESHOLDING[name](theta, torch.zeros(1), groups=parse_groups(spelling))
    assert torch.equal(w, theta)


@quick
@given(**cases, eighth=st.integers(0, 20))
def test_shape_dtype_sign_and_size_are_kept(name, theta, spelling, eighth):
    w = THRESHOLDING[name](theta, torch.tensor([eighth / 8]), groups=parse_groups(spelling))
    assert w.shape == theta.shape
    assert w.dtype == theta.dtype
    assert w.isfinite().all()
    assert (w.abs() <= theta.abs()).all()
    assert (w * theta >= 0).all()


@quick
@given(**cases, eighth=st.integers(0, 20))
def test_exactly_the_entries_at_or_under_their_cap_are_zero(name, theta, spelling, eighth):
    groups, threshold = parse_groups(spelling), torch.tensor([eighth / 8])
    w = THRESHOLDING[name](theta, threshold, groups=groups)
    pruned = groups.magnitude(theta) <= groups.cap(theta, threshold)
    assert (w[pruned] == 0).all()
    if name == "hard":
        assert torch.equal(w[~pruned], theta[~pruned])


@quick
@given(**cases, low=st.integers(0, 16), more=st.integers(0, 8))
def test_a_higher_threshold_keeps_a_subset(name, theta, spelling, low, more):
    groups = parse_groups(spelling)
    before = THRESHOLDING[name](theta, torch.tensor([low / 8]), groups=groups)
    after = THRESHOLDING[name](theta, torch.tensor([(low + more) / 8]), groups=groups)
    assert ((after == 0) | (before != 0)).all()


@quick
@given(theta=weights(), spelling=st.sampled_from(SPELLINGS), eighth=st.integers(0, 20))
def test_straight_through_reaches_every_entry(theta, spelling, eighth):
    for operator in (soft_threshold, hard_threshold, power_threshold):
        leaf = theta.clone().requires_grad_()
        gradient = torch.randn(theta.shape).to(theta.dtype)
        operator(leaf, torch.tensor([eighth / 8]), groups=parse_groups(spelling)).backward(gradient)
        assert torch.equal(leaf.grad, gradient)


@quick
@given(theta=weights(), spelling=st.sampled_from(SPELLINGS), eighth=st.integers(0, 20))
def test_true_gradients_are_never_nan(theta, spelling, eighth):
    leaf, threshold = theta.clone().requires_grad_(), torch.tensor([eighth / 8], requires_grad=True)
    groups = parse_groups(spelling)
    soft_threshold_autograd(leaf, threshold, groups=groups).sum().backward()
    soft_gate(leaf, threshold, 0.01, full_gradient=True, groups=groups).sum().backward()
    assert leaf.grad.isfinite().all()
    assert threshold.grad.isfinite().all()


@quick
@given(theta=weights(), eighth=st.integers(0, 20))
def test_soft_threshold_is_the_textbook_formula(theta, eighth):
    d = eighth / 8
    expected = [math.copysign(max(abs(x) - d, 0), x) for x in theta.flatten().tolist()]
    w = soft_threshold(theta, torch.tensor([d]))
    assert w.flatten().tolist() == expected  # eighths are exact


@pytest.mark.parametrize("spelling", ["block:2x2", "row", "column", "kernel"])
def test_group_soft_threshold_lowers_the_rms_by_the_threshold(spelling):
    groups = parse_groups(spelling)
    theta = torch.randn(4, 6, 3, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    d = torch.tensor([0.6], dtype=torch.float64)
    w = soft_threshold(theta, d, groups=groups)
    torch.testing.assert_close(groups.magnitude(w), (groups.magnitude(theta) - d).relu(), rtol=0, atol=1e-12)


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_autograd_operators_match_finite_differences(spelling):
    groups = parse_groups(spelling)
    generator = torch.Generator().manual_seed(4)
    theta = torch.randn(4, 4, 2, dtype=torch.float64, generator=generator).requires_grad_()
    threshold = torch.tensor([0.7], dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda x, d: soft_threshold_autograd(x, d, groups=groups), (theta, threshold))
    assert torch.autograd.gradcheck(
        lambda x, d: soft_gate(x, d, 0.3, full_gradient=True, groups=groups), (theta, threshold)
    )
    assert torch.autograd.gradcheck(lambda d: gate_values(theta.detach(), d, 0.3, groups=groups), (threshold,))


@pytest.mark.parametrize("name", sorted(THRESHOLDING))
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_half_precision_is_the_float32_result_rounded_last(name, dtype):
    theta = torch.randn(64, 16, generator=torch.Generator().manual_seed(5)).to(dtype)
    threshold = torch.tensor([0.3337])
    wide = THRESHOLDING[name](theta.float(), threshold)
    w = THRESHOLDING[name](theta, threshold)
    assert torch.equal(w, wide.to(dtype))
    assert torch.equal(w == 0, wide == 0)


@pytest.mark.parametrize("spelling", ["weight", "2:4", "block:2x2", "row"])
def test_gate_holds_half_at_its_threshold_and_respects_n_of_m(spelling):
    groups = parse_groups(spelling)
    theta = torch.randn(4, 8, generator=torch.Generator().manual_seed(6))
    m = gate_values(theta, torch.tensor([1e6]), 1e-6, groups=groups)
    kept = (m > 0.5).sum().item()
    assert kept == (16 if spelling == "2:4" else 0)


@pytest.mark.parametrize("threshold", [0.0, 0.25, 3.0])
@pytest.mark.parametrize("constant", [0.0, 0.25, -1.0])
def test_constant_tensors_give_finite_results(constant, threshold):
    for operator in THRESHOLDING.values():
        for spelling in SPELLINGS:
            w = operator(torch.full((4, 8), constant), torch.tensor([threshold]), groups=parse_groups(spelling))
            assert w.isfinite().all()
