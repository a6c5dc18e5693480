"""The bitmask kernel for few positions, and weights rounded to bfloat16, against torch in double precision."""

import copy
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn import functional as F

import thresher
from thresher.deploy.engine import compile, load_compiled
from thresher.deploy.engine.capturing.graph import Graph, Port, Step
from thresher.deploy.engine.library import ISAS, native
from thresher.deploy.engine.programs.program import Blocking, Program
from thresher.deploy.engine.programs.tuning import Tuner
from thresher.errors import InputError

pytestmark = pytest.mark.usefixtures("engine_library")

ACTIVATIONS = {"none": lambda x: x, "relu": F.relu, "silu": F.silu, "gelu": F.gelu}
QUICK = settings(max_examples=80, deadline=None, suppress_health_check=list(HealthCheck))


def isas() -> list[str]:
    handle = native().handle
    assert handle is not None
    return [isa for number, isa in enumerate(ISAS) if handle.thr_has_isa(number)]


def product(rows: int, columns: int, tokens: int, bias: Tensor | None, activation: str, residual: bool) -> Graph:
    graph = Graph()
    graph.inputs.append(Port(graph.blob(columns, 1, tokens), "tokens", (tokens, columns)))
    attributes = {"stride": (1, 1), "pad": (0, 0), "dilation": (1, 1), "groups": 1, "shape": (rows, columns, 1, 1)}
    step = Step("conv", [0], 0, bias=bias, activation=activation, attributes=attributes)
    if residual:
        step.residual = graph.blob(rows, 1, tokens)
        graph.inputs.append(Port(step.residual, "tokens", (tokens, rows)))
    step.write = graph.blob(rows, 1, tokens)
    graph.steps.append(step)
    graph.outputs.append(Port(step.write, "tokens", (tokens, rows)))
    return graph


def close(got: Tensor, right: Tensor) -> None:
    assert got.shape == right.shape
    assert float((got - right).abs().max()) <= 1e-5 * max(float(right.abs().max()), 1e-6)


@QUICK
@given(st.data())
def test_the_bitmask_product_is_torchs_for_any_size_and_any_zeros(data: st.DataObject) -> None:
    draw = data.draw
    rows, columns, tokens = (
        draw(st.integers(1, 70)),
        draw(st.integers(2, 300)),
        draw(st.sampled_from([1, 1, 2, 3, 4, 5])),
    )
    images, batch, threads = draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(1, 4)), draw(st.integers(1, 2))
    zeros, half = draw(st.sampled_from([0.0, 0.5, 0.8, 0.97, 1.0])), draw(st.booleans())
    activation, residual = draw(st.sampled_from(list(ACTIVATIONS))), draw(st.booleans())
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    weight = torch.randn(rows, columns, generator=generator)
    weight[torch.rand(weight.shape, generator=generator) < zeros] = 0
    weight[draw(st.integers(0, rows - 1))] = 0  # an empty row
    if half:
        weight = weight.bfloat16().float()
    bias = torch.randn(rows, generator=generator) if draw(st.booleans()) else None
    x = torch.randn(batch, tokens, columns, generator=generator)
    inputs = [x, torch.randn(batch, tokens, rows, generator=generator)] if residual else [x]
    graph = product(rows, columns, tokens, bias, activation, residual)
    flat = tokens == images == 1 and draw(st.booleans())
    program = Program(graph, images=images, isa=draw(st.sampled_from(isas())), flat=flat)
    program.pack(0, Blocking(kernel="bitmask", tile=draw(st.integers(1, 2))), weight[:, :, None, None])
    if half:
        assert program.value_bytes(0) == 2
    assert torch.equal(program.unpack(0).reshape(weight.shape), weight)
    right = F.linear(x.double(), weight.double(), None if bias is None else bias.double())
    right = ACTIVATIONS[activation](right + inputs[1].double() if residual else right)
    for _ in range(2):
        close(program.run(inputs, batch, threads=threads)[0], right)


