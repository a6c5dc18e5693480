"""Turn benchmarks/results into the tables and the figure of the README and the docs.

    python benchmarks/tables.py            # rewrites the marked blocks and docs/figures/cifar10.svg

A block is what stands between `<!-- table:NAME -->` and `<!-- /table -->`.
"""

from __future__ import annotations

import json
import re
from collections import defaultdict
from pathlib import Path
from statistics import mean, stdev
from typing import Any

from speed_tables import TABLES

ROOT = Path(__file__).parent.parent
RESULTS = Path(__file__).parent / "results"
PAGES = tuple(
    ROOT / name
    for name in (
        "README.md",
        "docs/benchmarks.md",
        "docs/controller.md",
        "docs/oneshot.md",
        "docs/storage.md",
        "docs/engine.md",
        "docs/shrinking.md",
    )
)
LABELS = {
    "magnitude": "magnitude, one shot, then fine-tuned",
    "gmp": "gradual magnitude (cubic, global)",
    "lats": "LATS, learning-rate coupled",
    "slats": "S-LATS",
    "pgh": "PGH, during training",
    "lats-early": "LATS, early pruning (`lats-early`)",
    "lats-early, Nesterov": "the same with Nesterov momentum",
    "power": "power-p",
    "power, distilled 0.9": "power-p, distilled from the dense network (0.9 of the loss)",
    "st3": "ST-3",
    "asl": "ASL, as published",
    "asl:scope=global,p=3,settle=1": "ASL, one scale, power-p operator (`asl:scope=global,p=3,settle=1`)",
    "ltp": "LTP, as published",
    "ltp:scope=global,pruned_gradient=1,settle=1": (
        "LTP, one scale, full gradient to pruned weights (`ltp:scope=global,pruned_gradient=1,settle=1`)"
    ),
    "ltp:scope=global,pruned_gradient=1,settle=1, distilled 0.9": "the same, distilled from the dense network",
    "str": "STR",
}
# One setting after another at 95 % on seed 0: what each part brings.
ABLATION = {
    "ASL": ("asl", "asl:p=3", "asl:scope=global,p=3", "asl:scope=global,p=3,settle=1"),
    "ASL without the task's gradient on the thresholds": ("asl:p=3,lr=0",),
    "LTP": (
        "ltp",
        "ltp:pruned_gradient=1",
        "ltp:scope=global,pruned_gradient=1",
        "ltp:scope=global,pruned_gradient=1,settle=1",
    ),
    "LTP, a softer gate": (
        "ltp:scope=global,pruned_gradient=1",
        "ltp:scope=global,pruned_gradient=1,temperature=0.3",
    ),
    "threshold on a quantile": ("gmp", "st3", "power", "power:end=0.3", "power, flat learning rate"),
    "power-p with distillation": (
        "power",
        "power, distilled 0.9 at T = 2",
        "power, distilled 0.9",
        "power, distilled 0.9 at T = 8",
        "power:p=2, distilled 0.9",
        "power, distilled 0.9, weight decay 0",
    ),
    "ASL with distillation": (
        "asl:scope=global,p=3,settle=1",
        "asl:scope=global,p=3,settle=1,travel=inf, distilled 0.9",
        "asl:scope=global,p=3,settle=1, distilled 0.9",
    ),
    "LATS": ("lats", "lats-early", "lats-early:settle=0.5"),
}

FAMILIES = {  # one shot is nothing but projection, and left out
    "gmp, power, st3": ("gmp", "power", "st3"),
    "asl, ltp, str": ("asl", "ltp", "str"),
    "lats and its presets": ("lats", "slats", "pgh", "lats-early", "lats-init"),
}
SAME = {"lats:schedule=coupled:beta=0.1,settle=0.7": "lats-early"}  # what rows written before the preset say


