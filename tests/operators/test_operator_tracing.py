"""Claims about saved memory, function transforms and full-graph tracing."""

import pytest
import torch

from thresher.operators import (
    gate_values,
    hard_threshold,
    parse_groups,
    power_threshold,
    soft_gate,
    soft_threshold,
    soft_threshold_autograd,
)

SPELLINGS = ["weight", "2:4", "block:2x2", "row", "column", "kernel"]


def test_straight_through_saves_no_tensor():
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        soft_threshold(torch.randn(4, 4, requires_grad=True), torch.tensor([0.1]))
        hard_threshold(torch.randn(4, 4, requires_grad=True), torch.tensor([0.1]))
    assert not saved


def test_function_transforms_see_the_stated_gradient():
    theta, threshold = torch.randn(3, 4, 8), torch.tensor([0.5])
    for operator in (soft_threshold, hard_threshold, power_threshold):
        grads = torch.func.vmap(torch.func.grad(lambda x, op=operator: op(x, threshold).sum()))(theta)
        assert torch.equal(grads, torch.ones_like(theta))
    to_threshold = torch.func.grad(lambda d: hard_threshold(theta, d).sum())(threshold)
    torch.testing.assert_close(to_threshold, -(theta * (theta.abs() <= 0.5)).sum().reshape(1) / 0.5)


BLOCK, N_OF_M, ROW = parse_groups("block:3x2"), parse_groups("2:4"), parse_groups("row")
COMPILED = {
    "soft": lambda x, d: soft_threshold(x, d),
    "soft_autograd": lambda x, d: soft_threshold_autograd(x, d, groups=BLOCK),
    "hard": lambda x, d: hard_threshold(x, d, groups=N_OF_M),
    "power": lambda x, d: power_threshold(x, d, pruned_gradient=0.5, groups=ROW),
    "gate": lambda x, d: soft_gate(x, d, 0.1, groups=N_OF_M),
    "gate_values": lambda x, d: gate_values(x, d, 0.1),
}


@pytest.mark.parametrize("spelling", SPELLINGS)
@pytest.mark.parametrize("shape", [(4, 8), (5, 7, 3, 3)])
def test_every_pattern_traces_into_one_graph(spelling, shape):
    torch.compiler.reset()
    groups, theta, threshold = parse_groups(spelling), torch.randn(shape), torch.tensor([0.4])
    traced = torch.compile(soft_threshold, fullgraph=True, backend="eager")
    assert torch.equal(traced(theta, threshold, groups=groups), soft_threshold(theta, threshold, groups=groups))


@pytest.mark.parametrize("name", sorted(COMPILED))
def test_traces_into_one_graph(name):
    torch.compiler.reset()
    theta, threshold = torch.randn(4, 8, 3, 3), torch.tensor([0.4])
    eager, traced = COMPILED[name], torch.compile(COMPILED[name], fullgraph=True, backend="eager")
    results = []
    for function in (eager, traced):
        x, d = theta.clone().requires_grad_(), threshold.clone().requires_grad_()
        w = function(x, d)
        w.sum().backward()
        results.append((w.detach(), x.grad, d.grad))
    for first, second in zip(*results, strict=True):
        assert first is second is None or torch.equal(first, second)
