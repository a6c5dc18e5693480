"""Every kernel, on every instruction set that is here, against torch in double precision."""

from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor, fx
from torch.nn import functional as F

from thresher.deploy.engine.capturing.builder import Builder, Value
from thresher.deploy.engine.capturing.graph import Graph, Port, Step
from thresher.deploy.engine.capturing.lowering.convolution import convolve
from thresher.deploy.engine.library import ISAS, native
from thresher.deploy.engine.programs.program import Blocking, Program

pytestmark = pytest.mark.usefixtures("engine_library")

QUICK = settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))


def isas() -> list[str]:
    handle = native().handle
    assert handle is not None
    return [isa for number, isa in enumerate(ISAS) if handle.thr_has_isa(number)]


def single(c: int, h: int, w: int, step: Step, out: tuple[int, int, int], reads: int = 1) -> Graph:
    """A graph of one step, blobs 0.. its inputs."""
    graph = Graph()
    for _ in range(reads):
        graph.inputs.append(Port(graph.blob(c, h, w), "image", (c, h, w)))
    step.reads, step.write = list(range(reads)), graph.blob(*out)
    graph.steps.append(step)
    graph.outputs.append(Port(step.write, "image", out))
    return graph


def convolution(x: Tensor, weight: Tensor, bias: Tensor | None, residual: bool, **geometry: Any) -> Graph:
    builder = Builder(x.shape[0])
    c, h, w = x.shape[1:]
    source = builder.graph.blob(c, h, w)
    builder.graph.inputs.append(Port(source, "image", (c, h, w)))
    value = convolve(builder, fx.Graph().placeholder("x"), Value(source, "image"), weight, bias, "image", **geometry)
    blob = builder.blob(value)
    out = (blob.c, blob.h, blob.w)
    if residual:
        other = builder.graph.blob(*out)
        builder.graph.inputs.append(Port(other, "image", out))
        builder.graph.steps[-1].residual = other
    builder.graph.outputs.append(Port(value.blob, "image", out))
    return builder.graph


def close(got: Tensor, right: Tensor) -> None:
    assert got.shape == right.shape
    largest = float(right.abs().max()) if right.numel() else 0.0
    assert float((got - right).abs().max()) <= 1e-5 * max(largest, 1e-6)


