"""‖f − f'‖ ≤ what grows, layer by layer, out of the cut layers' errors, along the graph of the network.

Every tensor gets a bound on its distance from the dense network's: a cut layer turns e into ‖W‖₂ e + ‖V‖, a sum adds
the bounds of its two sides (so skips are covered), a 1-Lipschitz activation leaves the bound. On a chain this is
Σ_l (Π_{k after l} ‖W_k‖₂) ‖V_l‖. It needs V of each layer on inputs that the pruned prefix gives, which is how
`thresher.shrink` works.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import fx, nn
from torch.nn import functional
from torch.nn.modules.pooling import _AdaptiveAvgPoolNd, _AvgPoolNd, _MaxPoolNd

from thresher.shrinking.bounds.norms import ONE_LIPSCHITZ, operator_norm, weighted

_SAME = {
    torch.relu, torch.tanh, torch.sigmoid, torch.flatten, torch.mean, torch.reshape, torch.permute, torch.transpose,
    torch.squeeze, torch.unsqueeze, functional.relu, functional.relu6, functional.leaky_relu, functional.dropout,
    functional.adaptive_avg_pool2d, functional.avg_pool2d, functional.pad, operator.getitem,
}  # fmt: skip
_SAME_METHODS = {
    "relu", "relu_", "tanh", "sigmoid", "flatten", "mean", "view", "reshape", "permute", "transpose", "squeeze",
    "unsqueeze", "contiguous", "to", "float", "clone",
}  # fmt: skip
_SUMS = {operator.add, operator.iadd, operator.sub, torch.add, torch.sub}
_LIPSCHITZ: dict[type[nn.Module], float] = {nn.GELU: 1.13, nn.SiLU: 1.1, nn.Hardswish: 1.5}


@dataclass(frozen=True)
class Bound:
    """value: the bound, None when there is none; note: how it was found, or why not."""

    value: float | None
    note: str


class _Unknown(Exception):  # noqa: N818 - an answer, no error
    """A step of the network for which no factor is known."""


def output_bound(model: nn.Module, residuals: Mapping[str, float | None]) -> Bound:
    """A bound on ‖f − f'‖, in the units of `residuals`.

    Args:
        residuals: name of each layer whose weights were changed to its ‖V‖, None when that is not known exactly.

    >>> net = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False))
    >>> _ = [nn.init.constant_(layer.weight, 2.0) for layer in (net[0], net[2])]
    >>> round(output_bound(net, {"0": 1.0, "2": 0.5}).value, 9)
    2.5
    """
    for name, value in residuals.items():
        if value is None:
            return Bound(None, f"none: the residual of {name} is known over channels only")
    try:
        graph = fx.symbolic_trace(model)
    except Exception as error:
        return Bound(None, f"none: the network cannot be traced ({type(error).__name__})")
    errors: dict[fx.Node, float] = {}
    try:
        for node in graph.graph.nodes:
            errors[node] = _error(model, node, errors, residuals)
            if node.op == "output":
                return Bound(errors[node], "proven: along the traced graph")
    except _Unknown as unknown:
        return Bound(None, f"none: no factor is known for {unknown}")
    return Bound(None, "none: no output")


def _error(
    model: nn.Module, node: fx.Node, errors: Mapping[fx.Node, float], residuals: Mapping[str, float | None]
) -> float:
    given = [errors[each] for each in node.all_input_nodes]
    if node.op in ("placeholder", "get_attr"):
        return 0.0
    if node.op == "output":
        return math.hypot(*given)
    if node.op == "call_module":
        return _of_module(model.get_submodule(str(node.target)), str(node.target), given, residuals)
    if not any(given) or _is_shape(node):
        return 0.0
    return _of_function(node, given)


def _of_module(module: nn.Module, name: str, given: list[float], residuals: Mapping[str, float | None]) -> float:
    error = sum(given)
    if any(layer.startswith(f"{name}.") for layer in residuals):
        raise _Unknown(f"{name}, a {type(module).__name__}, which is not looked into")
    if weighted(module):
        grown = operator_norm(module) * error if error else 0.0
        return grown + (residuals.get(name) or 0.0)
    if not error or isinstance(module, (*ONE_LIPSCHITZ, _AdaptiveAvgPoolNd, _AvgPoolNd, nn.Dropout2d)):
        return error
    if isinstance(module, _MaxPoolNd):
        sizes = [_pair(module.kernel_size), _pair(module.stride)]
        return error * math.sqrt(math.prod(-(-kernel // step) for kernel, step in zip(*sizes, strict=True)))
    for kind, factor in _LIPSCHITZ.items():
        if isinstance(module, kind):
            return factor * error
    raise _Unknown(f"{name}, a {type(module).__name__}")


def _of_function(node: fx.Node, given: list[float]) -> float:
    target: Any = node.target
    if node.op == "call_method":
        if target in _SAME_METHODS and len(given) == 1:
            return given[0]
        if target in ("add", "add_", "sub"):
            return sum(given)
    elif target in _SUMS and not node.kwargs:
        return sum(given) * (2 if len(node.args) == 2 and node.args[0] is node.args[1] else 1)
    elif target is torch.cat:
        return math.hypot(*given)
    elif target in _SAME and len(given) == 1:
        return given[0]
    name: Callable[..., object] | str = target
    raise _Unknown(f"{getattr(name, '__name__', name)} ({node.name})")


def _is_shape(node: fx.Node) -> bool:
    """Sizes are the same in both networks."""
    return (node.op == "call_method" and node.target in ("size", "dim", "numel")) or (
        node.op == "call_function"
        and node.target is getattr
        and len(node.args) > 1
        and node.args[1] in ("shape", "ndim", "device", "dtype")
    )


def _pair(value: int | tuple[int, ...]) -> tuple[int, ...]:
    return (value, value) if isinstance(value, int) else tuple(value)
