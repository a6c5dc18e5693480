"""The contract suite, second part: every method beside the rest of torch (precision, compilers, optimizers, export)."""

import copy
import io
import math
from typing import Any

import pytest
import torch
from method_bench import GRADUAL, NAMES, SOFT, STEPS, Bench, batch, network, sgd, zeros_of
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import CosineAnnealingWarmRestarts, LambdaLR, LRScheduler, SequentialLR

import thresher
from thresher.errors import InputError

every = pytest.mark.parametrize("name", NAMES)


def assert_exact(bench: Bench, share: float = 0.9) -> None:
    bench.finish()
    zeros, entries = zeros_of(bench.pruner)
    assert zeros == int(share * entries)
    assert torch.isfinite(bench.output().float()).all()


@every
def test_autocast_trains_float32_weights_to_the_exact_budget(name: str) -> None:
    bench = Bench(name)
    for step in range(STEPS):
        bench.optimizer.zero_grad()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = bench.loss(step)
        loss.backward()
        bench.optimizer.step()
    assert all(parameter.dtype == torch.float32 for parameter in bench.model.parameters())
    assert_exact(bench)


@every
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_a_model_of_any_precision_keeps_it_and_ends_exactly(name: str, dtype: torch.dtype) -> None:
    bench = Bench(name, dtype=dtype).train()
    assert_exact(bench)
    assert {parameter.dtype for parameter in bench.model.parameters()} == {dtype}


@pytest.mark.parametrize("name", SOFT)
def test_thresholds_keep_their_precision_when_the_model_is_cast(name: str) -> None:
    bench = Bench(name).train(0, 1)
    shells = [module.parametrizations.weight[0] for module in bench.model if hasattr(module, "parametrizations")]
    before = [shell.threshold.clone() for shell in shells]
    bench.model.to(torch.bfloat16)
    assert all(shell.threshold.dtype == torch.float32 for shell in shells)
    assert all(torch.equal(shell.threshold, old) for shell, old in zip(shells, before, strict=True))
    assert any(float(old) != float(old.bfloat16()) for old in before)


def tiny(optimizer: Optimizer) -> Optimizer:
    for group in optimizer.param_groups:
        group["lr"] = 1e-6
    return optimizer


@pytest.mark.parametrize("name", SOFT)
def test_in_half_precision_what_is_kept_does_not_underflow(name: str) -> None:
    bench = Bench(name, "sparsity=30%", optimizer_of=lambda model: tiny(sgd(model)))
    with torch.no_grad():
        for parameter in bench.model.parameters():
            parameter.mul_(1e-3)  # many weights are subnormal in float16
    bench.model.half()
    bench.finish()
    zeros, entries = zeros_of(bench.pruner)
    assert zeros == int(0.3 * entries)


OPTIMIZERS = {
    "plain": sgd,
    "fused": lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, fused=True),
    "fused adam": lambda model: torch.optim.AdamW(model.parameters(), lr=1e-3, fused=True),
}


@every
@pytest.mark.parametrize("kind", OPTIMIZERS)
def test_a_step_that_the_scaler_skips_moves_nothing(name: str, kind: str) -> None:
    bench = Bench(name, optimizer_of=OPTIMIZERS[kind])
    scaler = torch.amp.GradScaler("cpu", init_scale=8.0)

    def step(number: int, factor: float) -> None:
        bench.optimizer.zero_grad()
        scaler.scale(bench.loss(number) * factor).backward()
        scaler.step(bench.optimizer)
        scaler.update()

    for number in range(4):
        step(number, 1.0)
    steps, thresholds = bench.pruner.step, bench.pruner.process.thresholds()
    weights = copy.deepcopy(dict(bench.model.named_parameters()))
    trace = bench.pruner.trace.state_dict()
    step(4, math.inf)
    assert (bench.pruner.step, bench.pruner.process.thresholds()) == (steps, thresholds) == (4, thresholds)
    assert bench.pruner.trace.state_dict() == trace
    assert all(torch.equal(value, weights[key]) for key, value in bench.model.named_parameters())
    step(4, 1.0)
    assert bench.pruner.step == 5
    if name in SOFT and name != "lats-init":  # that one has settled by now
        assert bench.pruner.process.thresholds() > thresholds
    for number in range(5, STEPS):
        step(number, 1.0)
    assert_exact(bench)