@pytest.mark.parametrize("isa", ISAS)
def test_values_of_bfloat16_are_summed_in_float32(isa: str) -> None:
    if isa not in isas():
        pytest.skip("not on this processor")
    torch.manual_seed(0)
    weight = torch.randn(64, 5632).bfloat16().float()
    weight[torch.rand(weight.shape) < 0.5] = 0
    x = torch.randn(1, 1, 5632)
    program = Program(product(64, 5632, 1, None, "none", False), isa=isa)
    for tile in (1, 2):
        program.pack(0, Blocking(kernel="bitmask", tile=tile), weight[:, :, None, None])
        got = program.run([x], 1, threads=2)[0]
        close(got, x.double() @ weight.double().t())
    packed = program.packed_bytes()
    assert packed <= 64 * 5632 // 8 + 2 * int((weight != 0).sum()) + 8 * 65


def test_a_nan_weight_and_an_infinite_input_stay_what_they_are() -> None:
    weight = torch.zeros(3, 40)
    weight[0, 7], weight[1, 39], weight[2] = float("nan"), 2.0, 1.0
    program = Program(product(3, 40, 1, None, "none", False))
    program.pack(0, Blocking(kernel="bitmask"), weight[:, :, None, None])
    got = program.run([torch.ones(1, 1, 40)], 1, threads=1)[0].flatten()
    assert bool(got[0].isnan())
    assert got[1:].tolist() == [2.0, 40.0]
    x = torch.ones(1, 1, 40)
    x[0, 0, 3] = float("inf")
    assert torch.equal(program.run([x], 1, threads=1)[0].isfinite(), (x @ weight.t()).isfinite())


def test_layers_on_large_pages_are_right_too() -> None:
    torch.manual_seed(0)
    weight = torch.randn(301, 2050)
    weight[torch.rand(weight.shape) < 0.5] = 0  # more than a megabyte
    x = torch.randn(1, 1, 2050)
    for flat in (False, True):
        for _ in range(3):
            program = Program(product(301, 2050, 1, None, "none", False), flat=flat)
            program.pack(0, Blocking(kernel="bitmask"), weight[:, :, None, None])
            close(program.run([x], 1, threads=2)[0], x.double() @ weight.double().t())


def test_only_products_at_one_position_lie_flat() -> None:
    for graph, more in (
        (product(4, 8, 2, None, "none", False), {}),
        (product(4, 8, 1, None, "none", False), {"images": 2}),
        (product(4, 1, 1, None, "none", False), {}),
    ):
        with pytest.raises(InputError, match="flat"):
            Program(graph, flat=True, **more)


def test_the_kernel_refuses_what_it_cannot_run() -> None:
    many = Program(product(4, 8, 17, None, "none", False))
    assert not many.takes_masks(0)
    with pytest.raises(InputError, match="bitmask"):
        many.pack(0, Blocking(kernel="bitmask"), torch.randn(4, 8, 1, 1))
    assert not Program(product(4, 8, 9, None, "none", False), images=2).takes_masks(0)
    assert not Program(product(4, 8, 1, None, "none", False), lanes=16).takes_masks(0)
    assert Program(product(4, 8, 8, None, "none", False), images=2).takes_masks(0)


