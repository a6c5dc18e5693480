"""Fill the records of a shrinking run from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from thresher.deploy.storage import predicted_file_bytes
from thresher.recovery import Recovery, fit_compressibility, refit_loss, slope_of
from thresher.shrinking.bounds import is_chain, propagated_bound
from thresher.shrinking.layers import Gathered
from thresher.shrinking.predicting import Curve, between, output_of
from thresher.shrinking.report import GroupReport, ShrinkReport
from thresher.structure import CoupledGroup, LeftWhole, Member, running_order


def group_report(
    group: CoupledGroup,
    seen: Gathered,
    recovery: Recovery,
    curve: Curve | None,
    gain: Curve | None,
    refitted: bool,
) -> GroupReport:
    """The record of one group that was cut."""
    problem = seen.problem
    loss = refit_loss(problem, recovery.support) if refitted else recovery.loss
    share = loss / problem.energy if problem.energy > 0 else 0.0
    kept = len(recovery.support)
    fit = fit_compressibility(problem.sizes) if int((problem.sizes > 0).sum()) > 1 else None
    half = {size: value for size, value in (curve or {}).items() if size <= group.units // 2 and value > 0}
    return GroupReport(
        name=group.name,
        units=group.units,
        kept=kept,
        relative_error=share,
        predicted_error=None if curve is None or gain is None else between(gain, kept) * between(curve, kept),
        losses=recovery.losses,
        energy=problem.energy,
        curve=tuple(sorted((curve or {}).items())),
        p=None if fit is None else fit.p,
        exponent=None if fit is None else fit.exponent,
        covered=fit is not None and fit.covered,
        measured_slope=slope_of(half) if len(half) > 1 else None,
        residual=(2 * loss / max(seen.samples, 1)) ** 0.5,
        moments=seen.kind,
        refitted=refitted,
    )


def whole_report(
    *,
    method: str,
    asked: str,
    keep: Mapping[str, int | float] | None,
    dense: nn.Module,
    small: nn.Module,
    inputs: Any,
    groups: Sequence[GroupReport],
    left: Sequence[LeftWhole],
    costs: tuple[Mapping[str, float], Mapping[str, float]],
    readers: Mapping[str, tuple[Member, ...]],
    notes: Sequence[str],
) -> ShrinkReport:
    """The record of the whole run; the output is measured on the first batch."""
    before, after = output_of(dense, inputs), output_of(small, inputs)
    change, energy = float((before - after).square().sum()), float(before.square().sum())
    predicted = [group.predicted_error for group in groups]
    # With several readers the loss is relative, so there is no one residual to carry on.
    single = {group.name: group.residual for group in groups if len(readers[group.name]) == 1}
    residuals = {readers[name][0].module: value for name, value in single.items()}
    now, whole = costs
    return ShrinkReport(
        method=method,
        asked=", ".join(filter(None, [asked, "" if not keep else f"keep {dict(keep)}"])),
        groups=tuple(groups),
        left_whole=tuple((each.name, each.reason) for each in left),
        macs=now["flops"],
        total_macs=whole["flops"],
        params=sum(parameter.numel() for parameter in small.parameters()),
        total_params=sum(parameter.numel() for parameter in dense.parameters()),
        bytes=predicted_file_bytes(small),
        total_bytes=predicted_file_bytes(dense),
        predicted_error=None if None in predicted else sum(value or 0.0 for value in predicted) ** 0.5,
        output_error=(change / energy) ** 0.5 if energy > 0 else 0.0,
        error_per_sample=(change / max(len(before), 1)) ** 0.5,
        bound=propagated_bound(dense, running_order(dense, inputs), residuals),
        bound_proven=is_chain(dense) and len(residuals) == len(groups),
        notes=tuple(notes),
    )