@every
def test_the_model_compiles_into_one_graph_and_trains_the_same(name: str) -> None:
    torch.compiler.reset()
    eager, compiled = Bench(name), Bench(name)
    forward: Any = torch.compile(compiled.model, backend="eager", fullgraph=True)
    eager.train()
    compiled.train(forward=forward)
    assert compiled.pruner.positions == eager.pruner.positions
    assert eager.finish() == compiled.finish()
    for key, value in eager.model.state_dict().items():
        torch.testing.assert_close(compiled.model.state_dict()[key], value)
    forward.eval()
    assert torch.equal(forward(batch(99)[0]), compiled.output())


def test_a_compiled_model_is_pruned_under_its_own_names() -> None:
    model = network()
    compiled = torch.compile(model, backend="eager")
    pruner = thresher.prune(compiled, sgd(model), "lats", "sparsity=90%", steps=STEPS)
    assert pruner.targets[0].name == "0.weight"


def test_inductor_compiles_the_soft_threshold_whole() -> None:
    torch.compiler.reset()
    torch.manual_seed(0)
    model = nn.Linear(8, 4)
    twin = copy.deepcopy(model)
    losses = []
    for net, backend in ((model, "eager"), (twin, "inductor")):
        optimizer = torch.optim.SGD(net.parameters(), lr=0.1)
        pruner = thresher.prune(net, optimizer, thresher.Lats(threshold=0.1), steps=6, example=torch.zeros(1, 8))
        forward = torch.compile(net, backend=backend, fullgraph=True)
        for step in range(6):
            inputs = torch.randn(16, 8, generator=torch.Generator().manual_seed(step))
            optimizer.zero_grad()
            loss = forward(inputs).square().mean()
            loss.backward()
            optimizer.step()
        losses.append(float(loss.detach()))
        assert pruner.finish().zeros > 0
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)
    torch.testing.assert_close(model.weight, twin.weight)


@every
def test_a_finished_model_exports(name: str) -> None:
    bench = Bench(name).train()
    bench.finish()
    bench.model.eval()
    inputs = batch(99)[0]
    program = torch.export.export(bench.model, (inputs,))
    torch.testing.assert_close(program.module()(inputs), bench.model(inputs))
    stored = {key: int((value == 0).sum()) for key, value in program.state_dict.items()}
    assert stored["9.weight"] == int((bench.model[9].weight == 0).sum()) > 0


def test_a_finished_model_goes_to_onnx_with_its_zeros() -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    numpy_helper = pytest.importorskip("onnx.numpy_helper")
    bench = Bench("lats", more={"rules": ["exclude:[036]"]}).train()
    bench.finish()
    buffer = io.BytesIO()
    torch.onnx.export(bench.model.eval(), (batch(99)[0],), buffer, dynamo=True, verbose=False)
    graph = onnx.load_from_string(buffer.getvalue()).graph
    zeros = {item.name: int((numpy_helper.to_array(item) == 0).sum()) for item in graph.initializer}
    assert zeros["13.weight"] == int((bench.model[13].weight == 0).sum()) > 0


def grouped(model: nn.Module) -> Optimizer:
    slow, fast = list(model[:6].parameters()), list(model[6:].parameters())
    return torch.optim.SGD([{"params": slow, "lr": 0.01}, {"params": fast, "lr": 0.05}], momentum=0.9)


@every
@pytest.mark.parametrize(
    "optimizer_of",
    [
        lambda model: torch.optim.Adam(model.parameters(), lr=1e-2),
        lambda model: torch.optim.AdamW(model.parameters(), lr=1e-2, amsgrad=True),
        lambda model: torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9, nesterov=True),
        lambda model: torch.optim.RMSprop(model.parameters(), lr=1e-3),
        grouped,
    ],
    ids=["adam", "adamw", "nesterov", "rmsprop", "groups"],
)
def test_any_optimizer_ends_exactly(name: str, optimizer_of: Any) -> None:
    assert_exact(Bench(name, optimizer_of=optimizer_of).train())


