"""What each layer of a smaller network should give: what the dense network gives there, and what a sum is short of."""

from __future__ import annotations

import operator
from collections.abc import Mapping

import torch
from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm

from thresher.errors import InputError
from thresher.shrinking.bounds.norms import scale_of

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


def divided(tensor: Tensor, scale: Tensor) -> Tensor:
    """`tensor` (batch, channels, ...) over a scale for each channel; a scale next to nothing counts as a small one."""
    least = max(float(scale.abs().max()) * _LEAST, 1e-30)
    inverse = 1 / torch.where(scale.abs() < least, torch.full_like(scale, least), scale)
    return tensor * inverse.to(tensor).reshape([1, -1] + [1] * (tensor.ndim - 2))


def kept_of(norm: _BatchNorm, rows: Tensor | None) -> dict[str, Tensor]:
    """The statistics and weights of a batch norm, of the channels `rows`, float64."""
    found = {name: getattr(norm, name) for name in ("running_mean", "running_var", "weight", "bias")}
    return {
        name: (tensor if rows is None else tensor.index_select(0, rows.to(tensor.device))).detach().double()
        for name, tensor in found.items()
        if tensor is not None
    }


def seen_through(
    norm: _BatchNorm, like: Mapping[str, Tensor], scale: Tensor, weight: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """The weight and bias that would give through a norm with the state `like`, of that `scale`, what `weight`
    (outputs, rows) and `bias` give through `norm`."""
    own, ratio = kept_of(norm, None), divided(scale_of(norm)[None], scale)[0]
    zero = torch.zeros_like(bias)
    offset = divided((own.get("bias", zero) - like.get("bias", zero))[None], scale)[0]
    return weight * ratio[:, None], ratio * (bias - own["running_mean"]) + offset + like["running_mean"]


def settle(norm: _BatchNorm, like: Mapping[str, Tensor], mean: Tensor, variance: Tensor, intercept: Tensor) -> None:
    """Make `norm` do to c + intercept what a norm with the state `like` does to it, where c has this mean and variance.

    Its statistics become those of c, so that in training mode, where it takes those of the batch, it does the same. A
    norm without weights keeps the variance of `like`, and does the same in eval mode only.

    >>> norm, x = nn.BatchNorm1d(1), torch.tensor([[1.0], [3.0], [8.0]])
    >>> like = {"running_mean": torch.tensor([1.0]), "running_var": torch.tensor([4.0 - norm.eps])}
    >>> like |= {"weight": torch.tensor([6.0]), "bias": torch.tensor([0.5])}
    >>> settle(norm, like, x.mean(0), x.var(0, correction=0), torch.tensor([2.0]))
    >>> (norm(x).flatten() - (3 * (x.flatten() + 2 - 1) + 0.5)).abs().max().item() < 1e-4
    True
    """
    assert norm.running_mean is not None
    assert norm.running_var is not None
    if norm.weight is None or "weight" not in like:
        norm.running_mean.copy_(like["running_mean"] - intercept)
        norm.running_var.copy_(like["running_var"])
        return
    with torch.no_grad():
        scale = like["weight"] * (like["running_var"] + norm.eps).rsqrt()
        norm.running_mean.copy_(mean)
        norm.running_var.copy_(variance)
        norm.weight.copy_(scale * (variance + norm.eps).sqrt())
        norm.bias.copy_(like["bias"] + scale * (mean + intercept - like["running_mean"]))
