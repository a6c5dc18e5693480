"""Draw the figures of docs/unity.md and docs/gallery.md, from the library's own functions and from benchmarks/results.

python benchmarks/figures.py           # writes docs/figures/*.svg; half a minute on one core
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import torch
from tables import RESULTS, ROOT, rows_of
from torch import nn

import thresher
from thresher.operators import hard_threshold, parse_groups, power_threshold, soft_gate, soft_threshold

matplotlib.use("svg")
plt.rcParams |= {"svg.hashsalt": "thresher", "font.size": 9, "axes.grid": True, "grid.alpha": 0.3}

OUT = ROOT / "docs" / "figures"
THRESHOLD = 0.5


def operators() -> None:
    """The four operators: the weight that is used, against the weight that is stored."""
    theta = torch.linspace(-1.5, 1.5, 601)
    d = torch.tensor([THRESHOLD])
    drawn: dict[str, torch.Tensor] = {
        "soft (LATS, STR, ST-3)": soft_threshold(theta, d),
        "hard (magnitude, ASL)": hard_threshold(theta, d),
        "gate (LTP), T = 0.02": soft_gate(theta, d.square(), 0.02),
        "power, p = 3 (Power-p)": power_threshold(theta, d, p=3.0),
    }
    figure, panels = plt.subplots(1, 4, figsize=(10, 2.6), layout="constrained", sharey=True)
    for panel, (label, weight) in zip(panels, drawn.items(), strict=True):
        panel.plot(theta, theta, color="0.75", linewidth=1)
        panel.plot(theta, weight, color="#2a78d6")
        for at in (-THRESHOLD, THRESHOLD):
            panel.axvline(at, color="#a12321", linestyle="--", linewidth=0.8)
        panel.set(title=label, xlabel="stored weight θ")
    panels[0].set_ylabel("weight in use w")
    _save(figure, "unity-operators")


def groups() -> None:
    """Which entries of one and the same matrix stay, by what decides together."""
    torch.manual_seed(3)
    theta = torch.randn(12, 16)
    figure, panels = plt.subplots(1, 5, figsize=(10, 2.2), layout="constrained")
    for panel, text in zip(panels, ("weight", "2:4", "block:4x1", "row", "column"), strict=True):
        group = parse_groups(text)
        # The threshold at which half of the entries go.
        sizes = group.magnitude(theta).expand_as(theta).flatten()
        level = torch.quantile(sizes, 0.5) if text != "2:4" else torch.tensor(9.0)
        kept = soft_threshold(theta, level.reshape(1), groups=group) != 0
        panel.imshow(kept, cmap="Blues", vmin=0, vmax=1.3, aspect="equal")
        panel.set(title=f"{text}: {1 - kept.float().mean():.0%} zeros", xticks=[], yticks=[])
        panel.grid(False)
    _save(figure, "unity-groups")


def movers() -> None:
    """Thresholds over a real run of each method, a small network on digits, to 90 % zeros."""
    from sklearn.datasets import load_digits

    digits = load_digits()
    inputs = torch.tensor(digits.data, dtype=torch.float32) / 16
    labels = torch.tensor(digits.target)
    steps = 240
    figure, panels = plt.subplots(1, 4, figsize=(10, 2.6), layout="constrained")
    for panel, (method, what) in zip(
        panels,
        (("lats", "LATS: a schedule"), ("ltp", "LTP: a gradient"), ("asl", "ASL: a budget"), ("gmp", "GMP: a ranking")),
        strict=True,
    ):
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 10))
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        pruner = thresher.prune(model, optimizer, method, "sparsity=90%", steps=steps, lr_schedule=schedule)
        for step in range(steps):
            rows = torch.randint(len(inputs), (128,), generator=torch.Generator().manual_seed(step))
            nn.functional.cross_entropy(model(inputs[rows]), labels[rows]).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        trace = pruner.trace
        for column, name in enumerate(trace.names):
            panel.plot(trace.steps, [row[column] for row in trace.thresholds], label=name.removesuffix(".weight"))
        panel.set(title=what, xlabel="optimizer step", ylim=(0, None))
        pruner.finish()
    panels[0].set_ylabel("threshold")
    panels[-1].legend(title="layer", fontsize=7, title_fontsize=7, frameon=False)
    _save(figure, "unity-movers")


def recovery() -> None:
    """Decay of the residual with the units kept: measured, beside what compressibility predicts."""
    found = json.loads((RESULTS / "recovery_decay.json").read_text())["rows"]
    axes = plt.figure(figsize=(4.6, 3.4), layout="constrained").subplots()
    ends = [min(row["predicted"] for row in found) - 0.3, -1.0]
    axes.plot(ends, ends, color="0.6", linestyle="--", label="as predicted")
    for units, marker in ((100, "o"), (200, "s")):
        rows = [row for row in found if row["units"] == units]
        axes.plot(
            [row["predicted"] for row in rows],
            [row["measured"] for row in rows],
            marker,
            label=f"{units} hidden units",
        )
    axes.set(xlabel="predicted slope 1 − 2/p", ylabel="measured slope of log ‖V‖² over log s")
    axes.legend(frameon=False)
    _save(axes.figure, "gallery-recovery")


def budgets() -> None:
    """How much the exact projection had to change, for every method at every sparsity asked for."""
    found = json.loads((RESULTS / "budgets.json").read_text())
    asked = [text for text in dict.fromkeys(row["asked"] for row in found) if text.startswith("sparsity=")]
    asked = [text for text in asked if any(row["asked"] == text and row.get("met") for row in found)]
    methods = list(dict.fromkeys(row["method"] for row in found))
    cells = [
        [
            next(
                100 * row["touched"] / row["entries"]
                for row in found
                if row["method"] == method and row["asked"] == text
            )
            for text in asked
        ]
        for method in methods
    ]
    axes = plt.figure(figsize=(5.4, 4.2), layout="constrained").subplots()
    axes.imshow(cells, cmap="Blues", vmin=0, vmax=20, aspect="auto")
    axes.set_xticks(range(len(asked)), [text.removeprefix("sparsity=") for text in asked])
    axes.set_yticks(range(len(methods)), methods)
    axes.set(xlabel="zeros asked for, and got to one weight", title="entries that the last step had to change (%)")
    axes.grid(False)
    for row, values in enumerate(cells):
        for column, value in enumerate(values):
            axes.text(column, row, f"{value:.2f}", ha="center", va="center", color="white" if value > 12 else "black")
    _save(axes.figure, "gallery-budgets")


def steadiness() -> None:
    """How constant the L1 coefficient of scheduled soft thresholds stayed over a run on CIFAR-10."""
    rows = [row for row in rows_of("cifar10") if row["method"] in ("lats", "lats-early") and row["seed"] == 0]
    rows.sort(key=lambda row: (row["method"], row["sparsity"], row["lr"]))
    axes = plt.figure(figsize=(5.6, 0.32 * len(rows) + 1), layout="constrained").subplots()
    for place, row in enumerate(rows):
        axes.plot([row["l1_low"], row["l1_high"]], [place, place], color="#2a78d6", linewidth=4, solid_capstyle="butt")
    axes.axvline(1, color="0.4", linewidth=1)
    axes.set_yticks(range(len(rows)), [f"{row['method']}, {row['sparsity']:g} %, lr {row['lr']:g}" for row in rows])
    axes.set_xscale("log")
    axes.set_xticks([0.3, 0.5, 1, 2, 5], ["0.3", "0.5", "1", "2", "5"])
    axes.minorticks_off()
    axes.set(xlabel="lowest to highest λ of the run, over its median")
    _save(axes.figure, "gallery-steadiness")


def step_cost() -> None:
    """Processor time of a pruned training step over that of a dense one, with the lowest and highest pair."""
    rows = json.loads((RESULTS / "step_cost.json").read_text())
    networks = list(dict.fromkeys(row["network"] for row in rows))
    figure, panels = plt.subplots(1, len(networks), figsize=(8, 2.8), layout="constrained", sharey=True, squeeze=False)
    for panel, network in zip(panels[0], networks, strict=True):
        mine = [row for row in rows if row["network"] == network]
        names = [row["method"] for row in mine]
        panel.bar(names, [row["time_ratio"] for row in mine], color="#2a78d6")
        panel.vlines(names, [row["time_low"] for row in mine], [row["time_high"] for row in mine], color="0.3")
        panel.axhline(1, color="#a12321", linestyle="--", linewidth=1)
        panel.set(title=network)
        panel.title.set_fontsize(8)
        panel.tick_params(axis="x", rotation=40)
    panels[0][0].set_ylabel("time over dense")
    _save(figure, "gallery-step-cost")


def patterns() -> None:
    """Accuracy against speed for zeros in free form and in blocks."""
    rows = json.loads((RESULTS / "patterns.json").read_text())["rows"]
    axes = plt.figure(figsize=(5.4, 3.4), layout="constrained").subplots()
    for name, color, marker in (("free form", "#2a78d6", "o"), ("block:4x1", "#c2571a", "s")):
        mine = sorted((row for row in rows if row["pattern"] == name), key=lambda row: row["speedup"])
        speeds, accuracies = [row["speedup"] for row in mine], [row["accuracy"] for row in mine]
        axes.plot(speeds, accuracies, color=color, marker=marker, label=name)
        for row in mine:
            at = (row["speedup"], row["accuracy"])
            axes.annotate(f"{row['zeros']:g} %", at, xytext=(4, 4), textcoords="offset points", fontsize=8)
    axes.margins(0.08)
    axes.set(xlabel="times as fast as the best dense engine", ylabel="accuracy (%)")
    axes.legend(frameon=False)
    _save(axes.figure, "gallery-patterns")


def _save(figure: Any, name: str) -> None:
    OUT.mkdir(exist_ok=True)
    figure.savefig(OUT / f"{name}.svg", metadata={"Date": None})
    plt.close(figure)


EVERY: tuple[Callable[[], None], ...] = (operators, groups, movers, recovery, budgets, steadiness, step_cost, patterns)


def main() -> None:
    """Draw all of them."""
    for draw in EVERY:
        draw()


if __name__ == "__main__":
    main()
