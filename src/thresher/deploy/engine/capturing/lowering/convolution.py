"""Convolutions, linear layers, batch norm."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from thresher.deploy.engine.capturing.builder import Builder, UnsupportedError, Value
from thresher.deploy.engine.programs.layout import taps


def convolve(
    b: Builder, node: fx.Node, x: Value, weight: Tensor, bias: Tensor | None, form: str, **geometry: Any
) -> Value:
    """Appends weight (rows, channels of a group, kh, kw) times x; strided ones read from phases of x."""
    source = b.blob(x)
    (sh, sw), (dh, dw) = geometry["stride"], geometry["dilation"]
    left, right, top, bottom = geometry["pad"]
    kh, kw = weight.shape[2:]
    h = (source.h + top + bottom - dh * (kh - 1) - 1) // sh + 1
    w = (source.w + left + right - dw * (kw - 1) - 1) // sw + 1
    if min(h, w) < 1:
        raise UnsupportedError("an empty output")
    attributes = {
        "stride": (sh, sw),
        "pad": (top, left),
        "dilation": (dh, dw),
        "groups": geometry["groups"],
        "shape": tuple(weight.shape),
    }
    weight = weight.detach().float()
    read = x.blob
    out = b.add(
        "conv", [read], weight.shape[0], h, w, name=name_of(node), weight=weight, bias=bias, attributes=attributes
    )
    if (sh, sw) != (1, 1):
        step = b.graph.steps.pop()
        step.reads = [phases(b, x, (sh, sw), {tap[:2] for tap in taps(step)})]
        b.graph.steps.append(step)
    return Value(out, form)


def phases(b: Builder, x: Value, stride: tuple[int, int], wanted: set[tuple[int, int]]) -> int:
    """The blob that holds the wanted remainders of x modulo `stride`; one that is there already gets what it lacks."""
    source = b.blob(x)
    for step in b.graph.steps:
        same = step.reads == [x.blob] and step.attributes.get("stride") == stride
        if step.kind == "phases" and same and "sliced" not in step.attributes:
            blob = b.graph.blobs[step.write]
            break
    else:
        out = b.add(
            "phases", [x.blob], 0, -(-source.h // stride[0]), -(-source.w // stride[1]), attributes={"stride": stride}
        )
        step, blob = b.graph.steps[-1], b.graph.blobs[out]
    blob.phases = sorted({*blob.phases, *wanted})
    blob.c = source.c * len(blob.phases)
    return step.write


def name_of(node: fx.Node) -> str:
    """The module that the call came from, e.g. "layer1.0.conv1"; else the node's name."""
    stack = node.meta.get("nn_module_stack") or {}
    last = next(reversed(list(stack.values())), None)
    path = last[0] if isinstance(last, tuple) else last
    path = str(path or "").removeprefix("L['self'].").removeprefix("self.").removeprefix("L__self___")
    return path or node.name


def _pair(value: Any) -> tuple[int, int]:
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    return (items[0], items[-1])


def _conv(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    weight, bias = b.constant(a["weight"]), b.constant(a["bias"])
    form = "image" if weight.ndim == 4 else "sequence"
    x = b.value(a["input"], form, pad=True)
    stride, dilation, padding = _pair(a["stride"]), _pair(a["dilation"]), a["padding"]
    kernel = tuple(weight.shape[2:])
    if weight.ndim == 3:
        weight = weight.unsqueeze(2)
        stride, dilation = (1, stride[1]), (1, dilation[1])
    if isinstance(padding, str):
        total = [d * (k - 1) if padding == "same" else 0 for d, k in zip(dilation[-len(kernel) :], kernel, strict=True)]
        pads = [(t // 2, t - t // 2) for t in total]
    else:
        pads = [(p, p) for p in _pair(padding)[-len(kernel) :]]
    (top, bottom), (left, right) = pads if len(kernel) == 2 else [(0, 0), pads[0]]
    pad = (left + x.pad[0], right + x.pad[1], top + x.pad[2], bottom + x.pad[3])
    return convolve(b, node, x, weight, bias, form, stride=stride, pad=pad, dilation=dilation, groups=a["groups"])


def _linear(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    weight, bias = b.constant(a["weight"]), b.constant(a["bias"])
    x = b.value(a["input"], "tokens", "flat", "nhwc")
    return _dense(b, node, x, weight, bias)


def _addmm(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    weight, bias = b.constant(a["mat2"]), b.constant(a["self"])
    if bias.ndim != 1 or a["beta"] != 1 or a["alpha"] != 1:
        raise UnsupportedError("addmm with factors")
    return _dense(b, node, b.value(a["mat1"], "flat"), weight.t(), bias)


def _dense(b: Builder, node: fx.Node, x: Value, weight: Tensor, bias: Tensor | None) -> Value:
    one = {"stride": (1, 1), "pad": (0, 0, 0, 0), "dilation": (1, 1), "groups": 1}
    return convolve(b, node, x, weight.contiguous()[:, :, None, None], bias, x.form, **one)


def _batch_norm(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    if a.get("training"):
        raise UnsupportedError("batch norm in training mode")
    x = b.value(a["input"], "image", "sequence", "flat")
    mean, variance = b.constant(a["running_mean"]), b.constant(a["running_var"])
    if mean is None:
        raise UnsupportedError("batch norm without running statistics")
    scale = torch.rsqrt(variance.double() + a["eps"])
    scale = scale * b.constant(a["weight"]).double() if a["weight"] is not None else scale
    shift = -mean.double() * scale
    shift = shift + b.constant(a["bias"]).double() if a["bias"] is not None else shift
    return affine(b, a["input"], x, scale, shift)


def affine(b: Builder, source: Any, x: Value, scale: Tensor, shift: Tensor) -> Value:
    """x scale + shift for each channel: into the convolution before it, where nothing comes between."""
    step = b.fusable(source, x, lambda s: s.kind == "conv" and s.activation == "none" and s.residual is None)
    if step is not None:
        assert step.weight is not None
        old = torch.zeros_like(shift) if step.bias is None else step.bias.detach().double()
        step.weight = (step.weight.double() * scale[:, None, None, None]).float()
        step.bias = (old * scale + shift).float()
        return Value(x.blob, x.form, x.heads)
    blob = b.blob(x)
    parts = {"scale": scale.float().numpy(), "shift": shift.float().numpy()}
    out = b.add("point", [x.blob], blob.c, blob.h, blob.w, attributes=parts)
    return Value(out, x.form, x.heads)


RULES = {
    "aten.conv2d": _conv,
    "aten.conv1d": _conv,
    "aten.linear": _linear,
    "aten.addmm": _addmm,
    "aten.batch_norm": _batch_norm,
    "aten._native_batch_norm_legit_no_training": _batch_norm,
}
