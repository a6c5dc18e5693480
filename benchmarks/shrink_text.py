"""Networks for text, heads and FFN shrunk to 1.5x, 2x, 3x fewer multiply-adds by every selection method, in one frame.

sst2: an encoder of BERT's kind (four layers, hidden 96, six heads, FFN 384), trained here, one network for each seed;
accuracy. stories: the Llama in shared/data/weights/stories260k, seeds are those of the text that units are chosen on;
perplexity. Every method chooses on the same samples (labels only for `taylor`), with the split over layers by predicted
output error ("residual") or the same share everywhere ("uniform"), each with the weights as they were and after the
least-squares refit of the reading layers. Measured on held-out data straight after the cut; after "residual" also after
one equal short fine-tuning (AdamW, `--steps` batches, rate falling in a straight line from `--lr`). Rows go to
benchmarks/results/shrink_text.jsonl; those that are there already are not run again.

    python benchmarks/shrink_text.py --tasks stories --seeds 0
    python benchmarks/shrink_text.py --limit 2000 --ratios 2 --steps 5 --out /tmp/try.jsonl      # a quick try
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_model, save_model
from text_tasks import TASKS, Task, fit

import thresher
from thresher.shrinking import SELECTIONS, Selection, parse_selection

RESULTS = Path(__file__).parent / "results" / "shrink_text.jsonl"
METHODS = [*(name for name in SELECTIONS if name != "bn-scale"), "ispasp, balanced"]
RATE = 1e-3


class Bench:
    """One trained network and what units are chosen on."""

    def __init__(self, name: str, task: Task, seed: int, kept: Path | None) -> None:
        torch.manual_seed(seed)
        self.task, self.seed = task, seed
        self.model = task.model()
        path = kept and kept / f"{name}{seed}.safetensors"
        if path and path.exists():
            load_model(self.model, path)
            self.model.eval()
        elif task.steps:
            fit(task, self.model, task.steps, RATE, seed)
            if path:
                save_model(self.model, str(path))
        self.calibration = task.calibration(seed)
        self.value = task.value(self.model)

    def selection(self, method: str, debias: bool) -> Selection:
        """The method as every row has it."""
        found = thresher.ISpaSP(balance=True) if method == "ispasp, balanced" else parse_selection(method)
        changes = {"debias": debias} | ({"seed": self.seed} if method == "random" else {})
        return dataclasses.replace(found, **changes)  # type: ignore[type-var]


def run(bench: Bench, key: dict[str, Any]) -> dict[str, Any]:
    """One row."""
    task, began = bench.task, time.process_time()
    found = thresher.shrink_plan(
        bench.model,
        bench.selection(key["method"], key["debias"]),
        f"flops={100 / key['ratio']:.4f}%",
        calibration=bench.calibration,
        allocation=key["allocation"],
    )
    seconds, small, report = time.process_time() - began, found.model, found.report
    row = {"measure": task.measure, "value_dense": bench.value, "value_cut": task.value(small)}
    if key["steps"]:
        fit(task, small, key["steps"], key["lr"], 1000 + key["seed"])
        row["value_finetuned"] = task.value(small)
    kept = {"heads_kept": [len(group.keep) for group in found.plan.groups if group.kind == "heads"]}
    ffn = ("intermediate.dense", "gate_proj")
    kept["ffn_kept"] = [len(group.keep) for group in found.plan.groups if group.name.endswith(ffn)]
    return {
        **key,
        **row,
        **kept,
        "macs": report.macs,
        "total_macs": report.total_macs,
        "macs_ratio": report.total_macs / report.macs,
        "output_error": report.output_error,
        "predicted_error": report.predicted_error,
        "group_errors": {group.name: group.relative_error for group in report.groups},
        "shrink_cpu_seconds": round(seconds, 2),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads",
        "torch": torch.__version__,
        "thresher": thresher.__version__,
    }


def keys_of(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What to run, one network after another."""
    return [
        {
            "task": task,
            "method": method,
            "ratio": ratio,
            "debias": debias,
            "allocation": allocation,
            "seed": seed,
            "steps": args.steps if allocation == "residual" else 0,
            "lr": args.lr,
            "limit": args.limit,
        }
        for task, seed, ratio, allocation, method, debias in itertools.product(
            args.tasks, args.seeds, args.ratios, args.allocations, args.methods, (False, True)
        )
    ]


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--tasks", nargs="+", default=list(TASKS), choices=list(TASKS))
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--ratios", nargs="+", type=float, default=[2.0, 3.0, 1.5])
    parser.add_argument("--allocations", nargs="+", default=["residual", "uniform"], choices=["residual", "uniform"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=60, help="of fine-tuning")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--limit", type=int, default=None, help="at most so many sentences or characters, for a try")
    parser.add_argument("--networks", type=Path, default=None, help="folder that keeps the trained networks")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.out.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    missing = [key for key in keys_of(args) if not any(key.items() <= row.items() for row in rows)]
    for name, of_task in itertools.groupby(missing, key=lambda key: key["task"]):
        task: Task = TASKS[name](args.limit)
        for seed, keys in itertools.groupby(of_task, key=lambda key: key["seed"]):
            bench = Bench(name, task, seed, args.networks)
            for key in keys:
                row = run(bench, key)
                with args.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
                print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
