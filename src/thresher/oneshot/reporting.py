"""Count what the pruned network holds, and meet a `bytes=` limit that the masks could only estimate."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from thresher.attach import latent
from thresher.budget.language import Budget
from thresher.budget.planner import FileSize, Planner
from thresher.budget.report import LayerReport, Report
from thresher.deploy.storage import encoded_bytes, predicted_file_bytes
from thresher.oneshot.layers import Layer
from thresher.operators import Groups
from thresher.targets import Skipped


def dense_bytes(model: nn.Module) -> int:
    """Bytes of all parameters and buffers, tied ones once."""
    found = {(tensor.data_ptr(), tensor.numel()): tensor.nbytes for tensor in model.state_dict().values()}
    return sum(found.values())


def file_size_of(model: nn.Module, layers: Sequence[Layer]) -> FileSize:
    """Masks (outputs first) -> size of the file that `thresher.save` would write."""
    plain = {name: tensor.detach() for name, tensor in model.state_dict().items()}

    def size(masks: Sequence[Tensor]) -> int:
        stored = [mask.T if layer.transposed else mask for layer, mask in zip(layers, masks, strict=True)]
        return predicted_file_bytes(plain, keep={layer.name: mask for layer, mask in zip(layers, stored, strict=True)})

    return size


def meet_bytes(model: nn.Module, layers: Sequence[Layer], groups: Groups, budget: Budget) -> int:
    """Zero the smallest weights that are still there until the file is small enough; how many that took."""
    if budget.bytes is None:
        return 0
    weights = []
    for layer in layers:
        stored = latent(layer.target).detach()
        weights.append(stored.T if layer.transposed else stored)
    size = file_size_of(model, layers)
    limit = budget.bytes.limit(size([torch.ones(layer.target.shape, dtype=torch.bool) for layer in layers]))
    if predicted_file_bytes(model) <= limit:
        return 0
    planner = Planner(Budget(bytes=budget.bytes), [layer.target for layer in layers], groups, file_size=size)
    touched = 0
    masks = planner.solve([groups.magnitude(weight) for weight in weights]).keep
    for layer, weight, keep in zip(layers, weights, masks, strict=True):
        touched += int(((weight != 0) & ~keep).sum())
        layer.write(weight, ~keep)
    return touched


def budget_report(
    model: nn.Module,
    layers: Sequence[Layer],
    *,
    method: str,
    asked: str,
    budget: Budget | None,
    dense: int,
    costs: Sequence[float] | None,
    fixed_macs: float,
    touched: int,
    skipped: Sequence[Skipped],
    notes: Sequence[str],
) -> Report:
    """The report of the network as it is now."""
    rows = []
    for place, layer in enumerate(layers):
        weight = latent(layer.target).detach()
        entries, zeros = weight.numel(), int((weight == 0).sum())
        cost = None if costs is None else costs[place]
        rows.append(
            LayerReport(
                name=layer.name,
                shape=layer.target.shape,
                entries=entries,
                zeros=zeros,
                macs=None if cost is None else cost * entries,
                macs_left=None if cost is None else cost * (entries - zeros),
                bytes=encoded_bytes(weight),
            )
        )
    zeros, entries = sum(row.zeros for row in rows), sum(row.entries for row in rows)
    parameters = list(model.parameters())
    total = sum(parameter.numel() for parameter in parameters)
    macs = None if costs is None else fixed_macs + sum(row.macs_left or 0.0 for row in rows)
    size = predicted_file_bytes(model)
    got: dict[str, float] = {"sparsity": zeros / entries}
    if budget is not None and budget.params is not None:
        got["params"] = total - zeros
    if budget is not None and budget.flops is not None and macs is not None:
        got["flops"] = macs
    if budget is not None and budget.bytes is not None:
        got["bytes"] = size
    return Report(
        method=method,
        asked=asked,
        got=got,
        layers=tuple(rows),
        params=sum(int(torch.count_nonzero(parameter)) for parameter in parameters),
        total_params=total,
        macs=macs,
        total_macs=None if costs is None else fixed_macs + sum(row.macs or 0.0 for row in rows),
        bytes=size,
        dense_bytes=dense,
        touched=touched,
        skipped=tuple((skip.name, skip.reason) for skip in skipped),
        notes=tuple(notes),
    )
