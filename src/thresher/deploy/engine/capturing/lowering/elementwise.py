"""Activations, sums and products, layer norm."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, fx

from thresher.deploy.engine.capturing.builder import Builder, UnsupportedError, Value
from thresher.deploy.engine.capturing.lowering.convolution import affine

Rule = Callable[[Builder, fx.Node, Mapping[str, Any]], Value]


def activate(b: Builder, source: Any, x: Value, name: str, low: float = 0.0, high: float = 0.0) -> Value:
    """The activation `name` of x: in the store of the step before it, where nothing comes between."""
    step = b.fusable(source, x, lambda s: s.kind in {"conv", "point"} and s.activation == "none")
    if step is None:
        blob = b.blob(x)
        out = b.add("point", [x.blob], blob.c, blob.h, blob.w)
        step, x = b.graph.steps[-1], Value(out, x.form, x.heads)
    step.activation, step.low, step.high = name, low, high
    return x


def _plain(name: str) -> Rule:
    return lambda b, node, a: activate(b, a["self"], b.value(a["self"]), name)


def _clamp(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    low = a.get("min_val", a.get("min"))
    high = a.get("max_val", a.get("max"))
    low, high = -math.inf if low is None else low, math.inf if high is None else high
    return activate(b, a["self"], b.value(a["self"]), "clamp", float(low), float(high))


def _gelu(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    return activate(b, a["self"], b.value(a["self"]), "gelu" if a["approximate"] == "none" else "gelu_tanh")


def _relu6(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    return activate(b, a["self"], b.value(a["self"]), "clamp", 0.0, 6.0)


def _add(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    return _sum(b, a["self"], a["other"], float(a.get("alpha", 1)))


def _sub(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    return _sum(b, a["self"], a["other"], -float(a.get("alpha", 1)))


def _sum(b: Builder, left: Any, right: Any, alpha: float) -> Value:
    if b.is_constant(right):
        return _shift(b, left, b.value(left), b.constant(right), 1.0, alpha)
    if b.is_constant(left):
        if alpha not in (1.0, -1.0):
            raise UnsupportedError("a constant minus a multiple")
        return _shift(b, right, b.value(right), b.constant(left), alpha, 1.0)
    if alpha != 1.0:
        raise UnsupportedError("a difference of two tensors")
    x, y = b.value(left), b.value(right)
    _check_equal(b, x, y)
    free = lambda s: s.kind == "conv" and s.activation == "none" and s.residual is None  # noqa: E731
    for source, value, other in ((left, x, y), (right, y, x)):
        step = b.fusable(source, value, free) if value.blob != other.blob else None
        if step is not None:
            b.graph.steps.remove(step)  # it runs when both are there; only this sum reads it
            b.graph.steps.append(step)
            step.residual = other.blob
            return value
    blob = b.blob(x)
    return Value(b.add("point", [x.blob, y.blob], blob.c, blob.h, blob.w), x.form, x.heads)


def _mul(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    left, right = a["self"], a["other"]
    if b.is_constant(right):
        return _factor(b, left, b.constant(right))
    if b.is_constant(left):
        return _factor(b, right, b.constant(left))
    x, y = b.value(left), b.value(right)
    if (b.blob(x).h, b.blob(x).w) == (1, 1) != (b.blob(y).h, b.blob(y).w):
        x, y = y, x
    blob, other = b.blob(x), b.blob(y)
    if x.form == y.form == "image" and (other.h, other.w) == (1, 1) and blob.c == other.c and blob.h * blob.w > 1:
        return Value(b.add("scale", [x.blob, y.blob], blob.c, blob.h, blob.w), x.form)
    _check_equal(b, x, y)
    out = b.add("point", [x.blob, y.blob], blob.c, blob.h, blob.w, attributes={"multiply": True})
    return Value(out, x.form, x.heads)


def _div(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    return _factor(b, a["self"], 1.0 / torch.as_tensor(b.constant(a["other"]), dtype=torch.float64))


def _check_equal(b: Builder, x: Value, y: Value) -> None:
    one, two = b.blob(x), b.blob(y)
    if (x.form, x.heads, one.c, one.h, one.w) != (y.form, y.heads, two.c, two.h, two.w):
        raise UnsupportedError("two tensors of different shapes")


def _channels(b: Builder, x: Value, number: Any) -> Tensor | None:
    """`number` as one value a channel, or None when it differs by position."""
    blob = b.blob(x)
    tensor = torch.as_tensor(number, dtype=torch.float64)
    if tensor.numel() == 1:
        return tensor.reshape(1).expand(blob.c)
    if x.form in {"tokens", "flat", "nhwc"} and tensor.numel() == tensor.shape[-1] == blob.c:
        return tensor.reshape(-1)
    spatial = {"image": 2, "sequence": 1}.get(x.form)
    if spatial is not None and tensor.ndim > spatial and tensor.numel() == tensor.shape[-spatial - 1] == blob.c:
        return tensor.reshape(-1)
    return None


def _shift(b: Builder, source: Any, x: Value, number: Any, factor: float, alpha: float) -> Value:
    shift = _channels(b, x, number)
    if shift is not None:
        return affine(b, source, x, torch.full_like(shift, factor), alpha * shift)
    blob, tensor = b.blob(x), torch.as_tensor(number).float()
    if x.form != "tokens" or tuple(tensor.shape[-2:]) != (blob.w, blob.c) or factor != 1.0:
        raise UnsupportedError("a constant tensor of this shape")
    if tensor.ndim == 3 and not bool((tensor == tensor[:1]).all()):
        raise UnsupportedError("a constant that differs from picture to picture")
    table = tensor.reshape(-1, blob.w, blob.c)[0].t()[:, None, :] * alpha
    held = b.graph.blob(blob.c, 1, blob.w, constant=table.contiguous())
    return Value(b.add("point", [x.blob, held], blob.c, blob.h, blob.w), x.form)


def _factor(b: Builder, source: Any, number: Any) -> Value:
    x = b.value(source)
    scale = _channels(b, x, number)
    if scale is None:
        raise UnsupportedError("a constant factor of this shape")
    return affine(b, source, x, scale, torch.zeros_like(scale))


def _layer_norm(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    x = b.value(a["input"], "tokens", "flat", "nhwc")
    blob = b.blob(x)
    if list(a["normalized_shape"]) != [blob.c]:
        raise UnsupportedError("layer norm over more than the last dimension")
    weight, bias = b.constant(a["weight"]), b.constant(a["bias"])
    weight = torch.ones(blob.c) if weight is None else weight.detach().float()
    bias = torch.zeros(blob.c) if bias is None else bias.detach().float()
    more = {"weight": weight, "bias": bias, "attributes": {"epsilon": a["eps"]}}
    return Value(b.add("norm", [x.blob], blob.c, blob.h, blob.w, **more), x.form)


_NAMES = ("relu", "silu", "hardswish", "hardsigmoid", "sigmoid", "tanh")
RULES: dict[str, Rule] = {f"aten.{name}{tail}": _plain(name) for name in _NAMES for tail in ("", "_")}
RULES |= {f"aten.{name}{tail}": _clamp for name in ("hardtanh", "clamp") for tail in ("", "_")}
RULES |= {
    f"aten.{name}{tail}": rule
    for name, rule in (("add", _add), ("sub", _sub), ("mul", _mul), ("div", _div))
    for tail in ("", "_")
}
RULES |= {"aten.relu6": _relu6, "aten.gelu": _gelu, "aten.gelu_": _gelu, "aten.layer_norm": _layer_norm}
