"""Views, transposes, concatenations, slices: mostly a new name for the same memory."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import fx

from thresher.deploy.engine.capturing.builder import Builder, UnsupportedError, Value


def _same(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    source = a["input"] if "input" in a else a["self"]
    held = b.env.get(source)
    if not isinstance(held, Value):
        raise UnsupportedError("a copy outside the engine")
    if node.meta["val"].dtype != torch.float32 or a.get("train"):
        raise UnsupportedError("a change of type, or dropout in training mode")
    return held


def _inside(b: Builder, source: Any) -> Value:
    """Views of torch tensors stay in torch, where they cost nothing."""
    if not isinstance(b.env.get(source), Value):
        raise UnsupportedError("a view of a tensor outside the engine")
    return b.value(source)


def _reshape(b: Builder, x: Value, c: int, h: int, w: int, form: str) -> Value:
    blob = b.blob(x)
    if (blob.c, blob.h, blob.w) == (c, h, w):
        return Value(x.blob, form)
    return Value(b.add("reshape", [x.blob], c, h, w), form)


def _view(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    x = _inside(b, a["self"])
    blob, shape, old = b.blob(x), tuple(node.meta["val"].shape), tuple(a["self"].meta["val"].shape)
    if shape == old:
        return x
    if shape[0] != b.batch:
        raise UnsupportedError("a view across the batch")
    new = shape[1:]
    if x.form in {"image", "sequence", "flat"}:
        if len(new) == 1:
            return _reshape(b, x, new[0], 1, 1, "flat")
        if len(new) == 2 and (x.form == "flat" or new[0] == blob.c):
            return _reshape(b, x, new[0], 1, new[1], "sequence")
        if len(new) == 3:
            return _reshape(b, x, *new, "image")
    if x.form == "tokens":
        if len(new) == 3 and new[0] == blob.w:
            return Value(x.blob, "bthd", new[1])
        if blob.w == 1 and len(new) == 1:
            return Value(x.blob, "flat")
    if x.form == "bthd" and new == (blob.w, blob.c):
        return Value(x.blob, "tokens")
    if x.form == "nhwc" and new == (blob.h * blob.w, blob.c):
        return _reshape(b, x, blob.c, 1, blob.h * blob.w, "tokens")
    raise UnsupportedError(f"a view of {x.form} {old} as {shape}")


_SWAPS = {
    ("sequence", (0, 2, 1)): "tokens",
    ("tokens", (0, 2, 1)): "sequence",
    ("bthd", (0, 2, 1, 3)): "bhtd",
    ("bhtd", (0, 2, 1, 3)): "bthd",
    ("image", (0, 2, 3, 1)): "nhwc",
    ("nhwc", (0, 3, 1, 2)): "image",
}


def _permute(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    x = _inside(b, a["self"])
    rank = node.meta["val"].ndim
    if "dims" in a:
        order = [d % rank for d in a["dims"]]
    else:
        order = list(range(rank))
        one, two = a["dim0"] % rank, a["dim1"] % rank
        order[one], order[two] = order[two], order[one]
    form = _SWAPS.get((x.form, tuple(order)))
    if form is None:
        raise UnsupportedError(f"a permutation {order} of {x.form}")
    return Value(x.blob, form, x.heads)


def _pad(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    x = b.value(a["self"], "image", "sequence", pad=True)
    pads = [*a["pad"], 0, 0, 0, 0][:4]
    if a.get("mode", "constant") != "constant" or a.get("value") not in (None, 0, 0.0):
        raise UnsupportedError("padding with anything but zeros")
    if any(a["pad"][4:]):
        if x.form != "image" or any(a["pad"][:4]) or any(x.pad) or len(a["pad"]) != 6 or min(a["pad"]) < 0:
            raise UnsupportedError("padding of channels and positions at once")
        return _pad_channels(b, x, a["pad"][4], a["pad"][5])
    if min(pads) < 0 or (x.form == "sequence" and any(pads[2:])):
        raise UnsupportedError("negative padding")
    left, right, top, bottom = (old + new for old, new in zip(x.pad, pads, strict=True))
    return Value(x.blob, x.form, pad=(left, right, top, bottom))


def _cat(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    sources = list(a["tensors"])
    known = [b.value(source) for source in sources if not b.is_constant(source)]
    if not known or len({x.form for x in known}) != 1:
        raise UnsupportedError("a concatenation of unlike tensors")
    form, rank = known[0].form, node.meta["val"].ndim
    dim = a.get("dim", 0) % rank
    if form == "tokens" and dim == 1:
        return _cat_tokens(b, sources)
    if dim != {"image": 1, "sequence": 1, "flat": 1, "tokens": 2, "nhwc": 3}.get(form) or len(known) != len(sources):
        raise UnsupportedError("a concatenation along this dimension")
    h, w = b.blob(known[0]).h, b.blob(known[0]).w
    out = b.graph.blob(sum(b.blob(x).c for x in known), h, w)
    first = 0
    ports = {port.blob for port in b.graph.inputs}
    for x in known:
        blob = b.blob(x)
        if blob.part_of is None and x.blob not in ports and blob.constant is None and b.graph.writer(x.blob):
            blob.part_of, blob.first = out, first  # written where it is wanted
        else:
            _copy(b, x.blob, out, (0, 0, 0), (first, 0, 0), (blob.c, h, w))
        first += blob.c
    return Value(out, form)


def _copy(b: Builder, x: int, y: int, at: tuple[int, ...], to: tuple[int, ...], size: tuple[int, ...]) -> None:
    from thresher.deploy.engine.capturing.graph import Step

    b.graph.steps.append(Step("copy", [x], y, attributes={"region": [*at, *to, *size]}))


def _cat_tokens(b: Builder, sources: list[Any]) -> Value:
    parts: list[int] = []
    for source in sources:
        if not b.is_constant(source):
            parts.append(b.value(source, "tokens").blob)
            continue
        tensor = b.constant(source)
        if not bool((tensor == tensor[:1]).all()):
            raise UnsupportedError("a constant that differs from picture to picture")
        table = tensor[0].detach().t()[:, None, :].contiguous()
        parts.append(b.graph.blob(*table.shape, constant=table))
    blobs = [b.graph.blobs[part] for part in parts]
    out = b.graph.blob(blobs[0].c, 1, sum(blob.w for blob in blobs))
    at = 0
    for part, blob in zip(parts, blobs, strict=True):
        _copy(b, part, out, (0, 0, 0), (0, 0, at), (blob.c, 1, blob.w))
        at += blob.w
    return Value(out, "tokens")


def _slice(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    strided = a.get("step", 1) != 1
    x = b.value(a["self"], "image") if strided else _inside(b, a["self"])
    blob, shape = b.blob(x), tuple(a["self"].meta["val"].shape)
    dim = a["dim"] % len(shape)
    if dim == 0 and "index" not in a and not strided and (a["start"] or 0, a["end"]) in {(0, None), (0, 2**63 - 1)}:
        return x
    if "index" in a:
        start, count = a["index"] % shape[dim], 1
    else:
        start, end, _ = slice(a["start"], a["end"]).indices(shape[dim])
        count = end - start
        if a.get("step", 1) != 1:
            return _every(b, a["self"], x, dim, start, end, a["step"])
    if count == shape[dim] and "index" not in a:
        return x
    if x.form == "tokens" and dim == 1:
        out = b.graph.blob(blob.c, 1, count)
        _copy(b, x.blob, out, (0, 0, start), (0, 0, 0), (blob.c, 1, count))
        return Value(out, "flat" if "index" in a else "tokens")
    channel = {"image": 1, "sequence": 1, "flat": 1, "tokens": 2, "nhwc": 3}.get(x.form)
    if dim != channel or "index" in a or count < 1:
        raise UnsupportedError(f"a slice of {x.form} along dimension {dim}")
    out = b.graph.blob(count, blob.h, blob.w)
    _copy(b, x.blob, out, (start, 0, 0), (0, 0, 0), (count, blob.h, blob.w))
    return Value(out, x.form)


def _every(b: Builder, source: Any, x: Value, dim: int, start: int, end: int, step: int) -> Value:
    """Every step-th row or column of an image; rows and columns together in one pass."""
    blob = b.blob(x)
    if x.form != "image" or dim < 2 or start >= step or end != (blob.h, blob.w)[dim - 2]:
        raise UnsupportedError("a slice with steps that leaves out the end, or not along rows or columns")
    before = b.fusable(source, x, lambda s: s.kind == "phases" and s.attributes["stride"][dim - 2] == 1)
    if before is not None and dim == 3:
        before.attributes["stride"] = (before.attributes["stride"][0], step)
        blob.w, blob.phases = -(-(blob.w - start) // step), [(blob.phases[0][0], start)]
        return x
    stride, phase = ((step, 1), (start, 0)) if dim == 2 else ((1, step), (0, start))
    h, w = -(-(blob.h - phase[0]) // stride[0]), -(-(blob.w - phase[1]) // stride[1])
    out = b.add("phases", [x.blob], blob.c, h, w, attributes={"stride": stride, "sliced": True})
    b.graph.blobs[out].phases = [phase]
    return Value(out, "image")


def _pad_channels(b: Builder, x: Value, before: int, after: int) -> Value:
    """Zero channels around those of x: memory of its own that starts as zeros, in which x is written."""
    blob = b.blob(x)
    zeros = torch.zeros(before + blob.c + after, blob.h, blob.w)
    out = b.graph.blob(*zeros.shape, constant=zeros)
    ports = {port.blob for port in b.graph.inputs}
    if blob.part_of is None and blob.constant is None and x.blob not in ports and b.graph.writer(x.blob):
        blob.part_of, blob.first = out, before
    else:
        _copy(b, x.blob, out, (0, 0, 0), (before, 0, 0), (blob.c, blob.h, blob.w))
    return Value(out, x.form)


_SAME = (
    "dropout",
    "dropout_",
    "feature_dropout",
    "contiguous",
    "clone",
    "alias",
    "detach",
    "to",
    "_to_copy",
    "identity",
    "lift_fresh_copy",
)
_VIEWS = ("view", "reshape", "_unsafe_view", "flatten", "unflatten", "squeeze", "unsqueeze")
RULES = {f"aten.{name}": _same for name in _SAME}
RULES |= {f"aten.{name}": _view for name in _VIEWS}
RULES |= {"aten.permute": _permute, "aten.transpose": _permute, "aten.pad": _pad, "aten.constant_pad_nd": _pad}
RULES |= {"aten.cat": _cat, "aten.slice": _slice, "aten.select": _slice}
