"""Tables of the sparse engine and of shrinking, from benchmarks/results; `tables.py` puts them into the docs."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from statistics import mean
from typing import Any

RESULTS = Path(__file__).parent / "results"
PATTERNS = {"free": "free form", "block": "blocks of 4x1"}
NOT_RUN = "Not run yet."


def record(name: str) -> Any:
    """What results/NAME holds, None when it is not there; a list of rows for .jsonl."""
    path = RESULTS / name
    if not path.exists():
        return None
    text = path.read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()] if path.suffix == ".jsonl" else json.loads(text)


def engine_table(*, plainest: bool = False) -> str:
    """Speed of the engine against the best dense engine of each row; `plainest`: one picture, one thread."""
    found = record("engine.json")
    if found is None:
        return NOT_RUN
    lines = [
        f"{found['machine']['processor']}, torch {found['machine']['torch']}.",
        "",
        "| network | zeros | batch | threads | milliseconds | best dense | against it | against torch | roofline |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["rows"]:
        if plainest and (row["batch"], row["threads"]) != (1, 1):
            continue
        times, dense = row["milliseconds"], row["best_dense"]
        lines.append(
            f"| {row['model']} | {row['sparsity']:.0%}, {PATTERNS[row['pattern']]} | {row['batch']} | {row['threads']} "
            f"| {times['thresher']:.3g} | {dense}, {times[dense]:.3g} "
            f"| {row['speedup']:.2f}× ({row['speedup_low']:.2f} to {row['speedup_high']:.2f}) "
            f"| {row['speedup_over_torch']:.1f}× | {row['roofline_milliseconds'] / times['thresher']:.0%} |"
        )
    return "\n".join(lines)


def engine_cost_table() -> str:
    """What compiling for the engine takes, and what a compiled network takes, for one picture and one thread."""
    found = record("engine.json")
    if found is None:
        return NOT_RUN
    lines = [
        "| network | zeros | seconds to compile, batch 1 | batch 16 | nonzeros | weights, MB | bytes a nonzero "
        "| activations, MB |",
        "|---|---|---|---|---|---|---|---|",
    ]
    rows = {(row["model"], row["pattern"], row["batch"]): row for row in found["rows"] if row["threads"] == 1}
    for (model, pattern, batch), row in rows.items():
        if batch > 1:
            continue
        lines.append(
            f"| {model} | {row['sparsity']:.0%}, {PATTERNS[pattern]} | {row['compile_seconds']:.1f} "
            f"| {rows[model, pattern, 16]['compile_seconds']:.1f} | {row['nonzeros']:,} "
            f"| {row['packed_bytes'] / 1e6:.2f} | {row['packed_bytes'] / row['nonzeros']:.2f} "
            f"| {row['arena_bytes'] / 1e6:.1f} |"
        )
    return "\n".join(lines)


def decoding_table() -> str:
    """Decoding token by token against the best dense engine of the same precision."""
    found = record("engine.json")
    if found is None or "decoding" not in found:
        return NOT_RUN
    lines = [
        f"{found['machine']['processor']}, torch {found['machine']['torch']}.",
        "",
        "| values | zeros | threads | milliseconds a token | GB/s | best dense | its GB/s | against it | plain read |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    for row in found["decoding"]:
        times, rates, dense = row["milliseconds"], row["gigabytes_a_second"], row["best_dense"]
        lines.append(
            f"| {row['precision']} | {row['asked']:.0%} | {row['threads']} | {times['thresher']:.3g} "
            f"| {rates['thresher']:.1f} | {dense}, {times[dense]:.3g} | {rates[dense]:.1f} "
            f"| {row['speedup']:.2f}× ({row['speedup_low']:.2f} to {row['speedup_high']:.2f}) | {rates['read']:.1f} |"
        )
    return "\n".join(lines)


def shrunk_engines_table() -> str:
    """Shrunk networks in every engine, by what their channel counts are multiples of."""
    found = record("shrunk_engines.json")
    if found is None:
        return NOT_RUN
    engines = ("thresher", "onnxruntime", "openvino", "torch")
    lines = [
        f"{found['processor']}, one thread, one picture.",
        "",
        f"| network | multiples of | multiply-adds | {' | '.join(engines)} | best against best |",
        "|---|---|---|" + "---|" * (len(engines) + 1),
    ]
    for row in found["rows"]:
        times = row["milliseconds"]
        cells = [f"{times[f'shrunk {name}']:.3g} ({times[f'dense {name}']:.3g})" for name in engines]
        lines.append(
            f"| {row['model']} | {row['round_to']} | {row['macs_ratio']:.2f}× fewer | {' | '.join(cells)} "
            f"| {row['over_dense']:.2f}× |"
        )
    return "\n".join(lines)


def forms_table() -> str:
    """The bare sparse product in several forms of its weights: how many times as fast as float32."""
    found = record("kernel_forms.json")
    if found is None:
        return NOT_RUN
    forms = list(dict.fromkeys((row["form"], row.get("offset_bits")) for row in found["rows"]))
    names = " | ".join(f"{form}, offsets of {bits} bits" if bits else form for form, bits in forms[1:])
    lines = [f"{found['processor']}, one thread.", ""]
    lines += [f"| layer | zeros | {forms[0][0]}, milliseconds | {names} |", "|---|---|---|" + "---|" * (len(forms) - 1)]
    for layer, sparsity in dict.fromkeys((row["layer"], row["sparsity"]) for row in found["rows"]):
        plain, *others = (row for row in found["rows"] if (row["layer"], row["sparsity"]) == (layer, sparsity))
        ratios = " | ".join(f"{row['over_float32']:.2f}×" for row in others)
        lines.append(f"| {layer} | {sparsity:.0%} | {plain['milliseconds']:.3g} | {ratios} |")
    return "\n".join(lines)


def quality_table() -> str:
    """Accuracy of shrunk ResNet-20s, straight after the cut and later."""
    rows = record("shrink_quality.jsonl")
    if not rows:
        return NOT_RUN
    lines = [
        f"Dense: {rows[0]['accuracy_dense']:.2f} %.",
        "",
        "| multiply-adds | method | refit | straight after | norms anew | reconstructed | one epoch later | time |",
        "|---|---|---|---|---|---|---|---|",
    ]
    merged = _over_seeds(rows)
    for row in sorted(merged, key=lambda row: (row["ratio"], -row.get("accuracy_finetuned", 0), -row["accuracy_cut"])):
        seeds = f", {row['seeds']} seeds" if row["seeds"] > 1 else ""
        lines.append(
            f"| {row['ratio']:g}× asked, {row['macs_ratio']:.2f}× got "
            f"| `{row['method']}`{', same share' if row['allocation'] == 'uniform' else ''}{seeds} "
            f"| {'yes' if row['debias'] else 'no'} | {row['accuracy_cut']:.2f} | {row['accuracy_norm']:.2f} "
            f"| {_known(row, 'accuracy_reconstructed')} | {_known(row, 'accuracy_finetuned')} "
            f"| {row['speedup']:.2f}× |"
        )
    return "\n".join(lines)


def _over_seeds(rows: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Rows that differ in their seed alone as one: the means of what was measured, and how many there were."""
    same = ("method", "ratio", "debias", "allocation", "reconstruct", "epochs")
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for row in rows:
        groups.setdefault(tuple(row[name] for name in same), []).append(row)
    merged = []
    for group in groups.values():
        shown = [name for name in group[0] if name.startswith("accuracy_") or name in ("macs_ratio", "speedup")]
        means = {name: mean(row[name] for row in group) for name in shown}
        merged.append({**group[0], **means, "seeds": len(group)})
    return merged