def rows_of(name: str) -> list[dict[str, Any]]:
    """The rows of results/NAME.jsonl."""
    path = RESULTS / f"{name}.jsonl"
    rows = [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []
    shape = {None: "", "flat": ", flat learning rate"}
    return [
        {
            **row,
            "method": SAME.get(row["method"], row["method"])
            + shape[row.get("shape")]
            + (f", distilled {row['distill']:g}" if row.get("distill") else "")
            + (f" at T = {row['temperature']:g}" if row.get("temperature") else "")
            + (", Nesterov" if row.get("nesterov") else "")
            + (f", weight decay {row['weight_decay']:g}" if "weight_decay" in row else "")
            + (f", {row['groups']}" if "groups" in row else ""),
        }
        for row in rows
    ]


def best(rows: list[dict[str, Any]]) -> dict[tuple[str, float], list[dict[str, Any]]]:
    """Per method and sparsity, the rows of the learning rate with the best mean accuracy at that point."""
    by_rate: dict[tuple[str, float], dict[float, list[dict[str, Any]]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        by_rate[row["method"], row["sparsity"]][row["lr"]].append(row)
    # A learning rate is chosen on seed 0, on which all were tried; the other seeds only confirm it.
    chosen = {}
    for key, rates in by_rate.items():
        first = {rate: [row for row in found if row["seed"] == 0] for rate, found in rates.items()}
        tried = [rate for rate in first if first[rate]]
        if tried:
            chosen[key] = rates[max(tried, key=lambda rate: first[rate][0]["accuracy"])]
    return chosen


def cifar10_table() -> str:
    """Accuracy by method and sparsity: mean, spread and number of seeds."""
    chosen = best(rows_of("cifar10"))
    sparsities = sorted({sparsity for method, sparsity in chosen if method in LABELS})
    methods = [name for name in LABELS if any(method == name for method, _ in chosen)]
    lines = ["| method | " + " | ".join(f"{sparsity:g} % zeros" for sparsity in sparsities) + " |"]
    lines.append("|---|" + "---|" * len(sparsities))
    for method in methods:
        cells = []
        for sparsity in sparsities:
            found = chosen.get((method, sparsity))
            if not found:
                cells.append("not run")
                continue
            values = [row["accuracy"] for row in found]
            spread = f" ± {stdev(values):.2f}" if len(values) > 1 else ""
            seeds = f"{len(values)} seed{'s' if len(values) > 1 else ''}"
            cells.append(f"{mean(values):.2f}{spread} ({seeds}, lr {found[0]['lr']:g})")
        lines.append(f"| {LABELS.get(method, f'`{method}`')} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def renewed_table() -> str:
    """What batch norms measured anew bring, over all rows of a method that say so."""
    found: dict[tuple[str, float, float], list[dict[str, Any]]] = defaultdict(list)
    for row in rows_of("cifar10"):
        if "accuracy_norm" in row:
            found[row["method"], row["sparsity"], row["lr"]].append(row)
    lines = [
        "| method | zeros | lr | seeds | as trained | norms measured anew | gain |",
        "|---|---|---|---|---|---|---|",
    ]
    for (method, sparsity, lr), rows in sorted(found.items()):
        before, after = (mean(row[name] for row in rows) for name in ("accuracy", "accuracy_norm"))
        cells = [f"`{method}`", f"{sparsity:g} %", f"{lr:g}", str(len(rows)), f"{before:.2f}", f"{after:.2f}"]
        lines.append(f"| {' | '.join(cells)} | {after - before:+.2f} |")
    return "\n".join(lines)


def variants_table() -> str:
    """What single settings bring: every run of seed 0 at 95 %, learning rates and settings that were tried."""
    lines = ["| method and settings | lr | accuracy | entries touched by the projection |", "|---|---|---|---|"]
    rows = [row for row in rows_of("cifar10") if row["seed"] == 0 and row["sparsity"] == 95]
    for row in sorted(rows, key=lambda row: (row["method"], row["lr"])):
        touched = row["touched"] / row["entries"]
        lines.append(f"| `{row['method']}` | {row['lr']:g} | {row['accuracy']:.2f} | {touched:.2%} |")
    return "\n".join(lines)


def ablation_table() -> str:
    """What each part brings: settings in order, each with its accuracy and the difference from the one before."""
    rows = [row for row in rows_of("cifar10") if row["seed"] == 0 and row["sparsity"] == 95 and row["lr"] == 0.05]
    accuracy = {row["method"]: row["accuracy"] for row in rows}
    lines = ["| from | setting | accuracy | against the line above |", "|---|---|---|---|"]
    for family, settings in ABLATION.items():
        before = None
        for setting in filter(accuracy.__contains__, settings):
            change = "" if before is None else f"{accuracy[setting] - before:+.2f}"
            lines.append(f"| {family} | `{setting}` | {accuracy[setting]:.2f} | {change} |")
            before = accuracy[setting]
    return "\n".join(lines)


def budgets_table() -> str:
    """Asked against got, over all methods."""
    path = RESULTS / "budgets.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    lines = [
        "| asked | met by | " + " | ".join(FAMILIES) + " |",
        "|---|---|" + "---|" * len(FAMILIES),
    ]
    for asked in dict.fromkeys(row["asked"] for row in rows):
        found = [row for row in rows if row["asked"] == asked]
        met = [row for row in found if row.get("met")]
        if not met:
            reason = "; ".join(found[0].get("refused", "").splitlines())
            lines.append(f"| `{asked}` | refused for all {len(found)}: {reason} |" + " |" * len(FAMILIES))
            continue
        cells = []
        for family in FAMILIES.values():
            shares = [row["touched"] / row["entries"] for row in met if row["method"] in family]
            cells.append(f"{max(shares):.2%}" if shares else "not run")
        lines.append(f"| `{asked}` | {len(met)} of {len(found)} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def control_table() -> str:
    """How steady the L1 coefficient stayed, and how much the final projection had to do."""
    lines = [
        "| method | sparsity | lr | lambda over its median | entries touched by the projection |",
        "|---|---|---|---|---|",
    ]
    rows = [row for row in rows_of("cifar10") if row["method"].startswith("lats")]
    for row in sorted(rows, key=lambda row: (row["method"], row["sparsity"], row["lr"])):
        touched = row["touched"] / row["entries"]
        lines.append(
            f"| `{row['method']}` | {row['sparsity']:g} % | {row['lr']:g} | "
            f"{row['l1_low']:.2f} to {row['l1_high']:.2f} | {touched:.2%} |"
        )
    return "\n".join(lines)


def pace_table() -> str:
    """Small networks: how near the budget lay before the projection, and how steady lambda was."""
    path = RESULTS / "pace.json"
    rows = json.loads(path.read_text()) if path.exists() else []
    lines = [
        "| network | pace | runs | entries touched, mean and most | under 0.5 % | lambda within ±20 % |",
        "|---|---|---|---|---|---|",
    ]
    for network, pace in dict.fromkeys((row["network"], row["pace"]) for row in rows):
        found = [row for row in rows if (row["network"], row["pace"]) == (network, pace)]
        touched = [row["touched"] for row in found]
        steady = sum(row["l1_low"] >= 0.8 and row["l1_high"] <= 1.2 for row in found)
        lines.append(
            f"| {network} | {pace} | {len(found)} | {mean(touched):.2%}, {max(touched):.2%} | "
            f"{sum(share < 0.005 for share in touched)} | {steady} |"
        )
    return "\n".join(lines)


def step_cost_table() -> str:
    """Time and memory of a pruned step over a dense one."""
    path = RESULTS / "step_cost.json"
    lines = ["| network | method | time | memory |", "|---|---|---|---|"]
    for row in json.loads(path.read_text()) if path.exists() else []:
        time = f"{row['time_ratio']:.3f}× (single pairs {row['time_low']:.2f} to {row['time_high']:.2f})"
        lines.append(f"| {row['network']} | {row['method']} | {time} | {row['memory_ratio']:.3f}× |")
    return "\n".join(lines)


def oneshot_table(network: str, value: str) -> str:
    """Perplexity or accuracy after one-shot pruning, by pattern and method."""
    path = RESULTS / "oneshot.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    rows = [row for row in rows if row["network"] == network]
    methods = list(dict.fromkeys(row["method"] for row in rows if "pattern" in row))
    lines = ["| zeros | calibration | " + " | ".join(methods) + " |", "|---|---|" + "---|" * len(methods)]
    for dense in (row for row in rows if row["method"] == "dense"):
        lines.append(f"| none | | {dense[value]:.2f} |" + " |" * (len(methods) - 1))
    for pattern, calibration in dict.fromkeys((row["pattern"], row["calibration"]) for row in rows if "pattern" in row):
        found = {
            row["method"]: f"{row[value]:.2f}"
            for row in rows
            if (row.get("pattern"), row.get("calibration")) == (pattern, calibration)
        }
        cells = " | ".join(found.get(method, "") for method in methods)
        lines.append(f"| {pattern} | {calibration} | {cells} |")
    return "\n".join(lines)


def storage_table() -> str:
    """A ResNet-50 in every kind of file."""
    path = RESULTS / "storage.json"
    rows = json.loads(path.read_text())["rows"] if path.exists() else []
    forms = ("torch.save", "safetensors, gzip -6", "safetensors, zstd -12", "thresher float32", "thresher bfloat16")
    lines = ["| zeros | " + " | ".join(f"`{form}`" for form in forms) + " |", "|---|" + "---|" * len(forms)]
    for row in rows:
        sizes = [f"{row[form] / 1e6:.1f} MB" if row[form] else "not run" for form in forms]
        lines.append(f"| {row['pattern']} | " + " | ".join(sizes) + " |")
    return "\n".join(lines)


def figure(path: Path) -> None:
    """Accuracy against zeros, one line per method."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "thresher"
    import matplotlib.pyplot as plt

    chosen = best(rows_of("cifar10"))
    axes = plt.figure(figsize=(7, 3.6), layout="constrained").subplots()
    for method, label in LABELS.items():
        points = sorted((sparsity, [row["accuracy"] for row in chosen[method, sparsity]])
                        for name, sparsity in chosen if name == method)  # fmt: skip
        if len(points) < 2:
            continue
        zeros = [sparsity for sparsity, _ in points]
        short = re.sub(r"\(`.*:.*`\)", "", label).replace("`", "")  # settings are in the table
        axes.plot(zeros, [mean(values) for _, values in points], marker="o", label=short)
        axes.fill_between(zeros, [min(v) for _, v in points], [max(v) for _, v in points], alpha=0.15)
    axes.axhline(91.73, color="grey", linestyle=":", label="dense, before pruning (91.73)")
    axes.set(xlabel="zeros in the weights (%)", ylabel="CIFAR-10 test accuracy (%)")
    axes.grid(alpha=0.3)
    axes.legend(frameon=False, fontsize=8)
    path.parent.mkdir(exist_ok=True)
    plt.savefig(path, metadata={"Date": None})


def fill(text: str, tables: dict[str, str]) -> str:
    """`text` with every marked block replaced."""
    for name, table in tables.items():
        block = rf"(<!-- table:{name} -->\n).*?(<!-- /table -->)"
        text = re.sub(block, lambda match, table=table: f"{match[1]}{table}\n{match[2]}", text, flags=re.DOTALL)
    return text


def main() -> None:
    """Rewrite what the results say."""
    tables = {
        "cifar10": cifar10_table(),
        "variants": variants_table(),
        "renewed": renewed_table(),
        "ablation": ablation_table(),
        "budgets": budgets_table(),
        "control": control_table(),
        "step_cost": step_cost_table(),
        "pace": pace_table(),
        **{name: table() for name, table in TABLES.items()},
        "storage": storage_table(),
        "oneshot_stories": oneshot_table("stories260k", "perplexity"),
        "oneshot_sst2": oneshot_table("sst2 encoder", "accuracy"),
    }
    for page in PAGES:
        if page.exists():
            page.write_text(fill(page.read_text(), tables))
    figure(ROOT / "docs" / "figures" / "cifar10.svg")


if __name__ == "__main__":
    main()
