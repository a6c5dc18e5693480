"""No optimizer, weight decay, clipping or parameter group of the user ever reaches a learned threshold."""

import copy

import pytest
import torch
from method_bench import STEPS, Bench, batch, network, sgd
from torch import nn
from torch.nn import functional as F

import thresher
from thresher.attach import latent

every = pytest.mark.parametrize("name", ["asl", "ltp", "str"])


@every
def test_attaching_adds_no_parameter(name: str) -> None:
    plain, bench = network(), Bench(name)
    assert sorted(p.shape for p in bench.model.parameters()) == sorted(p.shape for p in plain.parameters())
    held = {id(p) for p in bench.model.parameters()}
    assert held == {id(p) for group in bench.optimizer.param_groups for p in group["params"]}


@every
def test_an_optimizer_made_after_pruning_began_moves_weights_and_no_threshold(name: str) -> None:
    bench = Bench(name).train(0, 6)
    thresholds = bench.pruner.process.thresholds()
    buffers = [copy.deepcopy(dict(bench.pruner.process.shell(n).named_buffers())) for n in range(5)]
    after = torch.optim.SGD(bench.model.parameters(), lr=0.5, weight_decay=0.5)
    before = [latent(target).detach().clone() for target in bench.pruner.targets]
    bench.loss(7).backward()
    after.step()
    assert all(not torch.equal(latent(t), old) for t, old in zip(bench.pruner.targets, before, strict=True))
    assert bench.pruner.process.thresholds() == thresholds
    for number, old in enumerate(buffers):
        found = dict(bench.pruner.process.shell(number).named_buffers())
        assert all(torch.equal(found[key], value) for key, value in old.items())


@every
def test_clipping_sees_the_norm_of_the_weights_alone(name: str) -> None:
    bench = Bench(name).train(0, 4)
    bench.optimizer.zero_grad()
    (bench.loss(4) + 1e6 * bench.pruner.penalty()).backward()
    norm = torch.nn.utils.clip_grad_norm_(bench.model.parameters(), 1e9)
    squares = [p.grad.square().sum() for p in bench.model.parameters() if p.grad is not None]
    assert float(norm) == pytest.approx(float(sum(squares)) ** 0.5, rel=1e-5)
    assert float(norm) < 1e3


@every
def test_weight_decay_and_groups_leave_the_thresholds_of_a_resting_network_where_they_are(name: str) -> None:
    """With a learning rate of 0 for the weights, decay has no way to act; only the budget moves the thresholds."""
    runs = []
    for decay, split in ((0.0, False), (0.9, False), (0.9, True)):
        model = network()
        parameters = list(model.parameters())
        groups = [{"params": parameters[:3]}, {"params": parameters[3:], "weight_decay": 0.1}]
        optimizer = torch.optim.SGD(groups if split else parameters, lr=0.0, weight_decay=decay)
        pruner = thresher.prune(model.eval(), optimizer, name, "sparsity=80%", steps=STEPS)
        for step in range(STEPS):
            optimizer.zero_grad()
            F.cross_entropy(model(batch(step)[0]), batch(step)[1]).backward()
            optimizer.step()
        runs.append(pruner.process.thresholds())
    assert runs[0] == runs[1] == runs[2]
    assert max(runs[0]) > 0


@every
def test_clipped_weights_change_the_reading_but_never_the_threshold_itself(name: str) -> None:
    """The task's pull is read off the clipped gradient: tiny norms leave the budget alone to move the thresholds."""
    bench = Bench(name, steps=40)
    for step in range(20):
        bench.optimizer.zero_grad()
        bench.loss(step).backward()
        nn.utils.clip_grad_norm_(bench.model.parameters(), 1e-12)
        bench.optimizer.step()
    assert max(bench.pruner.process.thresholds()) > 0
    assert bench.pruner.sparsity == pytest.approx(0.9, abs=0.03)


@every
def test_the_thresholds_anneal_with_the_learning_rate_of_the_weights(name: str) -> None:
    moved = []
    for rate in (0.05, 0.0):
        bench = Bench(f"{name}:settle=1", steps=40).train(0, 25)
        for group in bench.optimizer.param_groups:
            group["lr"] = rate
        process = bench.pruner.process
        x = process._x.clone()  # type: ignore[attr-defined]
        bench.train(25, 26)
        process_drift = process._drift  # type: ignore[attr-defined]
        moved.append(float(process_drift.abs().sum()))
        assert x.shape == process._x.shape  # type: ignore[attr-defined]
    assert moved[0] > 0
    assert moved[1] == 0


@every
def test_two_parameter_groups_move_their_thresholds_at_their_own_rates(name: str) -> None:
    model = network()
    optimizer = torch.optim.SGD(
        [{"params": model[:6].parameters(), "lr": 0.0}, {"params": model[6:].parameters(), "lr": 0.05}], momentum=0.9
    )
    pruner = thresher.prune(model, optimizer, name, "sparsity=90%", steps=STEPS)
    for step in range(7):
        optimizer.zero_grad()
        F.cross_entropy(model(batch(step)[0]), batch(step)[1]).backward()
        optimizer.step()
    drift = pruner.process._drift  # type: ignore[attr-defined]
    assert not drift[:2].any()
    assert drift[2:].any()


@every
def test_the_state_dict_of_the_model_carries_the_thresholds_in_full_precision(name: str) -> None:
    bench = Bench(name, dtype=torch.bfloat16).train(0, 6)
    state = bench.model.state_dict()
    keys = [key for key in state if key.endswith(".threshold")]
    assert len(keys) >= 5
    assert all(state[key].dtype == torch.float32 and state[key].shape == (1,) for key in keys)
    assert sgd(bench.model).param_groups[0]["params"]
