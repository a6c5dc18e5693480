"""Tables of the sparse engine and of shrinking, from benchmarks/results; `tables.py` puts them into the docs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

RESULTS = Path(__file__).parent / "results"
NOT_RUN = "Not run yet."


def record(name: str) -> Any:
    """What results/NAME holds, None when it is not there; a list of rows for .jsonl."""
    path = RESULTS / name
    if not path.exists():
        return None
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def engine_table() -> str:
    """Speed of the engine against the best dense engine of each row."""
    found = record("engine.json")
    if found is None:
        return NOT_RUN
    lines = [
        f"{found['machine']['processor']}, torch {found['machine']['torch']}.",
        "",
        "| network | zeros | batch | threads | milliseconds | best dense | against it | against torch |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        times, dense = row["milliseconds"], row["best_dense"]
        pattern = {"free": "free form", "block": "blocks of 4x1"}[row["pattern"]]
        lines.append(
            f"| {row['model']} | {row['sparsity']:.0%}, {pattern} | {row['batch']} | {row['threads']} "
            f"| {times['thresher']:.3g} | {dense}, {times[dense]:.3g} "
            f"| {row['speedup']:.2f}× ({row['speedup_low']:.2f} to {row['speedup_high']:.2f}) "
            f"| {row['speedup_over_torch']:.1f}× |"
        )
    return "\n".join(lines)


def quality_table() -> str:
    """Accuracy of shrunk ResNet-20s, straight after the cut and later."""
    rows = record("shrink_quality.jsonl")
    if not rows:
        return NOT_RUN
    lines = [
        f"Dense: {rows[0]['accuracy_dense']:.2f} %.",
        "",
        "| multiply-adds | method | refit | straight after | batch norm anew | one epoch later |",
        "|---|---|---|---|---|---|",
    ]
    names = ("method", "ratio", "debias", "scope", "allocation", "seed")
    tuned = {tuple(row[name] for name in names) for row in rows if row["epochs"]}
    for row in sorted(rows, key=lambda row: (row["ratio"], -row["accuracy_cut"])):
        if not row["epochs"] and tuple(row[name] for name in names) in tuned:
            continue  # the same cut stands there with its fine-tuning
        later = f"{row['accuracy_finetuned']:.2f}" if row["epochs"] else "not run"
        refit = "yes" if row["debias"] else "no"
        lines.append(
            f"| {row['ratio']:g}× asked, {row['macs_ratio']:.2f}× got | `{row['method']}` | {refit} "
            f"| {row['accuracy_cut']:.2f} | {row['accuracy_norm']:.2f} | {later} |"
        )
    return "\n".join(lines)


def selection_table() -> str:
    """i-SpaSP against greedy forward selection on single layers."""
    found = record("shrink_speed.json")
    if found is None or "selection" not in found:
        return NOT_RUN
    names = ("ispasp", "gfs second moments", "gfs forward passes")
    lines = [
        "| units | kept | i-SpaSP | greedy, second moments | greedy, forward passes | forward passes over i-SpaSP |",
        "|---|---|---|---|---|---|",
    ]
    for row in found["selection"]:
        times = " | ".join(f"{row[name]['cpu_seconds']:.3g} s" for name in names)
        lines.append(f"| {row['units']} | {row['kept']} | {times} | {row['ratio to forward passes']:.0f}× |")
    return "\n".join(lines)


def networks_table() -> str:
    """Seconds to shrink whole networks."""
    found = record("shrink_speed.json")
    if found is None or "networks" not in found:
        return NOT_RUN
    lines = [
        "| network | method | processor seconds | wall-clock seconds | one pass over the data |",
        "|---|---|---|---|---|",
    ]
    for row in found["networks"]:
        one = f"{row['one_pass']['cpu_seconds']:.1f} s" if "one_pass" in row else ""
        spent = f"{row['cpu_seconds']:.1f} | {row['seconds']:.1f}"
        lines.append(f"| {row['network']} | {row['method']} | {spent} | {one} |")
    return "\n".join(lines)


def growth_table() -> str:
    """How seconds and memory of i-SpaSP grow."""
    found = record("shrink_speed.json")
    if found is None or "growth" not in found:
        return NOT_RUN
    lines = ["| varies | units | samples | layers | processor seconds | peak memory |", "|---|---|---|---|---|---|"]
    for row in found["growth"]:
        sizes = " | ".join(str(row[name]) for name in ("units", "samples", "layers"))
        lines.append(f"| {row['varies']} | {sizes} | {row['cpu_seconds']:.2f} | {row['peak_bytes'] / 2**20:.0f} MiB |")
    return "\n".join(lines)


TABLES = {
    "engine": engine_table,
    "shrink_quality": quality_table,
    "shrink_selection": selection_table,
    "shrink_networks": networks_table,
    "shrink_growth": growth_table,
}