@pytest.mark.parametrize("name", [name for name in SOFT if name != "lats-init"])
def test_thresholds_of_parameter_groups_travel_with_their_learning_rates(name: str) -> None:
    bench = Bench(name, optimizer_of=grouped).train(0, 5)
    slow, *_, fast = bench.pruner.process.thresholds()
    assert slow == pytest.approx(fast / 5, rel=1e-9)
    assert slow > 0


def warm_up(optimizer: Optimizer) -> LRScheduler:
    return LambdaLR(optimizer, lambda step: min(step / 4, 1.0))


def restarts(optimizer: Optimizer) -> LRScheduler:
    return CosineAnnealingWarmRestarts(optimizer, T_0=5)


def both(optimizer: Optimizer) -> LRScheduler:
    return SequentialLR(optimizer, [warm_up(optimizer), restarts(optimizer)], milestones=[4])


@every
@pytest.mark.parametrize("make", [warm_up, restarts, both], ids=lambda make: make.__name__)
@pytest.mark.parametrize("told", [True, False], ids=["told", "untold"])
def test_warm_up_and_restarts_end_exactly_and_no_threshold_falls(name: str, make: Any, told: bool) -> None:
    schedulers: list[LRScheduler] = []

    def optimizer_of(model: nn.Module) -> Optimizer:
        optimizer = sgd(model)
        schedulers.append(make(optimizer))
        return optimizer

    model = network()
    optimizer = optimizer_of(model)
    more = {"lr_schedule": schedulers[0]} if told else {}
    pruner = thresher.prune(model, optimizer, name, "sparsity=90%", steps=STEPS, **more)
    last = [0.0] * len(pruner.targets)
    for step in range(STEPS):
        optimizer.zero_grad()
        inputs, labels = batch(step)
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        schedulers[0].step()
        now = pruner.process.thresholds()
        assert all(math.isfinite(value) for value in now)
        if name in SOFT:
            assert all(new >= old for new, old in zip(now, last, strict=True))
        last = now
    pruner.finish()
    zeros, entries = zeros_of(pruner)
    assert zeros == int(0.9 * entries)


def test_a_scheduler_that_needs_a_metric_is_refused_as_a_forecast() -> None:
    model = network()
    optimizer = sgd(model)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(optimizer)
    with pytest.raises(InputError, match="ReduceLROnPlateau"):
        thresher.prune(model, optimizer, "lats", "sparsity=90%", steps=5, lr_schedule=scheduler)


@pytest.mark.parametrize("name", GRADUAL)
def test_a_late_start_trains_densely_until_then(name: str) -> None:
    plain = network()
    optimizer = sgd(plain)
    for step in range(4):
        optimizer.zero_grad()
        nn.functional.cross_entropy(plain(batch(step)[0]), batch(step)[1]).backward()
        optimizer.step()
    bench = Bench(name, more={"start": 4}).train(0, 4)
    for key, value in plain.named_parameters():
        where = key.replace(".weight", ".parametrizations.weight.original")
        found = dict(bench.model.named_parameters())
        assert torch.equal(found.get(where, found.get(key)), value), key
    assert torch.equal(bench.output(), plain.eval()(batch(99)[0]))
    assert_exact(bench.train(4))


@pytest.mark.parametrize("name", GRADUAL)
def test_gradients_accumulate_over_several_passes(name: str) -> None:
    bench = Bench(name)
    for step in range(STEPS):
        bench.optimizer.zero_grad()
        for part in range(2):
            bench.loss(2 * step + part).backward()
        bench.optimizer.step()
    assert bench.pruner.positions["3.weight"] == 16.0
    assert_exact(bench)


def test_a_weight_that_becomes_nan_stops_the_finish_and_leaves_the_run_open() -> None:
    bench = Bench("gmp").train()
    target: Tensor = bench.model[9].parametrizations.weight.original
    good = target.detach().clone()
    with torch.no_grad():
        target[0, 0] = math.nan
    with pytest.raises(thresher.NumericsError):
        bench.finish()
    with torch.no_grad():
        target.copy_(good)
    assert_exact(bench)
