"""Which pattern of zeros is faster at equal accuracy: free form, or blocks of 4x1.

Accuracies are those of `benchmarks/cifar10.py` (ResNet-20, power-p, learning rate 0.05, seed 0); speeds of the same
network and share of zeros are measured here as in `benchmarks/engine.py`, with magnitude masks of random weights: one
picture, one thread, against the best dense float32 engine. Results go to benchmarks/results/patterns.json.

    python benchmarks/patterns.py                    # needs rows of cifar10.py; a minute on a quiet machine
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from engine import measure, processor

from thresher.deploy.bench.patterns import BLOCKS, FREE, at_equal_accuracy

HERE = Path(__file__).parent / "results"
GROUPS = {FREE: None, BLOCKS: "block:4x1"}
SETTINGS = {"method": "power", "lr": 0.05, "seed": 0, "epochs": 5}
ADDED = ("shape", "distill", "weight_decay", "nesterov")  # of runs that were anything else than the plain protocol


def accuracies(pattern: str) -> dict[float, float]:
    """Share of zeros in percent to accuracy in percent."""
    rows = [json.loads(line) for line in (HERE / "cifar10.jsonl").read_text(encoding="utf-8").splitlines()]
    return {
        row["sparsity"]: row["accuracy"]
        for row in rows
        if all(row[name] == value for name, value in SETTINGS.items())
        and row.get("groups") == GROUPS[pattern]
        and not any(name in row for name in ADDED)
    }


def main() -> None:
    """Measure every point, then compare."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each engine in each round")
    parser.add_argument("--out", type=Path, default=HERE / "patterns.json")
    options = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for pattern, form in ((FREE, "free"), (BLOCKS, "block")):
        for zeros, accuracy in sorted(accuracies(pattern).items()):
            row = measure("resnet20", 1, 1, zeros / 100, form, options.rounds, options.seconds)
            speeds = {name: row[name] for name in ("speedup", "speedup_low", "speedup_high", "best_dense")}
            rows.append({"pattern": pattern, "zeros": zeros, "accuracy": accuracy, **speeds})
            print(rows[-1], flush=True)
    points = {name: [(row["accuracy"], row["speedup"]) for row in rows if row["pattern"] == name] for name in GROUPS}
    equal = [{"accuracy": accuracy, **speeds} for accuracy, speeds in at_equal_accuracy(points)]
    record = {"version": 1, "processor": processor(), "settings": SETTINGS, "rows": rows, "equal": equal}
    options.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