def _known(row: dict[str, Any], name: str) -> str:
    return f"{row[name]:.2f}" if name in row else ""


def text_table(task: str) -> str:
    """Networks for text: what the choice, the refit and the split over layers bring, mean over seeds."""
    rows = [row for row in record("shrink_text.jsonl") or [] if row["task"] == task and row["limit"] is None]
    if not rows:
        return NOT_RUN
    dense = {row["seed"]: row["value_dense"] for row in rows}
    better = 1 if rows[0]["measure"] == "perplexity" else -1
    columns = [(split, debias, "value_cut") for split in ("uniform", "residual") for debias in (False, True)]
    columns += [("residual", debias, "value_finetuned") for debias in (False, True)]
    lines = [
        f"Dense: {mean(dense.values()):.2f}, {rows[0]['measure']}, {len(dense)} seed{'s' if len(dense) > 1 else ''}.",
        "",
        "| multiply-adds | method | same share | same share, refit | split | split, refit | split, fine-tuned "
        "| split, refit, fine-tuned |",
        "|---|---|---|---|---|---|---|---|",
    ]
    found: dict[tuple[float, str], list[float | None]] = {}
    for ratio, method in dict.fromkeys((row["ratio"], row["method"]) for row in rows):
        mine = [row for row in rows if (row["ratio"], row["method"]) == (ratio, method)]
        values = [
            [row[value] for row in mine if (row["allocation"], row["debias"]) == (split, debias) and value in row]
            for split, debias, value in columns
        ]
        found[ratio, method] = [mean(each) if len(each) == len(dense) else None for each in values]
    for (ratio, method), means in sorted(found.items(), key=lambda item: (item[0][0], better * (item[1][3] or 0.0))):
        cells = ("not run" if each is None else f"{each:,.1f}" if each < 1000 else f"{each:,.0f}" for each in means)
        lines.append(f"| {ratio:g}× | `{method}` | {' | '.join(cells)} |")
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
    found = record("shrink_networks.json")
    if not found:
        return NOT_RUN
    lines = ["| network | method | processor seconds | passes over the data | over Taylor |", "|---|---|---|---|---|"]
    taylor = {row["network"]: row["cpu_seconds"] for row in found["rows"] if row["method"] != "ispasp"}
    for row in found["rows"]:
        spent = row["cpu_seconds"]
        over = f"{spent / taylor[row['network']]:.2f}×" if row["network"] in taylor else "not run"
        passes = spent / row["one_pass"]["cpu_seconds"]
        lines.append(f"| {row['network']} | {row['method']} | {spent:.1f} | {passes:.1f} | {over} |")
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


