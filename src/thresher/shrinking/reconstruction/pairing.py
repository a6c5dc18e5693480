"""What each layer of a smaller network should give: what the dense network gives there, and what a sum is short of."""

from __future__ import annotations

import operator
from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thresher.errors import InputError

_SUMS = {operator.add, operator.iadd, torch.add}
_LEAST = 1e-3  # of a batch norm's largest scale: a channel below it can hardly make up for anything


def traced(model: nn.Module, what: str) -> fx.Graph:
    """The graph of modules and functions. Errors: InputError for a model that torch.fx cannot trace."""
    try:
        return fx.symbolic_trace(model).graph
    except Exception as error:
        raise InputError(
            f"{what}, a {type(model).__name__} that torch.fx cannot trace: {error}",
            "a forward pass without branches on values",
            "leave reconstruction out; the refit of each layer by itself (debias) needs no tracing",
        ) from error


def norm_after(node: fx.Node, modules: Mapping[str, nn.Module]) -> fx.Node | None:
    """The batch norm with running statistics that alone reads `node`."""
    users = list(node.users)
    if len(users) != 1 or users[0].op != "call_module":
        return None
    norm = modules[str(users[0].target)]
    return users[0] if isinstance(norm, _BatchNorm) and norm.running_mean is not None else None


def sum_after(node: fx.Node, norm: fx.Node | None) -> fx.Node | None:
    """What is added to `node`, or to its batch norm, if nothing else reads that and it is known by then."""
    last = norm or node
    users = list(last.users)
    if len(users) != 1 or not _is_sum(users[0]):
        return None
    others = [each for each in users[0].args if each is not last]
    if len(others) != 1 or not isinstance(others[0], fx.Node):
        return None
    return others[0] if _before(others[0], node) else None


def _is_sum(node: fx.Node) -> bool:
    function = node.op == "call_function" and node.target in _SUMS
    return (function or (node.op == "call_method" and node.target in ("add", "add_"))) and not node.kwargs


def _before(first: fx.Node, second: fx.Node) -> bool:
    for node in first.graph.nodes:
        if node is first:
            return True
        if node is second:
            return False
    return False


def before_norm(norm: _BatchNorm, wanted: Tensor) -> Tensor:
    """What a batch norm in eval mode has to be given so that it gives `wanted` (batch, channels, ...).

    >>> norm = nn.BatchNorm1d(1).eval()
    >>> _ = norm.running_mean.fill_(2.0), norm.running_var.fill_(4.0)
    >>> norm(before_norm(norm, torch.tensor([[3.0]]))).round(decimals=4)
    tensor([[3.]])
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    scale = (norm.running_var.double() + norm.eps).rsqrt()
    if norm.weight is not None:
        scale = scale * norm.weight.detach().double()
    least = max(float(scale.abs().max()) * _LEAST, 1e-30)
    scale = torch.where(scale.abs() < least, torch.full_like(scale, least), scale)
    shift = norm.running_mean.double() - (0.0 if norm.bias is None else norm.bias.detach().double() / scale)
    shape = [1, -1] + [1] * (wanted.ndim - 2)
    return torch.addcmul(shift.to(wanted).reshape(shape), wanted, (1 / scale).to(wanted).reshape(shape))
