"""Claims about the re-scaled soft threshold: its factor, its limits, the stated gradient."""

import pytest
import torch

from thresher.operators import channel_rescale, parse_groups, rescaled_soft_threshold, soft_threshold


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def tensor(*values):
    return torch.tensor(values, dtype=torch.float64)


def test_the_factor_is_the_plain_formula_per_output_channel():
    theta, t = torch.randn(4, 3, 2, 2, dtype=torch.float64), 0.7
    for channel, factor in zip(theta, channel_rescale(theta, tensor(t)).flatten().tolist(), strict=True):
        alive = [abs(value) for value in channel.flatten().tolist() if abs(value) > t]
        every = [abs(value) for value in channel.flatten().tolist()]
        ratio = (sum(alive) / len(every) + 1e-6) / (sum(every) / len(every) + 1e-6)
        assert factor == pytest.approx(1.01 / (ratio + 0.01), rel=1e-12)


def test_the_value_is_the_factor_times_the_soft_threshold():
    theta, t = torch.randn(5, 7, dtype=torch.float64), tensor(0.4)
    expected = channel_rescale(theta, t) * soft_threshold(theta, t)
    torch.testing.assert_close(rescaled_soft_threshold(theta, t), expected, rtol=0, atol=0)


def test_zero_threshold_is_the_identity():
    theta = torch.randn(5, 7, dtype=torch.float64)
    torch.testing.assert_close(rescaled_soft_threshold(theta, tensor(0.0)), theta, rtol=1e-12, atol=0)


def test_a_channel_without_survivors_is_zero_and_finite_and_so_is_a_zero_channel():
    theta = torch.tensor([[0.1, -0.2], [3.0, 1.0], [0.0, 0.0]])
    w = rescaled_soft_threshold(theta, torch.tensor([0.5]))
    assert w[0].tolist() == [0.0, 0.0]
    assert w[2].tolist() == [0.0, 0.0]
    assert 90 < channel_rescale(theta, torch.tensor([0.5]))[0].item() < 102
    assert torch.isfinite(w).all()


def test_every_entry_receives_the_gradient_unchanged():
    theta = torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    upstream = torch.randn(3, 4, dtype=torch.float64)
    rescaled_soft_threshold(theta, tensor(0.8)).backward(upstream)
    assert torch.equal(theta.grad, upstream)


def test_a_vector_has_one_channel_per_entry_and_half_precision_keeps_its_dtype():
    w = rescaled_soft_threshold(torch.tensor([2.0, 0.1], dtype=torch.bfloat16), torch.tensor([1.0]))
    assert w.dtype == torch.bfloat16
    assert w.tolist() == [1.0, 0.0]


def test_groups_share_one_fate():
    theta = torch.randn(4, 6)
    w = rescaled_soft_threshold(theta, torch.tensor([1.0]), groups=parse_groups("block:2x1"))
    dead = (w == 0).reshape(2, 2, 6)
    assert torch.equal(dead[:, 0], dead[:, 1])


def test_it_traces_in_one_graph():
    theta, t = torch.randn(4, 6), torch.tensor([0.5])
    compiled = torch.compile(rescaled_soft_threshold, fullgraph=True, backend="eager")
    assert torch.equal(compiled(theta, t), rescaled_soft_threshold(theta, t))
