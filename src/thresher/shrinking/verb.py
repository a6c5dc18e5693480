"""`thresher.shrink`: a new, physically smaller network from a trained one and unlabeled inputs."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Mapping, Sequence, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any

from torch import nn

from thresher.budget.language import Budget
from thresher.errors import BudgetError, InputError
from thresher.shrinking.allocation.costs import Costs
from thresher.shrinking.allocation.curves import grid_of
from thresher.shrinking.allocation.latency import report_of
from thresher.shrinking.allocation.predicting import Prediction, predictions
from thresher.shrinking.allocation.sizing import sizes_of
from thresher.shrinking.calibration import Calibration, count_of, head_of, held, opened
from thresher.shrinking.choosing import Choice, candidates
from thresher.shrinking.layers import MOST_ROWS, Gathered
from thresher.shrinking.passes import CutGroup, Reading, cut_in_order, gather
from thresher.shrinking.report.filling import group_report, whole_report
from thresher.shrinking.report.records import GroupReport, ShrinkReport
from thresher.shrinking.selections.registry import Selection, parse_selection
from thresher.structure import LeftWhole, ShrinkPlan, coupled_groups, proven, rejoin, separable, separate_attention
from thresher.targets import Rule, parse_rule

MEMORY = 4 << 30
# Columns for each row of C that a residual curve is worked out from, when there are more.
ENOUGH = 16
FEWEST_SAMPLES, MOST_SAMPLES = 4, 16


@dataclass(frozen=True, eq=False)
class Shrunk:
    """model: the smaller network, with refitted weights. plan: what was cut, replayable on a fresh dense network.
    report: what it costs and how far it is off."""

    model: nn.Module
    plan: ShrinkPlan
    report: ShrinkReport


def shrink(model: nn.Module, method: Selection | str = "ispasp", budget: Any = None, **options: Any) -> nn.Module:
    """The model of `shrink_plan(model, method, budget, ...)`: new and smaller; the old one is left as it is."""
    return shrink_plan(model, method, budget, **options).model


def shrink_plan(
    model: nn.Module,
    method: Selection | str = "ispasp",
    budget: str | Mapping[str, object] | Budget | None = None,
    *,
    calibration: Iterable[Any],
    keep: Mapping[str, int | float] | None = None,
    example: Any = None,
    rules: Sequence[Rule | str] = (),
    round_to: int = 1,
    scope: str = "inside",
    allocation: str = "residual",
    limit: int | None = None,
    most_rows: int = MOST_ROWS,
    memory: int = MEMORY,
) -> Shrunk:
    """Choose hidden units layer by layer on inputs of the already pruned prefix, cut them out, and say what it cost.

    Args:
        method: `thresher.ISpaSP(...)` or a name: ispasp, gfs, greedy, omp, l1, l2, bn-scale, taylor, random.
        budget: "flops=50%", "params=...", "bytes=...", "latency=5ms" (measured), alone or several; shares are of the
            dense network.
        calibration: batches of inputs (tensors, (inputs, labels), or mappings); labels are not used. One that can be
            gone through again may be read several times, an iterator is read once.
        keep: instead of a budget or beside it, layer pattern to units (int) or share (float) to keep.
        example: one batch for tracing and for timing; default: two samples, and one, of the first of `calibration`.
        rules: `thresher.exclude/dense/bound/include(...)` on the layers that make units.
        round_to: sizes are multiples of it. scope: "inside" leaves residual streams, "across" cuts them too.
        allocation: "residual" (least predicted output error) or "uniform" (the same share everywhere).
        limit: at most that many batches. most_rows: largest C over channel-taps; beyond, channels only.
        memory: bytes that batches may take to go through the network side by side, so that one pass serves every layer;
            beyond, there is a pass for each layer (an iterator's layers are then all chosen on the dense network).

    Errors: InputError, BudgetError, StateError, MissingExtraError, each saying what to do.

    >>> import torch
    >>> _ = torch.manual_seed(0)
    >>> net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    >>> shrink_plan(net, "ispasp", "flops=50%", calibration=[torch.randn(32, 4)]).model[0].out_features
    4
    """
    selection = parse_selection(method)
    asked = None if budget is None else Budget.parse(budget)
    if asked is not None and asked.sparsity is not None:
        raise BudgetError(
            f"sparsity in {asked}", "flops, params, bytes or latency", "smaller layers have no zeros: use params="
        )
    if asked is None and not keep:
        raise BudgetError("no budget", 'budget="flops=50%", or keep={...}', "say how small the network shall be")
    if allocation not in ("residual", "uniform"):
        raise InputError(f"allocation={allocation!r}", "'residual' or 'uniform'", "correct allocation")
    given = model
    if any(separable(module) for module in model.modules()):
        model = separate_attention(model)
    data = opened(calibration, model)
    if hasattr(selection, "prepared"):  # a selection that looks at the whole network first
        selection = selection.prepared(model, None if data.once else islice(calibration, limit))
    example = data.example if example is None else example
    found, untraced = coupled_groups(model, example)
    good, bad = proven(model, example, found)
    parsed = [parse_rule(rule) if isinstance(rule, str) else rule for rule in rules]
    choices, left = candidates(model, good, rules=parsed, keep=keep, round_to=round_to, scope=scope)
    groups = [choice.group for choice in choices]
    readers = {member.module for group in groups for member in group.readers}
    data = held(data, model, sorted(readers), limit=limit, memory=memory)
    costs = Costs(model, example, groups)
    free = asked is not None and any(len(choice.sizes) > 1 for choice in choices)
    reading = Reading(most_rows=most_rows, limit=limit, columns=getattr(selection, "columns", 0))
    working = copy.deepcopy(model)
    dense: dict[str, Gathered] = {}
    predicted: dict[str, Prediction] | None = None
    once = data.once and data.held is None
    if once or (free and allocation == "residual"):
        dense = gather(model, groups, data.again(), reading, enough=None if once else ENOUGH)
    if free and allocation == "residual":
        grids = {choice.group.name: _grid(choice, dense[choice.group.name]) for choice in choices}
        predicted = predictions(
            working, data.first, choices, dense, selection, grids, samples=_samples(data, len(choices), limit)
        )
    one = head_of(data.first, 1) if example is data.example else example
    sizes, timed = sizes_of(asked, choices, costs, predicted, model=model, one=one)
    if not once:
        dense.clear()
    kept: dict[str, list[int]] = {}
    residuals: dict[str, float | None] = {}
    reports: list[GroupReport] = []
    work = [(group, sizes[group.name]) for group in groups if sizes[group.name] < group.units]

    def told(each: CutGroup) -> None:
        name = each.group.name
        kept[name] = each.recovery.support.tolist()
        for reader, size in each.residuals.items():
            known = residuals.get(reader, 0.0)
            residuals[reader] = None if size is None or known is None else size + known
        reports.append(group_report(each, None if predicted is None else predicted[name]))

    cut_in_order(working, work, selection, data, reading, dense.__getitem__, told)
    plans = tuple(group.plan(kept.get(group.name, range(group.units))) for group in groups)
    plan = ShrinkPlan(model=type(model).__name__, groups=plans)
    small = plan.apply(working)
    rejoin(small, given)
    notes = ["moments of the dense network for every layer: calibration can be read only once"] if once else []
    report = whole_report(
        method=repr(selection),
        asked="" if asked is None else str(asked),
        keep=keep,
        dense=model,
        small=small,
        inputs=data.first,
        groups=reports,
        left=[*untraced, *bad, *left],
        costs=(costs.of(sizes), costs.of({})),
        residuals=residuals,
        notes=notes,
        latency=timed and report_of(*timed, model, small, one),
    )
    return Shrunk(small, plan, report)


def _samples(data: Calibration, groups: int, limit: int | None) -> int:
    """On how many samples a group's effect on the output is measured: in all some 0.75 passes over the data."""
    batches = data.batches if data.held is None else data.held
    known = MOST_SAMPLES * 4 * groups
    if isinstance(batches, Sized):
        known = len(range(len(batches))[:limit]) * count_of(data.first)
    return min(max(known // (4 * groups), FEWEST_SAMPLES), MOST_SAMPLES)


def _grid(choice: Choice, seen: Gathered) -> list[int]:
    rows = max(part.moments.shape[0] for part in seen.problem.parts)
    outputs = max(part.factor.shape[0] for part in seen.problem.parts)
    return grid_of(choice.sizes, rows, outputs)


__all__ = ["LeftWhole", "Shrunk", "shrink", "shrink_plan"]
