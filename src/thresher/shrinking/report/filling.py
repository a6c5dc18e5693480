"""Fill the records of a shrinking run from what was measured."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from thresher.deploy.storage import predicted_file_bytes
from thresher.recovery import Compressibility, fit_compressibility, refit_loss, slope_of
from thresher.shrinking.allocation.curves import Curve
from thresher.shrinking.allocation.latency import LatencyReport
from thresher.shrinking.allocation.predicting import Prediction
from thresher.shrinking.allocation.replaying import output_of
from thresher.shrinking.bounds.propagation import output_bound
from thresher.shrinking.passes import CutGroup
from thresher.shrinking.report.records import GroupReport, ShrinkReport
from thresher.structure import LeftWhole


def group_report(cut: CutGroup, predicted: Prediction | None) -> GroupReport:
    """The record of one group that was cut."""
    group, seen, recovery, refitted = cut.group, cut.seen, cut.recovery, cut.refitted
    problem = seen.problem
    loss = refit_loss(problem, recovery.support) if refitted else recovery.loss
    share = loss / problem.energy if problem.energy > 0 else 0.0
    kept = len(recovery.support)
    fit = fit_compressibility(problem.sizes) if int((problem.sizes > 0).sum()) > 1 else None
    plain = {} if predicted is None else predicted.plain
    half = {size: value for size, value in plain.items() if size <= group.units // 2 and value > 0}
    return GroupReport(
        name=group.name,
        units=group.units,
        kept=kept,
        relative_error=share,
        predicted_error=predicted.error(kept) if predicted is not None and predicted.gain else None,
        losses=recovery.losses,
        energy=problem.energy,
        curve=() if predicted is None else tuple(sorted(predicted.curve.items())),
        decay=_decay(plain, fit, group.units),
        p=None if fit is None else fit.p,
        exponent=None if fit is None else fit.exponent,
        covered=fit is not None and fit.covered,
        measured_slope=slope_of(half) if len(half) > 1 else None,
        residual=(2 * loss / max(seen.samples, 1)) ** 0.5,
        moments=seen.kind,
        refitted=refitted,
    )


def _decay(plain: Curve, fit: Compressibility | None, units: int) -> tuple[tuple[int, float, float], ...]:
    """Measured residuals without refit, and s^(1 − 2/p) through one of them."""
    positive = [size for size, value in plain.items() if value > 0]
    if fit is None or not positive:
        return ()
    start = min(positive, key=lambda size: abs(size - units / 8))
    return tuple(
        (size, plain[size], fit.decay(size, at=start, value=plain[start])) for size in sorted(plain) if size < units
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
    residuals: Mapping[str, float | None],
    notes: Sequence[str],
    latency: LatencyReport | None = None,
) -> ShrinkReport:
    """The record of the whole run; the output is measured on the first batch."""
    before, after = output_of(dense, inputs), output_of(small, inputs)
    change, energy = float((before - after).square().sum()), float(before.square().sum())
    predicted = [group.predicted_error for group in groups]
    # The sum over all samples bounds the sum over the first batch, on which the output is measured.
    count = max(len(before), 1)
    bound = output_bound(
        dense, {name: None if value is None else value / count**0.5 for name, value in residuals.items()}
    )
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
        error_per_sample=(change / count) ** 0.5,
        bound=bound.value,
        bound_proven=bound.value is not None,
        bound_note=bound.note,
        notes=tuple(notes),
        latency=latency,
    )