@QUICK
@given(st.data())
def test_a_convolution_is_torchs_for_any_geometry(data: st.DataObject) -> None:
    draw = data.draw
    groups = draw(st.sampled_from([1, 1, 2, 4]))
    channels, rows = groups * draw(st.integers(1, 9)), groups * draw(st.integers(1, 9))
    kh, kw = draw(st.integers(1, 5)), draw(st.integers(1, 5))
    stride = (draw(st.integers(1, 3)), draw(st.integers(1, 3)))
    dilation = (draw(st.integers(1, 2)), draw(st.integers(1, 2)))
    pad = tuple(draw(st.integers(0, 3)) for _ in range(4))  # left, right, top, bottom
    h = draw(st.integers(max(1, dilation[0] * (kh - 1) + 1 - pad[2] - pad[3]), 20))
    w = draw(st.integers(max(1, dilation[1] * (kw - 1) + 1 - pad[0] - pad[1]), 40))
    batch, threads = draw(st.sampled_from([1, 2, 5, 17, 33])), draw(st.integers(1, 2))
    sparsity = draw(st.sampled_from([0.0, 0.5, 0.9, 1.0]))
    kernel = "sparse" if groups > 1 and rows // groups % 4 else draw(st.sampled_from(["sparse", "block4"]))
    images, lanes = draw(st.sampled_from([(1, 1), (3, 1), (1, 16)]))
    residual = draw(st.booleans())
    blocking = Blocking(
        kernel=kernel,
        tile=draw(st.integers(1, 15)),
        channels=draw(st.integers(0, 5)),
        rows=draw(st.sampled_from([0, 1, 4])),
        tiles=draw(st.sampled_from([0, 1, 2])),
        split=draw(st.sampled_from(["positions", "rows"])),
    )
    generator = torch.Generator().manual_seed(draw(st.integers(0, 1000)))
    x = torch.randn(batch, channels, h, w, generator=generator)
    weight = torch.randn(rows, channels // groups, kh, kw, generator=generator)
    weight[torch.rand(weight.shape, generator=generator) < sparsity] = 0
    weight[draw(st.integers(0, rows - 1))] = 0  # an empty row
    bias = torch.randn(rows, generator=generator) if draw(st.booleans()) else None
    graph = convolution(x, weight, bias, residual, stride=stride, pad=pad, dilation=dilation, groups=groups)
    program = Program(graph, images=images, lanes=lanes, isa=draw(st.sampled_from(isas())))
    number = len(graph.steps) - 1
    program.pack(number, blocking, weight)
    padded = F.pad(x, pad).double()
    right = F.conv2d(padded, weight.double(), None if bias is None else bias.double(), stride, 0, dilation, groups)
    inputs = [x]
    if residual:
        inputs.append(torch.randn(right.shape, generator=generator))
        right = right + inputs[1]
    for spread in (False, True):
        close(program.run(inputs, batch, threads=threads, spread=spread)[0], right)
    assert torch.equal(program.unpack(number), weight)


@pytest.mark.parametrize("isa", ISAS)
def test_offsets_take_two_bytes_where_a_block_of_channels_spans_65536_floats_and_four_beyond(isa: str) -> None:
    if isa not in isas():
        pytest.skip("not on this processor")
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 40, 48, 48, generator=generator)
    weight = torch.randn(8, 40, 3, 3, generator=generator)
    weight[torch.rand(weight.shape, generator=generator) < 0.7] = 0
    graph = convolution(x, weight, None, False, stride=(1, 1), pad=(1, 1, 1, 1), dilation=(1, 1), groups=1)
    right, nonzeros = F.conv2d(x.double(), weight.double(), padding=1), int((weight != 0).sum())
    program = Program(graph, isa=isa)
    for channels, each in ((0, 8), (24, 6), (30, 8), (3, 6), (0, 8)):  # some 2,400 floats a plane
        program.pack(len(graph.steps) - 1, Blocking(tile=4, channels=channels), weight)
        close(program.run([x], 1, threads=1)[0], right)
        assert torch.equal(program.unpack(len(graph.steps) - 1), weight)
        blocks = -(-40 // channels) if channels else 1
        starts = 4 * blocks * (8 + 1) + (4 * blocks if each == 6 else 0)
        assert program.packed_bytes() == each * nonzeros + starts


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("sparsity", [0.0, 0.8, 1.0])
def test_linear_layers_on_tokens_are_torchs(isa: str, sparsity: float) -> None:
    if isa not in isas():
        pytest.skip("not on this processor")
    torch.manual_seed(0)
    x, weight, bias = torch.randn(3, 21, 50), torch.randn(37, 50), torch.randn(37)
    weight[torch.rand(weight.shape) < sparsity] = 0
    graph = Graph()
    graph.inputs.append(Port(graph.blob(50, 1, 21), "tokens", (21, 50)))
    attributes = {"stride": (1, 1), "pad": (0, 0), "dilation": (1, 1), "groups": 1, "shape": (37, 50, 1, 1)}
    graph.steps.append(Step("conv", [0], graph.blob(37, 1, 21), bias=bias, attributes=attributes))
    graph.outputs.append(Port(1, "tokens", (21, 37)))
    for images, threads in ((1, 1), (3, 2), (2, 1)):
        program = Program(graph, images=images, isa=isa)
        for kernel in ("sparse", "block4"):
            program.pack(0, Blocking(kernel=kernel, tile=2), weight[:, :, None, None])
            close(program.run([x], 3, threads=threads)[0], F.linear(x.double(), weight.double(), bias.double()))


ACTIVATIONS = {
    "relu": F.relu,
    "clamp": F.relu6,
    "silu": F.silu,
    "gelu": F.gelu,
    "gelu_tanh": lambda x: F.gelu(x, approximate="tanh"),
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
}


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_activations_are_torchs_from_minus_90_to_90_and_keep_nan(name: str, isa: str) -> None:
    if isa not in isas():
        pytest.skip("not on this processor")
    x = torch.cat([torch.linspace(-90, 90, 181), torch.linspace(-6, 6, 161)]).reshape(1, 2, 9, 19)
    x[0, 0, 0, 0] = float("nan")
    step = Step("point", [], 0, activation=name, low=0.0, high=6.0)
    got = Program(single(2, 9, 19, step, (2, 9, 19)), isa=isa).run([x], 1, threads=1)[0]
    right = ACTIVATIONS[name](x.double())
    assert bool(got[0, 0, 0, 0].isnan()), "NaN must not turn into a number"
    got, right = got.nan_to_num(0.0), right.nan_to_num(0.0)
    assert float(((got - right).abs() / right.abs().clamp(min=1.0)).max()) < 2e-6


@pytest.mark.parametrize("lanes", [1, 16])
@pytest.mark.parametrize("average", [0, 1])
@pytest.mark.parametrize(
    ("kernel", "stride", "pad"), [((3, 3), (2, 2), (1, 1)), ((2, 3), (1, 2), (0, 1)), ((2, 2), (2, 2), (0, 0))]
)
def test_pooling_is_torchs_pads_included(
    kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int], average: int, lanes: int
) -> None:
    x = torch.randn(5, 3, 13, 11) - 3
    x[0, 0, 4, 4] = float("nan")
    for include in (True, False) if average else (True,):
        right = (
            F.avg_pool2d(x, kernel, stride, pad, count_include_pad=include)
            if average
            else F.max_pool2d(x, kernel, stride, pad)
        )
        step = Step("pool", [], 0, attributes={"window": [*kernel, *stride, *pad, average, int(include)]})
        program = Program(single(3, 13, 11, step, tuple(right.shape[1:])), images=1 if lanes > 1 else 2, lanes=lanes)
        got = program.run([x], 5, threads=2)[0]
        assert torch.allclose(got, right, atol=1e-6, equal_nan=True)


