"""The one file that knows torch-pruning: its dependency graph says which axes of which layers hang together."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from thresher.budget.linear import features_of, is_transposed, matrix_of
from thresher.errors import InputError, require
from thresher.structure.cutting import axis_of, divisions_of, width_of
from thresher.structure.groups import CoupledGroup, LeftWhole, Member
from thresher.structure.running import innermost, run

_Axes = dict[tuple[str, str], dict[int, int]]  # (module, axis) -> index on it -> root index
_NORMS = (nn.LayerNorm, nn.GroupNorm, nn.RMSNorm)


def traced_groups(
    model: nn.Module, example: Any, order: Sequence[str], *, skip: Collection[str] = ()
) -> tuple[list[CoupledGroup], list[LeftWhole]]:
    """The groups that the dependency graph of `model` shows, in the `order` of their first layer, and what was left.

    Args:
        skip: layers that make no group here.

    Errors: MissingExtraError without torch-pruning; InputError naming what cannot be traced.
    """
    library = require("torch_pruning", "structured", "tracing which layers hang together")
    twin = copy.deepcopy(model)
    _straighten(twin)
    for parameter in twin.parameters():
        parameter.requires_grad_(parameter.is_floating_point())
    graph = _traced(library, twin, example)
    names: dict[Any, str] = {module: name for name, module in twin.named_modules()}
    names |= {tensor: name for name, tensor in twin.named_parameters()}
    found: list[CoupledGroup] = []
    left: list[LeftWhole] = []
    visited: set[str] = set(skip)
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
    return found, left


def _straighten(model: nn.Module) -> None:
    """Put torch's linear layers in place of transformers' Conv1D, which the graph does not know."""
    for name, module in list(model.named_modules()):
        if is_transposed(module):
            inputs, outputs = features_of(module)
            plain = nn.Linear(inputs, outputs, device=matrix_of(module).device, dtype=matrix_of(module).dtype)
            with torch.no_grad():
                plain.weight.copy_(matrix_of(module))
                plain.bias.copy_(module.bias)  # type: ignore[arg-type]
            model.set_submodule(name, plain)


def _tensors(output: Any) -> list[Tensor]:
    if isinstance(output, Tensor):
        return [output] if output.grad_fn is not None else []
    values = output.values() if hasattr(output, "values") else output if isinstance(output, (list, tuple)) else ()
    return [tensor for value in values for tensor in _tensors(value)]


def _traced(library: Any, model: nn.Module, example: Any) -> Any:
    try:
        return _graph(library, model, example)
    except Exception as error:
        place = innermost(model, example, lambda module, inputs: _fails(library, module, inputs))
        raise InputError(
            f"a {type(model).__name__} whose {place} cannot be traced ({type(error).__name__}: {error})",
            "a network that torch-pruning's dependency graph can follow",
            "replace that module by one of ordinary tensor operations, or shrink the other parts by themselves",
        ) from error


def _graph(library: Any, model: nn.Module, example: Any) -> Any:
    graph = library.DependencyGraph()
    with warnings.catch_warnings(), torch.enable_grad():
        warnings.simplefilter("ignore")
        graph.build_dependency(model, example, forward_fn=lambda net, batch: _tensors(run(net, batch)), verbose=False)
    return graph


def _fails(library: Any, module: nn.Module, inputs: Any) -> bool:
    try:
        _graph(library, module, inputs)
    except Exception:
        return True
    return False


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
    group = _assembled(name, axes, names, alone)
    summed = any(_is_sum(item.dep.target) for item in raw.items)
    return group if isinstance(group, LeftWhole) else replace(group, across=summed and len(group.producers) > 1)


def _runs_over_channels(module: nn.Module) -> bool:
    """Whether it is a norm whose statistics are over units: what is left of them then changes with every cut."""
    own = any(word in type(module).__name__ for word in ("Norm", "GRN", "ResponseNormal"))
    return isinstance(module, _NORMS) or (own and not isinstance(module, nn.modules.batchnorm._NormBase))


def _is_sum(node: Any) -> bool:
    """Whether the node adds two things that the network computes; a gate multiplies them."""
    named = str(getattr(node.module, "_grad_fn", ""))
    return len(node.inputs) > 1 and named.startswith(("AddBackward", "SubBackward"))


def _note(axes: _Axes, names: dict[Any, str], module: Any, handler: Any, item: Any) -> str:
    """Enter one item of torch-pruning's group into `axes`; a reason when the group cannot be cut."""
    if module not in names:
        return ""  # an operation without parameters
    holder, axis = _place(names, module, handler)
    if not isinstance(module, nn.Parameter) and width_of(module, axis) is None:
        plain = not any(True for _ in module.parameters())
        return "" if plain else f"{names[module]} ({type(module).__name__}) cannot be cut"
    entry = axes.setdefault((holder, axis), {})
    for index, root in zip(item.idxs, item.root_idxs, strict=True):
        entry.setdefault(int(index), int(root))
    return ""


def _place(names: dict[Any, str], module: Any, handler: Any) -> tuple[str, str]:
    """Holder and axis of an item; of a bare parameter (scale, position embedding) the last axis longer than one."""
    if isinstance(module, nn.Parameter):
        holder, _, name = names[module].rpartition(".")
        wide = [axis for axis, size in enumerate(module.shape) if size > 1]
        return holder, f"{name}:{wide[-1] if wide else 0}"
    return names[module], axis_of(module, "in" if handler.__name__ == "prune_in_channels" else "out")


def _assembled(name: str, axes: _Axes, names: dict[Any, str], alone: Any) -> CoupledGroup | LeftWhole:
    modules = {text: module for module, text in names.items()}
    width = len(axes[name, "out"])
    # torch-pruning does not say when one output of a layer drags another along (chunk, then a product): one unit alone
    # shows it.
    for item in alone.items:
        if item.dep.target.module in names:
            place = _place(names, item.dep.target.module, item.dep.handler)
            entry = axes.get(place, {})
            if {int(index) for index in item.idxs} != {index for index, root in entry.items() if root == 0} and entry:
                return LeftWhole(name, f"one unit of it is several of {place[0]}")
    parts = math.lcm(*(divisions_of(modules[module], axis) for module, axis in axes))
    if width % parts:
        return LeftWhole(name, f"{width} channels in {parts} parts")
    units = width // parts
    members = []
    for (module, axis), entry in axes.items():
        index: list[list[int]] = [[] for _ in range(units)]
        for number, root in entry.items():
            index[root % units].append(number)
        size = width_of(modules[module], axis)
        assert size is not None
        if max(entry) >= size:  # a router's outputs pick rows of the stream, and pass for its channels
            return LeftWhole(name, f"{module} is {size} wide, too narrow for its {len(entry)} units")
        divisions = divisions_of(modules[module], axis)
        if len({len(each) for each in index}) > 1 or (divisions > 1 and len(entry) != size):
            return LeftWhole(name, f"{module} holds its units unevenly")
        members.append(Member(module=module, axis=axis, size=size, index=tuple(tuple(sorted(each)) for each in index)))
    producers = tuple(
        member.module for member in members if member.axis == "out" or isinstance(modules[member.module], nn.Embedding)
    )
    exact = not any(_runs_over_channels(modules[member.module]) for member in members)
    return CoupledGroup(name=name, units=units, members=tuple(members), producers=producers, exact=exact)
