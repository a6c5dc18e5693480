"""Softmax attention."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, fx

from thresher.deploy.engine.capturing.builder import Builder, UnsupportedError, Value


def _attention(b: Builder, node: fx.Node, a: Mapping[str, Any]) -> Value:
    q, k, v = (b.value(a[name], "bhtd") for name in ("query", "key", "value"))
    if a.get("dropout_p") or len({x.heads for x in (q, k, v)}) != 1 or b.blob(q).c != b.blob(v).c:
        raise UnsupportedError("attention with dropout or unequal heads")
    queries, keys = b.blob(q).w, b.blob(k).w
    bias = _bias(b.constant(a["attn_mask"]), queries, keys)
    if a.get("is_causal"):
        seen = torch.ones(queries, keys, dtype=torch.bool).tril()
        bias = _bias(seen, queries, keys)
    scale = a["scale"] if a.get("scale") is not None else 1 / math.sqrt(b.blob(q).c // q.heads)
    attributes = {"heads": q.heads, "scale": scale, "bias": bias}
    reads = [x.blob for x in (q, k, v)]
    return Value(b.add("attention", reads, b.blob(q).c, 1, queries, attributes=attributes), "bhtd", q.heads)


def _bias(mask: Tensor | None, queries: int, keys: int) -> Tensor | None:
    """What is added to the scores, (queries, keys); None when it is 0 everywhere."""
    if mask is None:
        return None
    if mask.ndim > 2 and not bool((mask == mask.reshape(-1, *mask.shape[-2:])[0]).all()):
        raise UnsupportedError("a mask that differs from head to head or picture to picture")
    mask = mask.reshape(-1, *mask.shape[-2:])[0].expand(queries, keys)
    if mask.dtype == torch.bool:
        mask = torch.zeros(queries, keys).masked_fill(~mask, -1e30)
    mask = mask.float().clamp(min=-1e30)
    if bool((mask <= -1e30).all(1).any()):
        raise UnsupportedError("a row that sees nothing")
    return None if not bool(mask.any()) else mask.contiguous()


RULES = {"aten.scaled_dot_product_attention": _attention}
