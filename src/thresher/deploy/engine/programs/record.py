"""Graphs as JSON and tensors, and the checks that make a foreign file harmless to the native code."""

from __future__ import annotations

import math
from dataclasses import asdict
from typing import Any

import numpy as np
import torch
from torch import Tensor

from thresher.deploy.engine.capturing.graph import ACTIVATIONS, Blob, Graph, Port, Step
from thresher.deploy.engine.programs.layout import taps
from thresher.deploy.engine.programs.program import KINDS
from thresher.errors import InputError

ARRAYS = ("scale", "shift", "bias")  # attributes that are numbers by channel or by position
FORMS = ("image", "sequence", "tokens", "flat", "nhwc")
LARGEST = 2**24


def graph_record(graph: Graph, weights: dict[int, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """JSON object and tensors of `graph`."""
    tensors: dict[str, Tensor] = {}
    blobs = []
    for number, blob in enumerate(graph.blobs):
        if blob.constant is not None:
            tensors[f"constant.{number}"] = blob.constant.detach().float().contiguous()
        blobs.append([blob.c, blob.h, blob.w, blob.part_of, blob.first, blob.phases, blob.constant is not None])
    steps = []
    for number, step in enumerate(graph.steps):
        attributes = {name: value for name, value in step.attributes.items() if name not in ARRAYS}
        held = {name: step.attributes[name] for name in ARRAYS if step.attributes.get(name) is not None}
        held |= {"bias": step.bias} if step.bias is not None else {}
        weight = weights.get(number, step.weight if step.kind != "conv" else None)
        held |= {"weight": weight} if weight is not None else {}
        tensors |= {
            f"step.{number}.{name}": _short(torch.as_tensor(np.asarray(value)).float()) for name, value in held.items()
        }
        steps.append(
            {
                "kind": step.kind,
                "reads": step.reads,
                "write": step.write,
                "name": step.name,
                "residual": step.residual,
                "activation": step.activation,
                "edges": [repr(float(step.low)), repr(float(step.high))],
                "attributes": attributes,
                "arrays": sorted(held),
            }
        )
    ports = {side: [asdict(port) for port in getattr(graph, side)] for side in ("inputs", "outputs")}
    return {"blobs": blobs, "steps": steps, **ports}, tensors


def _short(values: Tensor) -> Tensor:
    """A matrix in bfloat16 where that loses nothing: half the file."""
    short = values.bfloat16() if values.ndim > 1 else values
    return short if torch.equal(short.float(), values) else values


def graph_of(record: dict[str, Any], tensors: dict[str, Tensor]) -> Graph:
    """The graph of `graph_record`, checked.

    Errors: InputError for anything that the builder would not have made.
    """
    try:
        graph = Graph()
        for number, (c, h, w, part_of, first, phases, constant) in enumerate(record["blobs"]):
            held = tensors[f"constant.{number}"] if constant else None
            graph.blobs.append(Blob(c, h, w, part_of, first, held, [(int(y), int(x)) for y, x in phases]))
        for number, fields in enumerate(record["steps"]):
            arrays = {name: tensors[f"step.{number}.{name}"].float() for name in fields["arrays"]}
            attributes = {n: tuple(v) if isinstance(v, list) else v for n, v in fields["attributes"].items()}
            if fields["kind"] == "attention":
                attributes["bias"] = arrays.pop("bias", None)
            attributes |= {name: arrays[name].numpy() for name in ("scale", "shift") if name in arrays}
            low, high = (float(text) for text in fields["edges"])
            graph.steps.append(
                Step(
                    fields["kind"],
                    [int(n) for n in fields["reads"]],
                    int(fields["write"]),
                    str(fields["name"]),
                    arrays.get("weight"),
                    arrays.get("bias"),
                    fields["residual"],
                    fields["activation"],
                    low,
                    high,
                    attributes,
                )
            )
        graph.inputs = [Port(p["blob"], p["form"], tuple(p["shape"])) for p in record["inputs"]]
        graph.outputs = [Port(p["blob"], p["form"], tuple(p["shape"])) for p in record["outputs"]]
        check(graph)
    except (KeyError, TypeError, ValueError, IndexError, AttributeError, AssertionError, ZeroDivisionError) as error:
        raise InputError(
            f"a graph that does not hold together ({type(error).__name__}: {str(error)[:80]})",
            "a file that Compiled.save wrote",
            "compile and save again",
        ) from error
    return graph


def check(graph: Graph) -> None:
    """Raises ValueError unless every step's shapes follow from those of its inputs: native code checks nothing."""
    blobs = graph.blobs
    for number, blob in enumerate(blobs):
        _need(all(type(n) is int and 0 < n <= LARGEST for n in (blob.c, blob.h, blob.w)), f"blob {number}")
        _need(blob.constant is None or tuple(blob.constant.shape) == (blob.c, blob.h, blob.w), f"constant {number}")
        if blob.part_of is not None:
            whole = blobs[blob.part_of]
            inside = blob.first >= 0 and blob.first + blob.c <= whole.c
            _need(inside and (whole.h, whole.w) == (blob.h, blob.w), f"part {number}")
        seen, up = {number}, blob.part_of
        while up is not None:
            _need(up not in seen and 0 <= up < len(blobs), f"part {number}")
            seen.add(up)
            up = blobs[up].part_of
    for number, step in enumerate(graph.steps):
        numbers = [*step.sources(), step.write]
        _need(step.kind in KINDS[2:] and step.activation in ACTIVATIONS, f"step {number}")
        _need(all(type(n) is int and 0 <= n < len(blobs) for n in numbers) and bool(step.reads), f"step {number}")
        _check_step(graph, step, number)
    for port in [*graph.inputs, *graph.outputs]:
        _need(type(port.blob) is int and 0 <= port.blob < len(blobs) and port.form in FORMS, "a port")
        from thresher.deploy.engine.capturing.builder import chw

        blob, rank = blobs[port.blob], {"image": 3, "nhwc": 3, "sequence": 2, "tokens": 2, "flat": 1}[port.form]
        _need(len(port.shape) == rank and chw(port.form, port.shape) == (blob.c, blob.h, blob.w), "a port's shape")


def _check_step(graph: Graph, step: Step, number: int) -> None:
    x, y, a = graph.blobs[step.reads[0]], graph.blobs[step.write], step.attributes
    equal = lambda one, two: (one.c, one.h, one.w) == (two.c, two.h, two.w)  # noqa: E731
    here = f"{step.kind} {number}"
    _need(step.residual is None or (step.kind == "conv" and equal(graph.blobs[step.residual], y)), here)
    if step.kind == "conv":
        rows, channels, kh, kw = a["shape"]
        (sh, sw), groups = a["stride"], a["groups"]
        small = [*a["shape"], *a["stride"], *a["dilation"], groups, *(n + 1 for n in a["pad"])]
        _need(all(type(n) is int and 0 < n < 2**20 for n in small), here)
        _need(rows == y.c and rows % groups == 0 and channels * groups * max(1, len(x.phases)) == x.c, here)
        _need(step.weight is not None and tuple(step.weight.shape) == (rows, channels, kh, kw), here)
        _need(step.bias is None or tuple(step.bias.shape) == (rows,), here)
        _need({tap[:2] for tap in taps(step)} <= set(x.phases or [(0, 0)]), here)
        # Taps may not reach farther from the input than the layout's pads: those follow from the same numbers.
        _need(kh * kw <= 2**16 and abs(x.h - y.h) < 2**12 and abs(x.w - y.w) < 2**12, here)
    elif step.kind == "point":
        _need(len(step.reads) in (1, 2) and all(equal(graph.blobs[n], y) for n in step.reads), here)
        _need(a.get("scale") is None or len(a["scale"]) == len(a["shift"]) == y.c, here)
    elif step.kind == "norm":
        assert step.weight is not None
        assert step.bias is not None
        _need(equal(x, y) and step.weight.numel() == step.bias.numel() == y.c and a["epsilon"] >= 0, here)
    elif step.kind == "attention":
        q, k, v = (graph.blobs[n] for n in step.reads)
        _need(equal(q, y) and equal(k, v) and q.c == k.c and q.h == k.h == 1 and q.c % a["heads"] == 0, here)
        _need(a["bias"] is None or tuple(a["bias"].shape) == (q.w, k.w), here)
    elif step.kind == "phases":
        sh, sw = a["stride"]
        _need(bool(y.phases) and all(0 <= p < sh and 0 <= q < sw for p, q in y.phases), here)
        _need(y.c == x.c * len(y.phases) and y.h <= -(-x.h // sh) and y.w <= -(-x.w // sw), here)
    elif step.kind == "pool":
        kh, kw, sh, sw, ph, pw, average, include = a["window"]
        _need(min(kh, kw, sh, sw) > 0 and 0 <= ph < kh and 0 <= pw < kw and {average, include} <= {0, 1}, here)
        rows, columns = (x.h + 2 * ph - kh) // sh + 1, (x.w + 2 * pw - kw) // sw + 1
        _need((y.c, y.h, y.w) == (x.c, rows, columns), here)
    elif step.kind == "mean":
        _need((y.c, y.h, y.w) == (x.c, 1, 1), here)
    elif step.kind == "copy":
        c0, y0, x0, c1, y1, x1, c, h, w = a["region"]
        _need(min(a["region"]) >= 0 and c0 + c <= x.c and y0 + h <= x.h and x0 + w <= x.w, here)
        _need(c1 + c <= y.c and y1 + h <= y.h and x1 + w <= y.w, here)
    elif step.kind == "reshape":
        _need(math.prod((x.c, x.h, x.w)) == math.prod((y.c, y.h, y.w)), here)
    elif step.kind == "scale":
        s = graph.blobs[step.reads[1]]
        _need(equal(x, y) and (s.c, s.h, s.w) == (x.c, 1, 1), here)


def _need(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)
