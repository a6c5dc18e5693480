"""Asked against got: every method at every kind of budget, on a small network trained for a moment.

    python benchmarks/budgets.py            # writes benchmarks/results/budgets.json

The network is the small CNN on digits, 60 steps per run. `before` is the sparsity that the method had reached by itself
before the exact projection, `touched` the entries that the projection changed. A budget that cannot be had is recorded
with the reason that the library gives.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import torch

import thresher
from thresher.apps.data import Batches, load_data
from thresher.apps.models import build_model
from thresher.methods import method_names

RESULTS = Path(__file__).parent / "results" / "budgets.json"
BUDGETS = (
    *(f"sparsity={share}%" for share in (50, 80, 90, 95, 99)),
    "params=20%",
    "params=2000",
    "flops=25%",
    "bytes=32KB",
    "bytes=16KB",
    "params=30%,flops=20%",
    "sparsity=99.99%",
)


def run(method: str, budget: str, data: Any, steps: int) -> dict[str, Any]:
    """One row."""
    torch.manual_seed(0)
    model = build_model("small-cnn", num_classes=len(data.classes), input_shape=data.input_shape)
    batches = Batches(data.train, 64, train=True, mean=data.mean, std=data.std, seed=0, device="cpu")
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    row: dict[str, Any] = {"method": method, "asked": budget}
    try:
        pruner = thresher.prune(model, optimizer, method, budget, steps=steps, lr_schedule=scheduler)
        while pruner.step < steps:
            for inputs, labels in batches:
                if pruner.step == steps:
                    break
                torch.nn.functional.cross_entropy(model(inputs), labels).backward()
                optimizer.step()
                optimizer.zero_grad()
                scheduler.step()
        before = pruner.sparsity
        report = pruner.finish()
    except thresher.BudgetError as error:
        return {**row, "refused": str(error)}
    return {
        **row,
        "got": report.got,
        "zeros": report.zeros,
        "entries": report.entries,
        "before": before,
        "touched": report.touched,
        "met": met(thresher.Budget.parse(budget), report),
    }


def met(budget: thresher.Budget, report: thresher.Report) -> bool:
    """Whether every limit holds; sparsity to the entry."""
    exact = budget.sparsity is None or budget.params is not None or budget.flops is not None or budget.bytes is not None
    checks = [exact or report.zeros == int(budget.sparsity * report.entries + 1e-9)]  # type: ignore[operator]
    if budget.params is not None:
        checks.append(report.params <= budget.params.limit(report.total_params))
    if budget.flops is not None:
        checks.append(report.macs <= budget.flops.limit(report.total_macs))  # type: ignore[operator]
    if budget.bytes is not None:
        checks.append(report.bytes <= budget.bytes.limit(report.dense_bytes))
    return all(checks)


def main() -> None:
    """Every method at every budget."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=method_names())
    parser.add_argument("--steps", type=int, default=60)
    args = parser.parse_args()
    data = load_data("digits")
    rows = []
    for method in args.methods:
        for budget in BUDGETS:
            rows.append(run(method, budget, data, args.steps))
            print(json.dumps(rows[-1]), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
