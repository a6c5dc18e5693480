"""Every group of hidden units of a network: heads of attention, what the graph says, feed-forward pairs."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

from torch import nn

from thresher.errors import InputError, StateError
from thresher.structure.attention import attention_layers
from thresher.structure.checking import together_sound, trouble
from thresher.structure.feedforward import feedforward_groups
from thresher.structure.graph import traced_groups
from thresher.structure.groups import CoupledGroup, LeftWhole
from thresher.structure.heads import head_groups, joint_group
from thresher.structure.running import running_order
from thresher.structure.trying import few


def coupled_groups(model: nn.Module, example: Any) -> tuple[tuple[CoupledGroup, ...], tuple[LeftWhole, ...]]:
    """Every group of hidden units of `model`, in the order in which their first layer runs, and what was left and why.

    The model is not changed: a copy is traced, with gradients on and in eval mode.

    Args:
        example: one batch of inputs: a tensor, a tuple of arguments, or a mapping of keyword arguments.

    Errors: MissingExtraError without torch-pruning; StateError for a model under pruning; InputError when nothing of it
    can be traced, naming the module where it failed.
    """
    for name, module in model.named_modules():
        if "parametrizations" in module._modules:
            raise StateError(
                f"a model whose {name or 'root'} is parametrized", "plain modules", "call finish() on its pruner first"
            )
    order = running_order(model, example)
    twin = copy.deepcopy(model)
    short = few(twin, example)
    found, left, claimed = _heads(twin, short)
    traced: list[CoupledGroup] = []
    untraced: list[LeftWhole] = []
    failure: InputError | None = None
    try:
        traced, untraced = traced_groups(twin, short, order, skip=claimed)
    except InputError as error:
        failure = error
    found += traced
    done = claimed | {name for group in traced for name in group.producers}
    more = _feedforward(twin, short, done)
    found += more
    made = {name for group in found for name in group.producers}
    left += [each for each in untraced if each.name not in made]
    if failure is not None:
        if not found:
            raise failure
        left.append(LeftWhole("every other layer", f"{failure.given}; {failure.do}"))
    place = {name: number for number, name in enumerate(order)}
    found.sort(key=lambda group: min(place.get(name, len(order)) for name in group.producers))
    return tuple(found), tuple(left)


def _heads(model: nn.Module, example: Any) -> tuple[list[CoupledGroup], list[LeftWhole], set[str]]:
    layers = list(attention_layers(model))
    left = [layer for layer in layers if isinstance(layer, LeftWhole)]
    candidates = {layer.made: list(head_groups(model, layer)) for layer in layers if not isinstance(layer, LeftWhole)}
    claimed = {name for made in candidates for name in made} | {layer.name for layer in left}
    found, reasons = _proven_layers(model, example, list(candidates.values()))
    found += _joint(model, example, [each for each in candidates.values() if each[0].name in reasons], reasons)
    left += [LeftWhole(name, f"attention heads: {reason}") for name, reason in reasons.items()]
    return found, left, claimed


def _joint(
    model: nn.Module, example: Any, layers: Sequence[Sequence[CoupledGroup]], reasons: dict[str, str]
) -> list[CoupledGroup]:
    """Layers of one stack whose heads come apart only together; their names are taken out of `reasons`."""
    stacks: dict[tuple[str, int], list[CoupledGroup]] = {}
    for candidates in layers:
        name = ".".join("#" if part.isdigit() else part for part in candidates[0].name.split("."))
        stacks.setdefault((name, candidates[0].units), []).append(candidates[0])
    found = []
    for groups in stacks.values():
        group = joint_group(groups)
        if len(groups) > 1 and not trouble(model, example, group):
            found.append(replace(group, proven=True))
            for each in groups:
                del reasons[each.name]
    return found


def _feedforward(model: nn.Module, example: Any, done: set[str]) -> list[CoupledGroup]:
    return _proven_layers(model, example, list(feedforward_groups(model, done)))[0]


def _proven_layers(
    model: nn.Module, example: Any, layers: Sequence[Sequence[CoupledGroup]]
) -> tuple[list[CoupledGroup], dict[str, str]]:
    """Of each layer the first candidate that comes apart, and for layers without one its name and why."""
    likely = [candidates[0] for candidates in layers]
    if all(group.units > 1 for group in likely) and together_sound(model, example, likely):
        return [replace(group, proven=True) for group in likely], {}
    found, reasons = [], {}
    for candidates in layers:
        group, reason = first_proven(model, example, candidates)
        if group is None:
            reasons[candidates[0].name] = reason
        else:
            found.append(group)
    return found, reasons


def first_proven(model: nn.Module, example: Any, candidates: Iterable[CoupledGroup]) -> tuple[CoupledGroup | None, str]:
    """The first candidate that comes apart as it says; else None and why the first one did not."""
    reasons = []
    for group in candidates:
        reasons.append(trouble(model, example, group))
        if not reasons[-1]:
            return replace(group, proven=True), ""
    return None, reasons[0] if reasons else "no layout fits"