@pytest.mark.parametrize("isa", ISAS)
@pytest.mark.parametrize("width", [1, 7, 16, 31, 33, 64, 75])
def test_strided_rows_of_any_width_are_read_to_their_end(width: int, isa: str) -> None:
    if isa not in isas():
        pytest.skip("not on this processor")
    x = torch.randn(2, 3, 5, width)
    right = F.max_pool2d(x, 3, 2, 1)
    step = Step("pool", [], 0, attributes={"window": [3, 3, 2, 2, 1, 1, 0, 0]})
    assert torch.equal(
        Program(single(3, 5, width, step, tuple(right.shape[1:])), isa=isa).run([x], 2, threads=1)[0], right
    )
    weight = torch.randn(4, 3, 1, 1)
    graph = convolution(x, weight, None, False, stride=(2, 2), pad=(0, 0, 0, 0), dilation=(1, 1), groups=1)
    program = Program(graph, isa=isa)
    program.pack(len(graph.steps) - 1, Blocking(), weight)
    close(program.run([x], 2, threads=1)[0], F.conv2d(x.double(), weight.double(), stride=2))


@pytest.mark.parametrize("images", [1, 3])
def test_attention_and_layer_norm_are_torchs(images: int) -> None:
    torch.manual_seed(0)
    heads, depth, queries, keys = 3, 8, 19, 23
    bias = torch.randn(queries, keys)
    graph = Graph()
    for n in (queries, keys, keys):
        graph.inputs.append(Port(graph.blob(heads * depth, 1, n), "tokens", (n, heads * depth)))
    out = graph.blob(heads * depth, 1, queries)
    attributes = {"heads": heads, "scale": 0.3, "bias": bias}
    graph.steps.append(Step("attention", [0, 1, 2], out, attributes=attributes))
    normed = graph.blob(heads * depth, 1, queries)
    weight, shift = torch.randn(heads * depth), torch.randn(heads * depth)
    graph.steps.append(Step("norm", [out], normed, weight=weight, bias=shift, attributes={"epsilon": 1e-5}))
    graph.outputs = [Port(blob, "tokens", (queries, heads * depth)) for blob in (out, normed)]
    q, k, v = (
        torch.randn(4, queries, heads * depth),
        torch.randn(4, keys, heads * depth),
        torch.randn(4, keys, heads * depth),
    )
    apart = [t.double().unflatten(2, (heads, depth)).transpose(1, 2) for t in (q, k, v)]
    right = F.scaled_dot_product_attention(*apart, attn_mask=bias.double(), scale=0.3).transpose(1, 2).flatten(2)
    for isa in isas():
        for threads in (1, 2):
            got, after = Program(graph, images=images, isa=isa).run([q, k, v], 4, threads=threads)
            close(got, right)
            close(after, F.layer_norm(right, (heads * depth,), weight.double(), shift.double()))
