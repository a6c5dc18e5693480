"""Outcomes and plans as text."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

from thresher.budget.report import Report, aligned

if TYPE_CHECKING:
    from thresher.apps.runs import Run
    from thresher.apps.train import Plan, Result
    from thresher.apps.train.ending.speed import Speed


def outcome_lines(run: Run, result: Result, report: Report | None, speed: Speed | None, page: Path | None) -> list[str]:
    """The report's table, then what counts, a line each."""
    lines = [] if report is None else [str(report), ""]
    lines.append(result_line(result))
    if speed is not None:
        lines.append(str(speed))
    lines.append(f"run folder: {run.path}")
    if page is not None:
        lines.append(f"report page: {page}")
    return lines


def result_line(result: Result) -> str:
    """Accuracy, zeros and bytes, before and after."""
    zeros = "" if result.zeros is None else f"; zeros {result.zeros:,} of {result.entries:,} ({result.sparsity:.2%})"
    return (
        f"accuracy {result.accuracy_before:.2f} % -> {result.accuracy_after:.2f} %{zeros}; "
        f"bytes {result.dense_bytes:,} -> {result.bytes:,} ({result.bytes / max(result.dense_bytes, 1):.1%})"
    )


def plan_lines(plan: Plan) -> list[str]:
    """What would be pruned, what not and why, what it costs."""
    lines = [f"plan: {plan.model} on {plan.data}, {plan.device}; nothing was written"]
    if plan.targets:
        rows = [("tensor to prune", "shape", "entries", "MACs")]
        rows += [
            (name, "x".join(map(str, shape)), f"{entries:,}", f"{macs:,.0f}")
            for name, shape, entries, macs in plan.targets
        ]
        rows.append(("total", "", f"{plan.entries:,}", f"{sum(row[3] for row in plan.targets):,.0f}"))
        lines += ["", *aligned(rows), ""]
    by_reason: dict[str, list[tuple[str, int]]] = {}
    for name, entries, reason in plan.left_dense:
        by_reason.setdefault(reason, []).append((name, entries))
    for reason, found in by_reason.items():
        names = ", ".join(name for name, _ in found[:4]) + (f" and {len(found) - 4} more" if len(found) > 4 else "")
        lines.append(f"left dense: {names} ({sum(entries for _, entries in found):,} entries): {reason}")
    lines.append(f"whole model: {plan.parameters:,} parameters, {plan.total_macs:,.0f} multiply-adds (MACs) per image")
    if plan.method is not None:
        verdict = "reachable" if plan.reachable else "no budget" if plan.reachable is None else "NOT REACHABLE"
        lines.append(
            f"method {plan.method}, budget {plan.budget}: {verdict}" + (f" ({plan.obstacle})" * bool(plan.obstacle))
        )
    lines.append(f"data: {plan.train_images:,} images to train, {plan.test_images:,} to test")
    if plan.seconds_per_step is None or plan.seconds_per_epoch is None:
        return [*lines, "no training steps"]
    total = plan.seconds_per_epoch * plan.steps / plan.steps_per_epoch
    lines.append(
        f"steps: {plan.steps:,} ({plan.steps_per_epoch:,} per epoch), {1000 * plan.seconds_per_step:.0f} ms each; "
        f"about {plan.seconds_per_epoch:.0f} s per epoch with its test, {total / 60:.1f} minutes in all"
    )
    return lines


def report_page(runs: list[Path], out: Path) -> Path | None:
    """Write the report page; None where that part of thresher is not installed."""
    if importlib.util.find_spec("thresher.apps.report") is None:
        return None
    from thresher.apps.report import write_report

    return write_report(runs, out)
