"""The one file that knows torch-pruning: its dependency graph says which axes of which layers hang together."""

from __future__ import annotations

import copy
import math
import warnings
from typing import Any

import torch
from torch import Tensor, nn

from thresher.budget.counts import call
from thresher.errors import InputError, StateError, require
from thresher.structure.cutting import axis_of, divisions_of, width_of
from thresher.structure.groups import CoupledGroup, LeftWhole, Member

_Axes = dict[tuple[str, str], dict[int, int]]  # (module, axis) -> index on it -> root index
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.modules.instancenorm._InstanceNorm)


def coupled_groups(model: nn.Module, example: Any) -> tuple[tuple[CoupledGroup, ...], tuple[LeftWhole, ...]]:
    """Every group of hidden units of `model`, in the order in which their first layer runs, and what was left and why.

    The model is not changed: a copy is traced, with gradients on and in eval mode.

    Args:
        example: one batch of inputs: a tensor, a tuple of arguments, or a mapping of keyword arguments.

    Errors: MissingExtraError without torch-pruning; StateError for a model under pruning; InputError naming what cannot
    be traced.
    """
    library = require("torch_pruning", "structured", "tracing which layers hang together")
    for name, module in model.named_modules():
        if "parametrizations" in module._modules:
            raise StateError(
                f"a model whose {name or 'root'} is parametrized", "plain modules", "call finish() on its pruner first"
            )
    twin = copy.deepcopy(model)
    for parameter in twin.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    order = running_order(twin, example)
    graph = _traced(library, twin, example)
    names = {module: name for name, module in twin.named_modules()}
    found: list[CoupledGroup] = []
    left: list[LeftWhole] = []
    visited: set[str] = set()
    for name in order:
        module = twin.get_submodule(name)
        if (
            name in visited
            or module not in graph.module2node
            or not isinstance(module, (nn.Linear, nn.modules.conv._ConvNd))
        ):
            continue
        if axis_of(module, "out") == "width":  # depthwise: belongs to the group of what feeds it
            continue
        result = _group(library, graph, names, name, module)
        if isinstance(result, LeftWhole):
            left.append(result)
        else:
            visited.update(result.producers)
            found.append(result)
    return tuple(found), tuple(left)


def running_order(model: nn.Module, example: Any) -> list[str]:
    """Names of the modules with parameters of their own, in the order of their first call."""
    order: dict[str, None] = {}
    handles = [
        module.register_forward_pre_hook(lambda *_, name=name: order.setdefault(name))
        for name, module in model.named_modules()
        if module._parameters
    ]
    flags = [(module, module.training) for module in model.modules()]
    try:
        with torch.no_grad():
            model.eval()
            call(model, example)
    except Exception as error:
        raise InputError(
            f"an example on which {type(model).__name__} fails: {error}",
            "one batch of inputs that the model accepts",
            "pass example=one_batch",
        ) from error
    finally:
        for handle in handles:
            handle.remove()
        for module, flag in flags:
            module.training = flag
    return list(order)


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output] if output.grad_fn is not None else []
    values = output.values() if hasattr(output, "values") else output if isinstance(output, (list, tuple)) else ()
    return [tensor for value in values for tensor in _tensors(value)]


def _traced(library: Any, model: nn.Module, example: Any) -> Any:
    graph = library.DependencyGraph()
    try:
        with warnings.catch_warnings(), torch.enable_grad():
            warnings.simplefilter("ignore")
            graph.build_dependency(
                model, example, forward_fn=lambda net, batch: _tensors(call(net, batch)), verbose=False
            )
    except Exception as error:
        raise InputError(
            f"a {type(model).__name__} whose layers cannot be traced ({type(error).__name__}: {error})",
            "a network that torch-pruning's dependency graph can follow",
            "shrink the part that is an ordinary network by itself, or replace the module that the message names",
        ) from error
    return graph


def _group(library: Any, graph: Any, names: dict[Any, str], name: str, module: nn.Module) -> CoupledGroup | LeftWhole:
    width = width_of(module, "out")
    assert width is not None
    handler = graph.get_pruner_of_module(module).prune_out_channels
    try:
        raw = graph.get_pruning_group(module, handler, list(range(width)))
        alone = graph.get_pruning_group(module, handler, [0])
    except Exception as error:
        return LeftWhole(name, f"its coupling cannot be followed ({type(error).__name__}: {error})")
    axes: _Axes = {}
    for item in raw.items:
        node = item.dep.target
        if node.type == library.ops.OPTYPE.OUTPUT:
            return LeftWhole(name, "the model's output")
        reason = _note(axes, names, node.module, item.dep.handler, item)
        if reason:
            return LeftWhole(name, reason)
    if not any(axis == "in" for _, axis in axes):
        return LeftWhole(name, "no layer reads it")
    return _assembled(graph, name, axes, names, alone)


def _note(axes: _Axes, names: dict[Any, str], module: Any, handler: Any, item: Any) -> str:
    """Enter one item of torch-pruning's group into `axes`; a reason when the group cannot be cut."""
    if isinstance(module, nn.Parameter):
        return "a bare parameter hangs on it"
    if module not in names:
        return ""  # an operation without parameters
    axis = axis_of(module, "in" if handler.__name__ == "prune_in_channels" else "out")
    if width_of(module, axis) is None:
        plain = not any(True for _ in module.parameters())
        return "" if plain else f"{names[module]} ({type(module).__name__}) cannot be cut"
    entry = axes.setdefault((names[module], axis), {})
    for index, root in zip(item.idxs, item.root_idxs, strict=True):
        entry.setdefault(int(index), int(root))
    return ""


def _assembled(graph: Any, name: str, axes: _Axes, names: dict[Any, str], alone: Any) -> CoupledGroup | LeftWhole:
    modules = {text: module for module, text in names.items()}
    width = len(axes[name, "out"])
    # torch-pruning does not say when one output of a layer drags another along (chunk, then a product): one unit alone
    # shows it.
    for item in alone.items:
        if item.dep.target.module in names:
            module = item.dep.target.module
            axis = axis_of(module, "in" if item.dep.handler.__name__ == "prune_in_channels" else "out")
            entry = axes.get((names[module], axis), {})
            if {int(index) for index in item.idxs} != {index for index, root in entry.items() if root == 0} and entry:
                return LeftWhole(name, f"one unit of it is several of {names[module]}")
    parts = math.lcm(*(divisions_of(modules[module], axis) for module, axis in axes))
    if width % parts:
        return LeftWhole(name, f"{width} channels in {parts} parts")
    units = width // parts
    members = []
    for (module, axis), entry in axes.items():
        index: list[list[int]] = [[] for _ in range(units)]
        for place, root in entry.items():
            index[root % units].append(place)
        size = width_of(modules[module], axis)
        assert size is not None
        divisions = divisions_of(modules[module], axis)
        if len({len(each) for each in index}) > 1 or (divisions > 1 and len(entry) != size):
            return LeftWhole(name, f"{module} holds its units unevenly")
        members.append(Member(module=module, axis=axis, size=size, index=tuple(tuple(sorted(each)) for each in index)))
    producers = tuple(
        member.module for member in members if member.axis == "out" or isinstance(modules[member.module], nn.Embedding)
    )
    exact = not any(isinstance(modules[member.module], _NORMS) for member in members)
    return CoupledGroup(name=name, units=units, members=tuple(members), producers=producers, exact=exact)
