"""What every registered method and preset owes: one suite over all of them."""

import dataclasses

import pytest
import torch
from method_bench import GRADUAL, NAMES, SOFT, STEPS, Bench, batch, network, zeros_of
from torch import nn
from torch.nn.utils import parametrize

import thresher
from thresher.attach import latent
from thresher.errors import StateError
from thresher.methods import Asl, Lats, Ltp, Power, St3, Str, parse_method

every = pytest.mark.parametrize("name", NAMES)


@pytest.mark.parametrize("name", GRADUAL)
def test_attaching_keeps_the_function_the_parameters_and_their_form(name: str) -> None:
    plain = network()
    expected = plain.eval()(batch(99)[0])
    bench = Bench(name)
    assert torch.equal(bench.output(), expected)
    held = {id(p) for group in bench.optimizer.param_groups for p in group["params"]}
    for target in bench.pruner.targets:
        weight = getattr(*target.sites[0])
        original = plain.get_parameter(target.name)
        assert weight.shape == original.shape
        assert weight.dtype == original.dtype
        assert torch.equal(weight, original)
        assert id(latent(target)) in held


@every
@pytest.mark.parametrize("percent", [0, 50, 90, 99, 100])
def test_finishing_leaves_plain_modules_with_exactly_the_asked_zeros(name: str, percent: int) -> None:
    bench = Bench(name, f"sparsity={percent}%").train()
    report = bench.finish()
    zeros, entries = zeros_of(bench.pruner)
    assert zeros == report.zeros == percent * entries // 100
    assert report.got["sparsity"] == zeros / entries
    assert not any(parametrize.is_parametrized(module) for module in bench.model.modules())
    assert [type(module) for module in bench.model] == [type(module) for module in network()]
    assert list(bench.model.state_dict()) == list(network().state_dict())
    assert bench.model[9].weight is bench.model[11].weight
    assert torch.isfinite(bench.output()).all()
    if percent < 100:
        assert bench.model[3].weight.flatten(1).any(1).all()


@every
def test_finishing_without_training_is_exact_too(name: str) -> None:
    bench = Bench(name)
    bench.finish()
    zeros, entries = zeros_of(bench.pruner)
    assert zeros == int(0.9 * entries)


@every
@pytest.mark.parametrize(
    ("budget", "groups"),
    [
        ("sparsity=50%", "2:4"),
        ("sparsity=60%", "row"),
        ("sparsity=75%", "block:4x1"),
        ("params=40%,flops=50%", "weight"),
    ],
)
def test_groups_and_other_budgets_hold(name: str, budget: str, groups: str) -> None:
    bench = Bench(name, budget, more={"groups": groups}).train()
    report = bench.finish()
    asked = thresher.Budget.parse(budget)
    zeros, entries = zeros_of(bench.pruner)
    if asked.sparsity is not None:
        assert zeros >= int(asked.sparsity * entries)
        assert zeros - int(asked.sparsity * entries) < 32 * 9
    else:
        nonzero = sum(int(p.count_nonzero()) for p in bench.model.parameters())
        total = sum(p.numel() for p in bench.model.parameters())
        assert nonzero <= int(0.4 * total)
        assert report.macs is not None
        assert report.macs <= 0.5 * report.total_macs
        assert nonzero == int(0.4 * total) or report.macs > 0.5 * report.total_macs - 36
    if groups == "2:4":
        assert (bench.model[9].weight.reshape(32, 8, 4).count_nonzero(2) == 2).all()


@every
def test_finishing_changes_no_output_when_it_touches_nothing(name: str) -> None:
    method = parse_method(name)
    bench = Bench(name)
    if isinstance(method, Lats):
        # A budget would move the support at the end; a given threshold leaves it where it is.
        bench = Bench(dataclasses.replace(method, threshold=0.02), None)
    elif isinstance(method, (Power, St3)):
        # What a guard keeps although the threshold prunes it is put back at the end; at 50 % no guard acts.
        bench = Bench(name, "sparsity=50%")
    elif isinstance(method, (Asl, Ltp, Str)):
        # Learned thresholds come close to a budget; without one they end where they are.
        free = {Asl: {"loss": "density"}, Ltp: {"l0": 1.0}, Str: {"s_init": -3.0}}[type(method)]
        bench = Bench(dataclasses.replace(method, **free), None)
    bench.train()
    expected = bench.output()
    report = bench.finish()
    assert report.touched == 0
    assert 0 < report.zeros < report.entries
    assert torch.equal(bench.output(), expected)


@every
def test_steps_after_the_end_move_nothing(name: str) -> None:
    bench = Bench(name).train()
    thresholds = bench.pruner.process.thresholds()
    supports = [getattr(*target.sites[0]) != 0 for target in bench.pruner.targets]
    bench.train(STEPS, STEPS + 4)
    assert bench.pruner.step == STEPS + 4
    assert bench.pruner.process.thresholds() == thresholds
    method = parse_method(name)
    if name not in SOFT or getattr(method, "settle_at", getattr(method, "settle", 1.0)) < 1:
        later = [getattr(*target.sites[0]) != 0 for target in bench.pruner.targets]
        assert all(torch.equal(a, b) for a, b in zip(supports, later, strict=True))
    bench.finish()
    zeros, entries = zeros_of(bench.pruner)
    assert zeros == int(0.9 * entries)


@every
def test_finishing_twice_is_refused_and_the_hooks_are_gone(name: str) -> None:
    bench = Bench(name).train()
    bench.finish()
    with pytest.raises(StateError, match="finished run"):
        bench.finish()
    bench.train(0, 1)
    assert bench.pruner.step == STEPS
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in bench.model.modules())


@every
def test_rules_hold_to_the_end(name: str) -> None:
    bench = Bench(name, "sparsity=50%", more={"rules": ["exclude:0", "dense:13", "9:max=50%", "6:min=75%"]}).train()
    report = bench.finish()
    by_name = {layer.name: layer for layer in report.layers}
    assert "0.weight" not in by_name
    assert by_name["13.weight"].zeros == 0
    assert by_name["9.weight"].sparsity <= 0.5
    assert by_name["6.weight"].sparsity >= 0.75
    assert report.zeros == report.entries // 2


@every
def test_frozen_and_excluded_weights_are_never_written(name: str) -> None:
    bench = Bench(name, more={"rules": ["exclude:6"]})
    before = bench.model[6].weight.detach().clone()
    bench.finish()
    assert torch.equal(bench.model[6].weight, before)
    assert type(bench.model[6]) is nn.Conv2d