def test_the_tuner_times_it_against_the_others_and_keeps_the_fastest(monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[str] = []
    seconds = {"bitmask": 1.0, "block4": 3.0}

    def timed(self: Program, first: int, last: int, **_: object) -> float:
        seen.append(self.blockings[0].kernel)
        return seconds[seen[-1]]

    monkeypatch.setattr(Program, "time", timed)
    for sparse, winner in ((2.0, "bitmask"), (0.5, "sparse")):
        seconds["sparse"] = sparse
        program = Program(product(16, 64, 2, None, "none", False))
        weight = torch.randn(16, 64, 1, 1) * (torch.rand(16, 64, 1, 1) < 0.4)
        Tuner(limit=60.0).tune(program, {0: weight}, 1)
        assert {"bitmask", "sparse"} <= set(seen)
        assert program.blockings[0].kernel == winner
        close(program.unpack(0), weight.double())


def llama(hidden: int = 96, inner: int = 160) -> nn.Module:
    from transformers import LlamaConfig
    from transformers.models.llama.modeling_llama import LlamaMLP

    config = LlamaConfig(hidden_size=hidden, intermediate_size=inner, num_attention_heads=4, num_key_value_heads=2)
    torch.manual_seed(0)
    model = LlamaMLP(config).eval()
    for parameter in model.parameters():
        parameter.data[torch.rand(parameter.shape) < 0.8] = 0
    return model


def test_a_llama_mlp_decodes_with_rounded_weights_and_the_report_says_so(tmp_path: Path) -> None:
    model, x = llama(), torch.randn(1, 1, 96)
    before = copy.deepcopy(model.state_dict())
    fast = compile(model, x, threads=1, engines=("thresher",), values="bfloat16")
    report = fast.report()
    assert report.values == "bfloat16"
    assert "rounded to bfloat16" in str(report)
    assert report.error <= 1e-5
    right = copy.deepcopy(model)
    for parameter in right.parameters():
        parameter.data = parameter.data.bfloat16().float()
    for example in (x, torch.randn(1, 1, 96)):
        close(fast(example), right(example).detach().double())
    with torch.no_grad():
        apart = (right(x) - model(x)).abs().max() / model(x).abs().max()
    assert report.rounding == pytest.approx(float(apart), rel=1e-3)
    assert report.rounding > 1e-5
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    fast.save(tmp_path / "fast.safetensors")
    again = load_compiled(tmp_path / "fast.safetensors")
    assert torch.equal(again(x), fast(x))
    assert again.report().values == "bfloat16"
    assert again.report().rounding == report.rounding
    whole = compile(model, x, threads=1, engines=("thresher",))
    whole.save(tmp_path / "whole.safetensors")
    assert whole.report().values == "float32"
    assert (tmp_path / "fast.safetensors").stat().st_size < (tmp_path / "whole.safetensors").stat().st_size


def test_a_decoder_layer_of_transformers_runs_its_projections_in_the_engine() -> None:
    from transformers import LlamaConfig, LlamaModel

    config = LlamaConfig(
        hidden_size=64, intermediate_size=96, num_attention_heads=4, num_key_value_heads=2, num_hidden_layers=2,
        vocab_size=50,
    )  # fmt: skip
    torch.manual_seed(0)
    model = LlamaModel(config).eval()

    class Hidden(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = model

        def forward(self, x: Tensor) -> Tensor:
            return self.model(inputs_embeds=x, use_cache=False).last_hidden_state

    fast = thresher.compile(Hidden(), torch.randn(1, 1, 64), threads=1, engines=("thresher",), limit=0.5)
    names = {layer.name for layer in fast.report().layers if layer.zeros is not None}
    for part in ("q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"):
        assert sum(name.endswith(part) for name in names) == 2, (part, names)
    x = torch.randn(1, 1, 64)
    close(fast(x), Hidden()(x).detach().double())


def test_unknown_values_are_refused() -> None:
    with pytest.raises(InputError, match="values='int3'"):
        compile(nn.Linear(3, 3), torch.ones(1, 3), values="int3")


def test_a_file_that_asks_for_the_kernel_or_the_layout_where_they_cannot_run_is_refused(tmp_path: Path) -> None:
    from thresher.deploy.storage import load_state, save

    path = tmp_path / "fast.safetensors"
    model = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), nn.ReLU(), nn.Conv2d(8, 8, 1)).eval()
    compile(model, torch.randn(1, 3, 9, 9), threads=1, engines=("thresher",), limit=0.1).save(path)
    tensors, record = load_state(path)
    for change in ({"flat": [True]}, {"flat": [True, True]}, {"flat": 3}):
        save(tensors, tmp_path / "broken.safetensors", record={**record, **change})
        with pytest.raises(InputError):
            load_compiled(tmp_path / "broken.safetensors")
    for number in record["blockings"]:
        blocking = {**record["blockings"][number], "kernel": "bitmask"}
        changed = {**record, "blockings": {**record["blockings"], number: blocking}}
        save(tensors, tmp_path / "broken.safetensors", record=changed)
        with pytest.raises(InputError, match="bitmask"):
            load_compiled(tmp_path / "broken.safetensors")


def test_one_token_lies_flat_where_that_is_the_fastest_and_other_batches_still_work(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    import thresher.deploy.engine.compiling as module

    monkeypatch.setattr(module, "seconds_of", lambda call, *_: 1.0)  # the first way is kept: flat
    model = llama()
    fast = compile(model, torch.randn(1, 1, 96), threads=2, engines=("thresher",))
    assert "side by side" in fast.report().mode
    fast.save(tmp_path / "fast.safetensors")
    again = load_compiled(tmp_path / "fast.safetensors", threads=1)
    for batch in (1, 5):
        x = torch.randn(batch, 1, 96)
        close(fast(x), model(x).detach().double())
        assert torch.equal(again(x), fast(x))
