"""Count what a finished model really holds: zeros, multiply-adds, bytes."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from thresher.attach import latent
from thresher.budget.latency import milliseconds
from thresher.budget.planner import FileSize
from thresher.budget.report import LayerReport, Report
from thresher.deploy.storage import encoded_bytes, predicted_file_bytes
from thresher.diagnostics import l1_spread
from thresher.targets import Target

if TYPE_CHECKING:
    from thresher.session.pruner import Pruner


def dense_file_bytes(model: nn.Module, record: dict[str, Any] | None) -> int:
    """Bytes of the parameters and buffers as they are stored dense (tied tensors once), without a header."""
    seen: dict[tuple[int, int], int] = {}
    for tensor in model.state_dict().values():
        seen[(tensor.data_ptr(), tensor.numel())] = tensor.nbytes
    return sum(seen.values())


def file_size_of(model: nn.Module, targets: Sequence[Target], record: dict[str, Any] | None) -> FileSize:
    """A function from keep masks to the exact size of the file that `thresher.save(model, record=record)` writes.

    Call it before anything is attached: it notes names, shapes and types of the plain model.
    """
    plain = {name: tensor.detach() for name, tensor in model.state_dict().items()}
    names = [target.name for target in targets]

    def size(masks: Sequence[Tensor]) -> int:
        return predicted_file_bytes(plain, keep=dict(zip(names, masks, strict=True)), record=record)

    return size


def measure(pruner: Pruner, touched: int) -> Report:
    """The report of a finished run, counted on the plain weights."""
    layers = []
    known = bool(pruner.positions)
    for target in pruner.targets:
        weight = latent(target).detach()
        zeros = int((weight == 0).sum())
        cost = pruner.costs[target.name] if known else None
        layers.append(
            LayerReport(
                name=target.name,
                shape=target.shape,
                entries=target.numel,
                zeros=zeros,
                macs=None if cost is None else cost * target.numel,
                macs_left=None if cost is None else cost * (target.numel - zeros),
                bytes=encoded_bytes(weight),
            )
        )
    entries, zeros = sum(layer.entries for layer in layers), sum(layer.zeros for layer in layers)
    params = sum(int(torch.count_nonzero(parameter)) for parameter in pruner.model.parameters())
    total_params = sum(parameter.numel() for parameter in pruner.model.parameters())
    macs = total_macs = None
    if known:
        macs = pruner.fixed_macs + sum(layer.macs_left or 0.0 for layer in layers)
        total_macs = pruner.fixed_macs + sum(layer.macs or 0.0 for layer in layers)
    size = predicted_file_bytes(pruner.model, record=pruner._record)
    got: dict[str, float] = {"sparsity": zeros / entries}
    budget = pruner.budget
    if budget is not None and budget.params is not None:
        got["params"] = total_params - entries + entries - zeros
    if budget is not None and budget.flops is not None and macs is not None:
        got["flops"] = macs
    if budget is not None and budget.bytes is not None:
        got["bytes"] = size
    timed = _latency(pruner, [layer.entries - layer.zeros for layer in layers])
    if timed is not None:
        got["latency"] = timed["measured"]
    notes = [f"{layer.name} is empty" for layer in layers if layer.zeros == layer.entries]
    if pruner.step < pruner.steps:
        notes.append(f"finished at step {pruner.step} of {pruner.steps}")
    if timed is not None and timed["measured"] > timed["limit"]:
        over = f"{milliseconds(timed['measured'])} measured, over the limit of {milliseconds(timed['limit'])}"
        notes.append(f"latency: {over} that the table of layers meets; ask for less, or measure on an idle machine")
    spread = l1_spread(pruner.trace.clock, pruner.trace.thresholds)
    return Report(
        method=pruner.method.name,
        asked="none" if budget is None else str(budget),
        got=got,
        layers=tuple(layers),
        params=params,
        total_params=total_params,
        macs=macs,
        total_macs=total_macs,
        bytes=size,
        dense_bytes=pruner._dense_bytes,
        touched=touched,
        skipped=tuple((skip.name, skip.reason) for skip in pruner.skipped),
        notes=tuple(notes),
        latency=timed,
        l1=spread._asdict() if spread.median > 0 and math.isfinite(spread.high) else None,
    )


def _latency(pruner: Pruner, kept: Sequence[int]) -> dict[str, Any] | None:
    """What `latency=` asked, what the table says of the pruned network, and what that really takes; None without it."""
    if pruner.speed is None or pruner.planner is None or pruner.planner.budget.latency is None:
        return None
    clock, table = pruner.speed.clock, pruner.planner.table
    return {
        "limit": table.limit(pruner.planner.budget.latency),
        "dense": table.dense,
        "predicted": table.seconds(kept),
        "measured": clock.network(pruner.model, pruner.speed.example),
        "engine": clock.name,
        "threads": clock.threads,
    }
