"""How long selection takes, i-SpaSP beside greedy forward selection in both forms; and how shrinking grows.

1. Selection: on single layers, i-SpaSP against greedy forward selection that tries every candidate by a forward pass
   of the layer on the calibration data (its published form), same data, same process, and against the second-moment
   form of the baseline. The forward-pass form runs to its end on the units given here; nothing is extrapolated.
2. Growth: seconds and peak memory of i-SpaSP against units, samples, layers, one at a time.

Seconds are of the processor (all threads), wall-clock beside them. Writes benchmarks/results/shrink_speed.json.

    python benchmarks/shrink_speed.py              # some minutes on two idle cores
    python benchmarks/shrink_speed.py --quick      # tiny networks, for a try
    python benchmarks/shrink_speed.py --only growth

Whole networks are in shrink_networks.py.
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import thresher
from thresher.deploy.latency import peak_memory
from thresher.recovery import Problem, gfs, ispasp

RESULTS = Path(__file__).parent / "results" / "shrink_speed.json"
Row = dict[str, Any]


def timed(run: Callable[[], Any]) -> tuple[Row, Any]:
    """Processor seconds and wall-clock seconds of one call."""
    wall, work = time.perf_counter(), time.process_time()
    result = run()
    return {
        "cpu_seconds": round(time.process_time() - work, 4),
        "seconds": round(time.perf_counter() - wall, 4),
    }, result


def forward_gfs(hidden: Tensor, weight: Tensor, size: int) -> list[int]:
    """Greedy forward selection as published: every candidate's loss from a forward pass of the layer on the data."""
    units = len(weight.T)
    target = hidden @ weight.T
    counts = torch.zeros(units)
    picks: list[int] = []
    while int((counts > 0).sum()) < size:
        losses = torch.empty(units)
        for unit in range(units):
            trial = counts.clone()
            trial[unit] += 1
            losses[unit] = (target - (hidden * (trial * (units / (len(picks) + 1)))) @ weight.T).square().sum()
        pick = int(losses.argmin())
        counts[pick] += 1
        picks.append(pick)
    return picks


def selection(quick: bool) -> Iterator[Row]:
    """One linear layer with as many outputs as units, three tenths of them kept."""
    for units in (16, 32) if quick else (32, 64, 128, 256):
        noise = torch.Generator().manual_seed(units)
        samples = 200 if quick else 2000
        hidden = torch.randn(samples, units, generator=noise).relu() * torch.rand(units, generator=noise)
        weight = torch.randn(units, units, generator=noise) / units**0.5

        def problem() -> Problem:
            return Problem.of(hidden.double().T @ hidden.double(), weight)  # noqa: B023

        size = max(units * 3 // 10, 1)
        ours, _ = timed(lambda: ispasp(problem(), size))  # noqa: B023
        moments, second = timed(lambda: gfs(problem(), size))  # noqa: B023
        passes, first = timed(lambda: forward_gfs(hidden, weight, size))  # noqa: B023
        yield (
            {
                "units": units,
                "kept": size,
                "samples": samples,
                "ispasp": ours,
                "gfs second moments": moments,
                "gfs forward passes": passes,
                "forward passes run": units * len(first),
                "same picks": len(second.losses) == len(first),
                "ratio to forward passes": passes["cpu_seconds"] / max(ours["cpu_seconds"], 1e-9),
            }
        )


def growth(quick: bool) -> Iterator[Row]:
    """A chain of linear layers; units, samples and layers from a common middle."""
    middle = {"units": 64, "samples": 256, "layers": 2} if quick else {"units": 512, "samples": 2048, "layers": 4}
    for what, start in middle.items():
        for factor in (0.5, 1, 2) if quick else (0.25, 0.5, 1, 2, 4):
            setting = {**middle, what: max(int(start * factor), 1)}
            units = setting["units"]
            torch.manual_seed(0)
            layers = [layer for _ in range(setting["layers"]) for layer in (nn.Linear(units, units), nn.ReLU())]
            model = nn.Sequential(*layers, nn.Linear(units, 10)).eval()
            batches = list(torch.randn(setting["samples"], units).split(64))

            def run() -> Any:
                # Not all batches at once in memory: a pass for each layer, as for long data.
                return thresher.shrink_plan(model, "ispasp", keep={"*": 0.3}, calibration=batches, memory=0)  # noqa: B023

            spent, _ = timed(run)
            yield {"varies": what, **setting, **spent, "peak_bytes": peak_memory(run)}


def main() -> None:
    """Run the parts asked for and write the file."""
    parts = {"selection": selection, "growth": growth}
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--only", nargs="+", choices=list(parts), default=list(parts))
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    # Imports and first calls are no part of what is measured.
    warm = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    thresher.shrink(warm, "ispasp", "flops=50%", calibration=[torch.randn(8, 4)])
    record: Row = json.loads(args.out.read_text()) if args.out.exists() else {}
    record |= {"version": 1, "quick": args.quick}
    record["machine"] = f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}"
    args.out.parent.mkdir(exist_ok=True)
    for name in args.only:
        record[name] = []
        for row in parts[name](args.quick):
            record[name].append(row)
            args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
