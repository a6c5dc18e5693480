"""Does a group really come apart? One unit is cut from a copy, which has to run and to say what it should."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from thresher.budget.counts import call, eval_mode
from thresher.structure.groups import CoupledGroup, LeftWhole
from thresher.structure.masking import silenced
from thresher.structure.plan import ShrinkPlan

TOLERANCE = 1e-3


def first_tensor(output: Any) -> Tensor:
    """The first floating-point tensor of a model's output."""
    if isinstance(output, Tensor):
        return output
    values = output.values() if hasattr(output, "values") else output
    for value in values if isinstance(values, (list, tuple)) or hasattr(values, "__iter__") else ():
        if isinstance(value, (Tensor, list, tuple)) or hasattr(value, "values"):
            return first_tensor(value)
    raise TypeError(f"no tensor in an output of type {type(output).__name__}")


def proven(
    model: nn.Module, example: Any, groups: tuple[CoupledGroup, ...]
) -> tuple[list[CoupledGroup], list[LeftWhole]]:
    """The groups that survive the test, and those that do not, with the reason.

    A graph can be wrong about a reshape into heads or a shift of channels. So the last unit of each group is cut from a
    copy: it must run, give outputs of the same shape, and (where no norm runs over channels) the outputs of a network
    whose readers see zero there.
    """
    good, bad = [], []
    for group in groups:
        reason = _trouble(model, example, group)
        if reason:
            bad.append(LeftWhole(group.name, reason))
        else:
            good.append(group)
    return good, bad


def _trouble(model: nn.Module, example: Any, group: CoupledGroup) -> str:
    if group.units < 2:
        return "a single unit"
    keep = range(group.units - 1)
    plan = ShrinkPlan(model=type(model).__name__, groups=(group.plan(keep),))
    try:
        small = plan.apply(model)
        with torch.no_grad(), eval_mode(small):
            cut = first_tensor(call(small, example))
    except Exception as error:
        return (
            f"the cut network does not run ({type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''})"
        )
    with torch.no_grad(), eval_mode(model):
        if not group.exact:
            same = cut.shape == first_tensor(call(model, example)).shape
            return "" if same else "the cut changes the shape of the output"
        with silenced(model, group, keep):
            masked = first_tensor(call(model, example))
    if cut.shape != masked.shape:
        return "the cut changes the shape of the output"
    scale = float(masked.abs().max()) if masked.numel() else 0.0
    if not torch.allclose(cut, masked, rtol=0, atol=TOLERANCE * scale + 1e-6, equal_nan=True):
        return "the cut network does not equal one whose readers see zero: the coupling is not what the graph says"
    return ""