def patterns_table() -> str:
    """What each measured network reaches, and which pattern is faster where they are equally right."""
    found = record("patterns.json")
    if found is None:
        return NOT_RUN
    lines = [f"{found['processor']}, one thread, one picture.", ""]
    lines += ["| pattern | zeros | accuracy | against the best dense engine |", "|---|---|---|---|"]
    for row in found["rows"]:
        spread = f"{row['speedup']:.2f}× ({row['speedup_low']:.2f} to {row['speedup_high']:.2f})"
        lines.append(f"| {row['pattern']} | {row['zeros']:g} % | {row['accuracy']:.2f} | {spread} |")
    names = [name for name in found["equal"][0] if name != "accuracy"] if found["equal"] else []
    lines += [
        "",
        f"| accuracy | {' | '.join(names)} | {' over '.join(reversed(names))} |",
        "|---|" + "---|" * (len(names) + 1),
    ]
    for row in found["equal"]:
        first, second = (row[name] for name in names)
        lines.append(f"| {row['accuracy']:.2f} | {first:.2f}× | {second:.2f}× | {second / first:.2f}× |")
    return "\n".join(lines)


TABLES = {
    "patterns": patterns_table,
    "engine": engine_table,
    "engine_plainest": partial(engine_table, plainest=True),
    "engine_cost": engine_cost_table,
    "decoding": decoding_table,
    "kernel_forms": forms_table,
    "shrunk_engines": shrunk_engines_table,
    "shrink_quality": quality_table,
    "shrink_text_stories": partial(text_table, "stories"),
    "shrink_text_sst2": partial(text_table, "sst2"),
    "shrink_selection": selection_table,
    "shrink_networks": networks_table,
    "shrink_growth": growth_table,
}
