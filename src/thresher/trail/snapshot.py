"""One moment of a run as a plain network: weights as evaluation sees them, and what it costs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from thresher.attach import finalize_copy
from thresher.budget.counts import eval_mode
from thresher.deploy.storage import predicted_file_bytes
from thresher.deploy.storage.state import ties_of
from thresher.errors import NumericsError
from thresher.methods import method_record
from thresher.trail.point import Point

if TYPE_CHECKING:
    from thresher.session import Pruner

WIDE = {"float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True, kw_only=True, eq=False)
class Snapshot:
    """`network`: plain, in eval mode, with exactly the weights that are stored. `state`: the tensors to store.
    `dtypes`: name -> own type of those stored in 16 bits. `point`: what is known without measuring."""

    network: nn.Module
    state: dict[str, Tensor]
    dtypes: dict[str, str]
    point: Point


def take(pruner: Pruner, *, half: bool) -> Snapshot:
    """The present network of `pruner`, at work or finished; the run is not touched.

    Weights are read in eval mode, because some methods gate softly in training and exactly in evaluation. With `half`
    the prunable tensors are rounded to float16, but for those in which that would make a weight zero or infinite.

    Errors: NumericsError when a tensor holds NaN or infinity.
    """
    with eval_mode(pruner.model):
        network = finalize_copy(pruner.model)
    # Cloned: what a measurement does to the network must not reach what is stored.
    state = _cloned(network.state_dict())
    owners = ties_of(state)
    dtypes: dict[str, str] = {}
    zeros = {}
    for target in pruner.targets:
        owner = owners.get(target.name, target.name)
        weight = state[owner]
        weight = torch.where(weight == 0, weight.new_zeros(()), weight)  # -0.0 would be stored as a value
        zeros[target.name] = int((weight == 0).sum())
        names = [owner, *(alias for alias, first in owners.items() if first == owner)]
        if half and (rounded := _halved(weight)) is not None:
            dtypes |= dict.fromkeys(names, str(weight.dtype).removeprefix("torch."))
            weight = rounded
        state |= dict.fromkeys(names, weight)
    for name, tensor in state.items():
        if (tensor.is_floating_point() or tensor.is_complex()) and not torch.isfinite(tensor).all():
            raise NumericsError(f"{name} with NaN or infinity", "finite tensors", "go back to the last good checkpoint")
    plain = widen(state, dtypes)
    network.load_state_dict(plain)
    return Snapshot(network=network, state=state, dtypes=dtypes, point=_point(pruner, network, plain, zeros))


def widen(state: dict[str, Tensor], dtypes: dict[str, str]) -> dict[str, Tensor]:
    """`state` with each tensor in its own type again; tied names keep sharing one tensor."""
    done: dict[int, Tensor] = {}
    plain = {}
    for name, tensor in state.items():
        wide = done.setdefault(id(tensor), tensor.to(WIDE[dtypes[name]]) if name in dtypes else tensor)
        plain[name] = wide
    return plain


def _cloned(state: dict[str, Tensor]) -> dict[str, Tensor]:
    ties = ties_of(state)
    cloned = {name: tensor.clone() for name, tensor in state.items() if name not in ties}
    return {name: cloned[ties.get(name, name)] for name in state}


def _halved(weight: Tensor) -> Tensor | None:
    if weight.dtype not in WIDE.values():
        return None
    rounded = weight.to(torch.float16)
    same = torch.equal(rounded == 0, weight == 0) and torch.equal(torch.isfinite(rounded), torch.isfinite(weight))
    return rounded if same else None


def _point(pruner: Pruner, network: nn.Module, plain: dict[str, Tensor], zeros: dict[str, int]) -> Point:
    entries, gone = sum(target.numel for target in pruner.targets), sum(zeros.values())
    flops = dense_flops = None
    if pruner.positions:
        cost = {target.name: pruner.costs[target.name] for target in pruner.targets}
        dense_flops = float(pruner.fixed_macs + sum(cost[target.name] * target.numel for target in pruner.targets))
        flops = float(dense_flops - sum(cost[name] * count for name, count in zeros.items()))
    params = sum(parameter.numel() for parameter in network.parameters())
    whole = {target.name: torch.ones(target.shape, dtype=torch.bool) for target in pruner.targets}
    thresholds = zip(pruner.targets, pruner.process.thresholds(), strict=True)
    return Point(
        step=pruner.step,
        entries=entries,
        zeros=gone,
        params=params - gone,
        dense_params=params,
        bytes=predicted_file_bytes(plain, record=pruner.record),
        dense_bytes=predicted_file_bytes(plain, keep=whole, record=pruner.record),
        flops=flops,
        dense_flops=dense_flops,
        thresholds={target.name: float(value) if math.isfinite(value) else None for target, value in thresholds},
        method=method_record(pruner.method),
        budget=None if pruner.budget is None else str(pruner.budget),
        model=pruner.record,
    )
