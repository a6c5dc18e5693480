"""Constant units taken out of a group: into biases, or all into one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd

from thresher.budget.linear import matrix_of
from thresher.recovery.reading import readable
from thresher.structure import CoupledGroup


@dataclass(frozen=True, kw_only=True)
class Outcome:
    """keep: the units that stay. folded: the readers whose numbers changed. reason: why silent units stay, or ""."""

    keep: tuple[int, ...]
    folded: tuple[str, ...] = ()
    reason: str = ""


def plain_reader(module: nn.Module) -> bool:
    """Whether each output of the layer is a sum over all channels of its input."""
    return readable(module) and not (isinstance(module, _ConvNd) and module.groups > 1)


def takes_constants(module: nn.Module) -> bool:
    """Whether a constant channel adds the same number to an output at every position, and there is a bias for it.

    >>> takes_constants(nn.Linear(2, 2)), takes_constants(nn.Conv2d(2, 2, 3, padding=1))
    (True, False)
    """
    if not plain_reader(module) or getattr(module, "bias", None) is None:
        return False
    if not isinstance(module, _ConvNd):
        return True
    padded = isinstance(module.padding, str) or any(module.padding)
    return module.padding_mode != "zeros" or not padded or module.padding == "valid"


def unread_units(model: nn.Module, group: CoupledGroup) -> Tensor:
    """Units that every reader weighs with zero. False for units of readers that are not plain layers."""
    unread = torch.ones(group.units, dtype=torch.bool)
    for member in group.readers:
        module = model.get_submodule(member.module)
        if not plain_reader(module):
            return torch.zeros_like(unread)
        used = (matrix_of(module).detach() != 0).transpose(0, 1).flatten(1).any(1).cpu()
        unread &= ~used[torch.tensor(member.index)].any(1)
    return unread if group.readers else torch.zeros_like(unread)


def fold(
    model: nn.Module,
    group: CoupledGroup,
    silent: Tensor,
    unread: Tensor,
    values: Mapping[str, Tensor],
    *,
    without: Tensor,
) -> Outcome:
    """Which units of `group` can go, with what they gave moved elsewhere in `model`.

    Args:
        silent, unread, without: bool, shape (units,): candidates, units that nobody reads, units without weights (for
            which it is told why they stay). values: reader to what each of its input channels always is, or NaN.
    """
    modules = {member.module: model.get_submodule(member.module) for member in group.readers}
    given = {  # reader -> (units, indices per unit): what each unit gives it
        member.module: values.get(member.module, torch.full((member.size,), torch.nan, dtype=torch.float64))[
            torch.tensor(member.index)
        ]
        for member in group.readers
    }
    constant, zero = silent.clone(), silent.clone()
    for each in given.values():
        constant &= ~each.isnan().any(1)
        zero &= (each == 0).all(1)
    gone = zero | unread
    numbers = constant & ~gone
    folded: tuple[str, ...] = ()
    reason = "" if bool((constant | unread)[without].all()) else "what its units without weights give is not constant"
    if bool(numbers.any()):
        if all(takes_constants(module) for module in modules.values()):
            for member in group.readers:
                _into_bias(modules[member.module], torch.tensor(member.index)[numbers], given[member.module][numbers])
            gone, folded = gone | numbers, tuple(modules)
        elif all(plain_reader(module) for module in modules.values()):
            carrier = _carrier(numbers, given)
            if carrier is None:
                reason = "its constant units give its readers numbers of different kinds"
            elif int(numbers.sum()) > 1:
                others = numbers.clone()
                others[carrier] = False
                for member in group.readers:
                    index, gives = torch.tensor(member.index), given[member.module]
                    _into_carrier(modules[member.module], index, gives, others, carrier)
                gone, folded = gone | others, tuple(modules)
        else:
            reason = "its constant units are read by a grouped or transposed layer"
    _silence_readers(model, group, gone)
    if bool(gone.all()):
        gone[0] = False  # a layer needs a unit; what this one gives is zero, or its readers weigh it with zero now
    return Outcome(keep=tuple((~gone).nonzero().flatten().tolist()), folded=folded, reason=reason)


def _into_bias(module: nn.Module, index: Tensor, gives: Tensor) -> None:
    weight = matrix_of(module).detach()
    taps = weight.flatten(2).sum(2) if weight.ndim > 2 else weight
    moved = taps[:, index.flatten().to(weight.device)].double() @ gives.flatten().to(weight.device)
    with torch.no_grad():
        bias: Tensor = module.bias  # type: ignore[assignment]
        bias.copy_(bias.double() + moved)


def _carrier(numbers: Tensor, given: Mapping[str, Tensor]) -> int | None:
    """The constant unit with the largest numbers; None when it is zero where another is not."""
    least = torch.full((len(numbers),), torch.inf, dtype=torch.float64)
    for gives in given.values():
        needed = (gives[numbers] != 0).any(0)
        sizes = torch.where(needed, gives.abs(), torch.inf).amin(1)
        least = torch.minimum(least, sizes)
    least[~numbers] = -1
    best = int(least.argmax())
    return best if float(least[best]) > 0 else None


def _into_carrier(module: nn.Module, index: Tensor, gives: Tensor, others: Tensor, carrier: int) -> None:
    """W[:, carrier] += Σ (cᵢ / c) W[:, i], tap by tap: exact whatever the padding, as all are the same picture."""
    weight = matrix_of(module)
    with torch.no_grad():
        for place in range(index.shape[1]):
            base = gives[carrier, place]
            if base == 0:
                continue
            share = (gives[others, place] / base).to(weight.device)
            rows = weight.detach()[:, index[others, place].to(weight.device)].double()
            moved = (rows * share.reshape(1, -1, *[1] * (weight.ndim - 2))).sum(1)
            target = int(index[carrier, place])
            weight[:, target] = (weight[:, target].double() + moved).to(weight.dtype)


def _silence_readers(model: nn.Module, group: CoupledGroup, gone: Tensor) -> None:
    """Zero weight for units that go: one of them may have to stay."""
    for member in group.readers:
        module = model.get_submodule(member.module)
        if plain_reader(module):
            index = torch.tensor(member.index)[gone].flatten()
            with torch.no_grad():
                weight = matrix_of(module)
                weight[:, index.to(weight.device)] = 0
