"""From zeros to a smaller network: whole zero channels, as training on row groups leaves them, are cut out exactly."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from thresher.errors import InputError
from thresher.shrinking.allocation.replaying import output_of
from thresher.shrinking.compacting.folding import fold, unread_units
from thresher.shrinking.compacting.silence import constants, silent_units
from thresher.shrinking.composing import composed
from thresher.structure import CoupledGroup, LeftWhole, ShrinkPlan, coupled_groups, proven


@dataclass(frozen=True, eq=False)
class Compacted:
    """model: the smaller network. plan: what was cut, for a fresh dense network; `folded` readers differ from it.

    cut: group name to units that went. folded: layers whose bias or weights took over what constant units gave.
    left: groups with silent units that stay, and why. output_error: ‖f − f'‖/‖f‖ on the example, which is rounding.
    """

    model: nn.Module
    plan: ShrinkPlan
    cut: Mapping[str, int]
    folded: tuple[str, ...]
    left: tuple[LeftWhole, ...]
    output_error: float


def compact(model: nn.Module, example: Any) -> Compacted:
    """A new network without the units that zero weights cut off; in eval mode it computes what `model` computes.

    A unit goes when every layer that makes it has zero weights for it (or a depthwise layer on its way has), or when
    every layer that reads it does so with weight zero. A unit without weights is still a constant behind a bias or a
    batch norm: what it gives is folded into the bias of its readers where that is exact, and otherwise (zero padding
    makes it differ at the border, or there is no bias) into a single constant unit that stays for all of them.

    Args:
        model: plain modules: call `finish()` on a pruner first. It is left as it is.
        example: one batch of inputs: a tensor, a tuple of arguments, or a mapping of keyword arguments.

    Errors: as `coupled_groups`. Groups behind norms over channels (LayerNorm, GroupNorm) are left whole.

    >>> import torch
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> _ = net[0].weight.data[:6].zero_()
    >>> small = compact(net, torch.randn(3, 4))
    >>> small.model[0].out_features, small.cut
    (2, {'0': 6})
    """
    found = _once(model, example)
    while found.cut:
        # A layer that read only what is gone may have no weights left now.
        again = _once(found.model, example)
        if not again.cut:
            break
        found = Compacted(
            model=again.model,
            plan=composed(found.plan, again.plan),
            cut={name: found.cut.get(name, 0) + again.cut.get(name, 0) for name in {**found.cut, **again.cut}},
            folded=tuple(dict.fromkeys((*found.folded, *again.folded))),
            left=again.left,
            output_error=found.output_error + again.output_error,
        )
    return found


def channel_rules(model: nn.Module, example: Any, *, scales: bool = False) -> tuple[str, ...]:
    """Rules for `thresher.prune(..., groups="row", rules=...)`: only layers whose channels `compact` can cut alone.

    scales: instead of these layers the scales γ of the batch norms behind them, one weight a channel (groups="weight").
    A soft threshold on rows in front of a batch norm only makes them shorter, which the norm undoes.

    >>> import torch
    >>> channel_rules(nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2)), torch.randn(3, 4))
    ('exclude:*', 'include:0')

    Errors: InputError when there is no such layer.
    """
    groups, _ = coupled_groups(model, example)
    good, _ = proven(model, example, groups)
    alone = [group for group in good if len(group.producers) == 1 and group.exact]
    names = [group.producers[0] for group in alone]
    if scales:
        names = [f"{name}.weight" for group in alone for name in _norms(model, group)]
        if alone and not names:
            raise InputError(
                f"a {type(model).__name__} without a batch norm behind a layer whose channels can be cut alone",
                "batch norms with scales",
                "leave out scales, and prune rows",
            )
    if not names:
        raise InputError(
            f"a {type(model).__name__} without a layer whose channels can be cut alone",
            "a convolution or linear layer that others read, with no norm over channels behind it",
            "prune it by single weights, or shrink it by thresher.shrink",
        )
    return ("exclude:*", *(f"include:{name}" for name in names))


def _norms(model: nn.Module, group: CoupledGroup) -> list[str]:
    modules = {member.module: model.get_submodule(member.module) for member in group.members}
    return [name for name, each in modules.items() if isinstance(each, _BatchNorm) and each.weight is not None]


def _once(model: nn.Module, example: Any) -> Compacted:
    groups, _ = coupled_groups(model, example)
    good, bad = proven(model, example, groups)
    readers = sorted({member.module for group in good for member in group.readers})
    values = constants(model, readers, example)
    working = copy.deepcopy(model)
    cut: dict[str, int] = {}
    folded: list[str] = []
    left: list[LeftWhole] = []
    plans = []
    for group in good:
        without, silent = silent_units(working, group)
        unread = unread_units(working, group)
        keep: Sequence[int] = range(group.units)
        if group.exact and bool((silent | unread).any()):
            outcome = fold(working, group, silent, unread, values, without=without)
            keep = outcome.keep
            folded += outcome.folded
            if outcome.reason:
                left.append(LeftWhole(group.name, outcome.reason))
            if len(keep) < group.units:
                cut[group.name] = group.units - len(keep)
        elif bool(without.any()):
            left.append(LeftWhole(group.name, "a norm over channels reads it"))
        plans.append(group.plan(keep))
    left += [each for each in bad if _has_silence(model, groups, each.name)]
    plan = ShrinkPlan(model=type(model).__name__, groups=tuple(plans))
    small = plan.apply(working)
    before, after = output_of(model, example), output_of(small, example)
    size = float(before.norm())
    error = float((before - after).norm()) / size if size > 0 else float((before - after).norm())
    return Compacted(
        model=small, plan=plan, cut=cut, folded=tuple(dict.fromkeys(folded)), left=tuple(left), output_error=error
    )


def _has_silence(model: nn.Module, groups: Sequence[CoupledGroup], name: str) -> bool:
    return any(bool(silent_units(model, group)[0].any()) for group in groups if group.name == name)


__all__ = ["Compacted", "channel_rules", "compact"]
