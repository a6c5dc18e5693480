"""The contract suite: every method under torch.compile, torch.export and ONNX."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from method_bench import NAMES, STEPS, Bench, batch, network, sgd
from torch import nn

import thresher

every = pytest.mark.parametrize("name", NAMES)


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


def test_a_finished_model_goes_to_onnx_with_its_zeros(tmp_path: Path) -> None:
    onnx = pytest.importorskip("onnx")
    pytest.importorskip("onnxscript")
    numpy_helper = pytest.importorskip("onnx.numpy_helper")
    bench = Bench("lats", more={"rules": ["exclude:[036]"]}).train()
    bench.finish()
    torch.onnx.export(bench.model.eval(), (batch(99)[0],), tmp_path / "net.onnx", dynamo=True, verbose=False)
    graph = onnx.load(tmp_path / "net.onnx").graph
    zeros = {item.name: int((numpy_helper.to_array(item) == 0).sum()) for item in graph.initializer}
    assert zeros["13.weight"] == int((bench.model[13].weight == 0).sum()) > 0
