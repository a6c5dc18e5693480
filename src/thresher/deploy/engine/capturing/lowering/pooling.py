"""Pooling and means."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import fx

from thresher.deploy.engine.capturing.builder import Builder, UnsupportedError, Value


def _pair(value: Any) -> tuple[int, int]:
    items = list(value) if isinstance(value, (list, tuple)) else [value]
    return (items[0], items[-1])


def _pool(b: Builder, a: Mapping[str, Any], average: bool) -> Value:
    x = b.value(a["self"], "image")
    blob = b.blob(x)
    kernel = _pair(a["kernel_size"])
    stride, pad = _pair(a["stride"]) if a["stride"] else kernel, _pair(a["padding"])
    whole = kernel[0] >= blob.h and kernel[1] >= blob.w and pad == (0, 0)
    if average and whole and (a.get("ceil_mode") or kernel == (blob.h, blob.w)) and not a.get("divisor_override"):
        return _over_all(b, x, "image")
    if a.get("ceil_mode") or _pair(a.get("dilation", 1)) != (1, 1) or a.get("divisor_override"):
        raise UnsupportedError("pooling with ceil_mode, dilation or divisor_override")
    return window(b, x, kernel, stride, pad, average, bool(a.get("count_include_pad", True)), blob.h, blob.w)


def window(
    b: Builder, x: Value, kernel: tuple[int, int], stride: tuple[int, int], pad: tuple[int, int], average: bool,
    include: bool, rows: int, columns: int,
) -> Value:  # fmt: skip
    """Appends a pool of x."""
    h = (rows + 2 * pad[0] - kernel[0]) // stride[0] + 1
    w = (columns + 2 * pad[1] - kernel[1]) // stride[1] + 1
    if min(h, w) < 1:
        raise UnsupportedError("an empty output")
    numbers = [*kernel, *stride, *pad, int(average), int(include)]
    return Value(b.add("pool", [x.blob], b.blob(x).c, h, w, attributes={"window": numbers}), "image")


def _max(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    return _pool(b, a, False)


def _average(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    return _pool(b, a, True)


def _adaptive(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    x = b.value(a["self"], "image")
    blob, (h, w) = b.blob(x), _pair(a["output_size"])
    if (h, w) == (1, 1):
        return _over_all(b, x, "image")
    if blob.h % h or blob.w % w:
        raise UnsupportedError("adaptive pooling into unequal windows")
    kernel = (blob.h // h, blob.w // w)
    return window(b, x, kernel, kernel, (0, 0), True, True, blob.h, blob.w)


def _over_all(b: Builder, x: Value, form: str) -> Value:
    return Value(b.add("mean", [x.blob], b.blob(x).c), form)


def _mean(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    x = b.value(a["self"], "image", "tokens", "sequence", "nhwc")
    dims = {"image": {2, 3}, "tokens": {1}, "sequence": {2}, "nhwc": {1, 2}}[x.form]
    rank = 4 if x.form in {"image", "nhwc"} else 3
    if {d % rank for d in a["dim"] or []} != dims:
        raise UnsupportedError("a mean over these dimensions")
    return _over_all(b, x, x.form if a["keepdim"] else "flat")


RULES = {
    "aten.max_pool2d": _max,
    "aten.avg_pool2d": _average,
    "aten.adaptive_avg_pool2d": _adaptive,
    "aten.mean": _mean,
}
