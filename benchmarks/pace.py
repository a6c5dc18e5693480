"""How steady a pace can be: small networks at a constant L1 coefficient, and under the controller.

    python benchmarks/pace.py            # writes benchmarks/results/pace.json

A convolutional network and a multilayer perceptron (26 000 weights each) are trained on scikit-learn's digits, then
pruned with `lats` for 400 or 1600 steps (SGD 0.05, momentum 0.9, cosine), to 80, 90, 95 and 98 % zeros, two seeds.
`constant`: the pace of the first plan, never changed; `controlled`: as the library does it. A row says how far the
sparsity lay from what was asked before the projection, how many entries that changed, and the spread of lambda.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

import thresher
from thresher.apps.data import Batches, load_data
from thresher.budget.control import RecedingHorizon
from thresher.diagnostics.l1 import l1_spread

RESULTS = Path(__file__).parent / "results" / "pace.json"


def convolutional() -> nn.Module:
    """Three convolutions with batch norm, one linear layer."""
    layers: list[nn.Module] = []
    for wide, narrow, stride in ((16, 1, 1), (32, 16, 2), (64, 32, 2)):
        layers += [nn.Conv2d(narrow, wide, 3, stride, padding=1), nn.BatchNorm2d(wide), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), nn.Linear(256, 10))


def perceptron() -> nn.Module:
    """Two hidden layers of 128 units, no normalisation."""
    return nn.Sequential(
        nn.Flatten(), nn.Linear(64, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 10)
    )


def train(model: nn.Module, steps: int, data: Any, seed: int, budget: str | None = None) -> thresher.Pruner | None:
    """SGD with cosine; pruned with `lats` to `budget` if there is one."""
    batches = Batches(data.train, 64, train=True, mean=data.mean, std=data.std, seed=seed, device="cpu")
    optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    pruner = None
    if budget is not None:
        pruner = thresher.prune(model, optimizer, "lats", budget, steps=steps, lr_schedule=scheduler)
    step = 0
    while step < steps:
        for inputs, labels in batches:
            if step == steps:
                break
            nn.functional.cross_entropy(model(inputs), labels).backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
            step += 1
    return pruner


def main() -> None:
    """Run and write."""
    torch.set_num_threads(1)
    data = load_data("digits")
    replan = RecedingHorizon.replan
    rows = []
    for make in (convolutional, perceptron):
        torch.manual_seed(0)
        dense = make()
        train(dense, 600, data, seed=0)
        for pace in ("constant", "controlled"):
            # The pace of the first plan, kept.
            RecedingHorizon.replan = (lambda self, *_: self._rate) if pace == "constant" else replan  # type: ignore[method-assign]
            for steps in (400, 1600):
                for sparsity in (80, 90, 95, 98):
                    for seed in (0, 1):
                        pruner = train(copy.deepcopy(dense), steps, data, seed, f"sparsity={sparsity}%")
                        assert pruner is not None
                        before, trace, report = pruner.sparsity, pruner.trace, pruner.finish()
                        _, low, high = l1_spread(trace.clock, trace.thresholds)
                        row = {
                            "network": make.__name__,
                            "pace": pace,
                            "steps": steps,
                            "sparsity": sparsity,
                            "seed": seed,
                            "before": before,
                            "touched": report.touched / report.entries,
                            "l1_low": low,
                            "l1_high": high,
                        }
                        rows.append(row)
                        print(json.dumps(row), flush=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
