"""The task's pull on a threshold, read off the weight's gradient, is what autograd gives through the operator."""

import math

import pytest
import torch
from torch import Tensor, nn

from thresher.methods import Asl, Ltp, Str
from thresher.methods.learning.erf import ErfLaw
from thresher.methods.learning.gate import GateLaw
from thresher.methods.learning.gated import GateShell
from thresher.methods.learning.law import Law
from thresher.methods.reparameterized import LogLaw
from thresher.operators import Groups, parse_groups
from thresher.targets import Target, select


def asl(groups: Groups, targets: tuple[Target, ...], factor: float = 1.0) -> Law:
    return ErfLaw(groups, targets, loss="global", gamma=10.0, center=False, jump=False, pruned_gradient=factor)


def ltp(groups: Groups, full: bool = False, factor: float = 0.0) -> Law:
    return GateLaw(groups, l0=None, temperature=0.3, count_temperature=0.1, full_grad=full, pruned_gradient=factor)


LAWS = {
    "asl": (lambda groups, targets: asl(groups, targets), 0.9),
    "asl, half of the gradient to pruned entries": (lambda groups, targets: asl(groups, targets, 0.5), 0.9),
    "ltp": (lambda groups, targets: ltp(groups), 0.8),
    "ltp, full gradient": (lambda groups, targets: ltp(groups, full=True), 0.8),
    "ltp, part of the gradient to gated entries": (lambda groups, targets: ltp(groups, factor=0.3), 0.8),
    "str": (lambda groups, targets: LogLaw(groups, start=-30.0, decay=None), math.log(0.2)),
}
LAYERS = {
    "linear": lambda: nn.Linear(8, 6, bias=False),
    "conv": lambda: nn.Conv2d(4, 6, 3, bias=False),
    "depthwise": lambda: nn.Conv2d(6, 6, 3, groups=6, bias=False),
}


@pytest.mark.parametrize("name", LAWS)
@pytest.mark.parametrize(
    ("layer", "groups"),
    [
        ("linear", "weight"),
        ("conv", "weight"),
        ("depthwise", "weight"),
        ("linear", "2:4"),
        ("conv", "row"),
        ("conv", "kernel"),
        ("linear", "block:4x1"),
        ("depthwise", "block:4x1"),
    ],
)
@pytest.mark.parametrize("passes", [1, 2])
def test_the_gradient_read_off_the_weight_is_that_of_autograd(name: str, layer: str, groups: str, passes: int) -> None:
    torch.manual_seed(0)
    module = LAYERS[layer]().double()
    with torch.no_grad():
        module.weight.normal_(std=0.3)
        module.weight[0] *= 0.05  # in a depthwise layer this filter stays at its own level
    pattern = parse_groups(groups)
    make, at = LAWS[name]
    targets = select(module, groups=pattern).targets
    law = make(pattern, targets)
    shell = law.shell(targets[0]).train()
    theta = module.weight
    law.shares = torch.ones(1, dtype=torch.float64)
    law.begin([theta.detach()])
    law.refresh([theta.detach()], [shell], due=True)
    x = torch.full((1,), at, dtype=torch.float64, requires_grad=True)
    # The operator whose threshold gradient is the one wanted: whole, and not by way of the fast path.
    seen = (asl(pattern, targets) if name.startswith("asl") else law).shell(targets[0]).train()
    seen.simple = False
    for one in (shell, seen):
        one._buffers["threshold"] = law.thresholds(x)
        if isinstance(one, GateShell):
            one.temperature = shell.temperature
    for _ in range(passes):  # micro-batches add up in both places
        gradient = torch.randn_like(theta)
        (shell(theta) * gradient).sum().backward(retain_graph=True, inputs=[theta])
        (seen(theta) * gradient).sum().backward(retain_graph=True, inputs=[x])
    assert x.grad is not None
    assert theta.grad is not None
    with torch.no_grad():
        shell._buffers["threshold"] = law.thresholds(x)
        found = law.task(x, [theta.detach()], [theta.grad], [shell])
    torch.testing.assert_close(found, x.grad, rtol=1e-9, atol=1e-12)
    if "2:4" not in groups or name != "str":
        assert float(found) != 0


@pytest.mark.parametrize("name", LAWS)
def test_an_open_threshold_has_no_task_gradient(name: str) -> None:
    module = nn.Linear(8, 6, bias=False)
    make, _ = LAWS[name]
    pattern = parse_groups("weight")
    targets = select(module).targets
    law: Law = make(pattern, targets)
    shell = law.shell(targets[0])
    law.shares = torch.ones(1, dtype=torch.float64)
    law.begin([module.weight.detach()])
    law.refresh([module.weight.detach()], [shell], due=True)
    x = torch.full((1,), law.start, dtype=torch.float64)
    found = law.task(x, [module.weight.detach()], [torch.ones(6, 8)], [shell])
    assert found.abs().max() < 1e-11


@pytest.mark.parametrize("method", [Asl(), Ltp(), Str()], ids=lambda method: method.name)
def test_a_layer_without_gradient_in_a_step_counts_as_zero(method: object) -> None:
    import thresher

    model = nn.ModuleList([nn.Linear(8, 8), nn.Linear(8, 8)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    pruner = thresher.prune(model, optimizer, method, "sparsity=50%", steps=20, example=None)  # type: ignore[arg-type]
    inputs = torch.randn(4, 8, generator=torch.Generator().manual_seed(0))
    for step in range(20):
        optimizer.zero_grad()
        value: Tensor = model[0](inputs)  # the second layer is not used
        value.square().mean().backward()
        optimizer.step()
        assert all(math.isfinite(one) for one in pruner.process.thresholds()), step
    assert pruner.finish().zeros == 64
