"""Shrunk networks in every engine, the sparse engine among them: what half of the multiply-adds bring, and whether
channel counts that are multiples of 4, 8 or 16 pay.

    python benchmarks/shrunk_engines.py        # two minutes; benchmarks/results/shrunk_engines.json

Networks of engine.py with random weights, shrunk by `l2` inside their blocks to half of the multiply-adds, on random
images: no accuracy is measured. The dense and the shrunk network in each engine take turns in one process, batch 1,
one thread, processor time; medians over rounds. "over dense": the best engine of the dense network over the best of
the shrunk one. All in float32.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import torch
from engine import ENGINES, MODELS, in_turn, processor
from torch import Tensor, nn

import thresher
from thresher.budget.counts import count_positions, counted_weights
from thresher.deploy.engine.rivals import rivals

ROUNDED = {"resnet20": (1, 4, 8), "resnet50": (1, 8, 16)}  # the narrowest layers have 16 and 64 channels
RESULTS = Path(__file__).parent / "results" / "shrunk_engines.json"


def macs(model: nn.Module, example: Tensor) -> float:
    """Multiply-adds of one picture."""
    positions = count_positions(model, example)
    return sum(positions[name] * getattr(m, t).numel() for name, (m, t) in counted_weights(model).items())


def calls_of(model: nn.Module, x: Tensor) -> dict[str, Callable[[], Any]]:
    """The network in each engine that is installed."""
    fast = thresher.compile(model, x, threads=1, engines=("thresher",))
    found, _ = rivals(model, None, x, 1, list(ENGINES))
    return {"thresher": lambda: fast(x), **{name: rival.call for name, rival in found.items()}}


def measure(name: str, round_to: int, rounds: int, seconds: float) -> dict[str, Any]:
    """One row."""
    torch.manual_seed(0)
    model, shape = MODELS[name]()
    model.eval()
    x = torch.randn(1, *shape)
    small = thresher.shrink(model, "l2", "flops=50%", calibration=[torch.randn(4, *shape)], round_to=round_to)
    small.eval()
    calls = {f"dense {engine}": call for engine, call in calls_of(model, x).items()}
    calls |= {f"shrunk {engine}": call for engine, call in calls_of(small, x).items()}
    with torch.inference_mode():
        times = {key: median(taken) for key, taken in in_turn(calls, rounds, seconds, time.process_time).items()}
    best = {kind: min(t for key, t in times.items() if key.startswith(kind)) for kind in ("dense", "shrunk")}
    return {
        "model": name, "round_to": round_to, "macs_ratio": macs(model, x) / macs(small, x),
        "milliseconds": {key: round(1e3 * taken, 4) for key, taken in times.items()},
        "over_dense": best["dense"] / best["shrunk"],
    }  # fmt: skip


def main() -> None:
    """All rows."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=list(ROUNDED), choices=list(ROUNDED))
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.2, help="of each engine in each round")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    torch.set_num_threads(1)
    rows = []
    for name in args.models:
        for round_to in ROUNDED[name]:
            rows.append(measure(name, round_to, args.rounds, args.seconds))
            print(json.dumps(rows[-1]), flush=True)
            args.out.write_text(json.dumps({"processor": processor(), "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
