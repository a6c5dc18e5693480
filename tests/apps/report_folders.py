"""Run folders made by hand for the tests of the report, with or without hostile texts everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thresher import Trail, prune

HOSTILE = (
    "</script><script>window.broken=1</script>",
    "<img src=x onerror=window.broken=1>",
    "\"'><svg onload=window.broken=1>",
    "javascript:window.broken=1",
    "</style><b>&lt;{{7*7}}`${window.broken=1}`",
)


def hostile(value: Any, seen: list[int] | None = None) -> Any:
    """The same data with a hostile text in place of, or added to, every text and every free key."""
    counter = seen if seen is not None else [0]
    if isinstance(value, str):
        counter[0] += 1
        return value + HOSTILE[counter[0] % len(HOSTILE)]
    if isinstance(value, list):
        return [hostile(each, counter) for each in value]
    if isinstance(value, dict):
        return {key: value[key] if key in ("kind",) else hostile(value[key], counter) for key in value}
    return value


def shrunk_run(folder: Path, *, spoil: bool = False) -> Path:
    """A structured run."""
    groups = [
        {
            "name": f"block{number}.conv",
            "units": 32,
            "kept": 8 * number,
            "relative_error": 0.01 * number,
            "predicted_error": 0.012 * number,
            "losses": [40.0, 31.0, 30.5],
            "energy": 1000.0,
            "curve": [[units, 2.0 / units**1.5] for units in range(1, 33)],
            "decay": [[units, 4.0 / units, 3.0 / units**1.5] for units in range(1, 33)],
            "p": 0.8,
            "exponent": -1.5,
            "covered": True,
            "measured_slope": -1.4,
            "residual": 0.3,
            "moments": "channel-taps",
            "refitted": True,
        }
        for number in (1, 2, 3)
    ]
    shrink = {"version": 1, "method": "ispasp", "asked": "flops=40%", "groups": groups, "macs": 4e5, "total_macs": 1e6}
    shrink |= {"output_error": 0.19, "predicted_error": 0.18, "error_per_sample": 1.5, "bound": 41.0}
    shrink |= {"bound_proven": True, "bytes": 90_000, "total_bytes": 250_000, "left_whole": [["fc", "an output"]]}
    shrink["latency"] = {"limit": 4e-3, "dense": 5e-3, "predicted": 3.5e-3, "got": 3.9e-3, "on": "cpu, 1 thread"}
    result = {"accuracy_before": 91.0, "accuracy_after": 89.5, "milliseconds_dense": 5.0, "milliseconds": 3.1}
    result |= {"bytes": 90_000, "dense_bytes": 250_000, "stages": {"before": 91.0, "cut": 80.0, "finetuned": 89.5}}
    plan = {"groups": [{"name": one["name"], "units": 32, "keep": [0, 1, 2]} for one in groups]}
    layers = [{"name": "conv1", "runs": "sparse", "zeros": 0.9, "milliseconds_dense": 1.0, "milliseconds": 0.4}]
    layers.append({"name": "pool", "runs": "pool", "zeros": None, "milliseconds_dense": None, "milliseconds": 0.1})
    bench = {"rows": [{"engine": "torch", "variant": "dense", "milliseconds": 2.4}]}
    bench["rows"].append({"engine": "thresher", "variant": "pruned", "milliseconds": 1.2, "layers": layers})
    return _write(
        folder,
        spoil,
        {
            "shrink.json": shrink,
            "plan.json": plan,
            "bench.json": bench,
            "result.json": result,
            "config.json": {"method": "ispasp", "budget": "flops=40%", "model": "net"},
        },
    )


def trail_run(folder: Path, *, spoil: bool = False, points: int = 6) -> Path:
    """A run with a trail of real files, histograms and a report."""
    torch.manual_seed(0)
    extra = HOSTILE[1].replace(".", "_") if spoil else ""
    names = [f"first{extra}", f"second{extra}"]
    trail = Trail(folder / "trail", dense_accuracy=91.0)
    for number in range(points):
        model = nn.Sequential()
        torch.manual_seed(0)
        model.add_module(names[0], nn.Linear(30, 20))
        model.add_module(names[1], nn.Linear(20, 10))
        pruner = prune(
            model,
            None,
            "magnitude",
            {"sparsity": number / (number + 1)},
            example=torch.zeros(1, 30),
            rules=["include:*"],
        )
        pruner.step = 10 * (number + 1)
        trail.add(pruner, accuracy=91.0 - number, images=500, keep=True)
        report = pruner.finish()
    steps = list(range(10 * points + 1))
    whole = [f"{name}.weight" for name in names]
    layers = [{"name": one.name, "entries": one.entries, "zeros": one.zeros, "reach": 0.25} for one in report.layers]
    for one in layers:
        one |= {"before": [float(number % 7) for number in range(60)], "after": [1.0] * 60, "threshold": 0.1}
    metrics = [{"kind": "step", "step": n, "loss": 1 / (n + 1), "sparsity": n / 100} for n in steps]
    metrics += [{"kind": "epoch", "epoch": n, "step": 10 * n, "accuracy": 80.0 + n} for n in range(1, points + 1)]
    result = {"accuracy_before": 91.0, "accuracy_after": 86.0, "bytes": 900, "dense_bytes": 3800, "seconds": 3.0}
    return _write(
        folder,
        spoil,
        {
            "config.json": {"method": "magnitude", "budget": "sparsity=80%", "model": "net", "lr": 0.1, "seed": 0},
            "report.json": {**report.to_dict(), "layers": [vars(one) for one in report.layers]},
            "histograms.json": {"bins": 60, "layers": layers},
            "trace.json": {
                "names": whole,
                "steps": steps,
                "clock": [n / 2 for n in steps],
                "thresholds": [[1e-3 * n, 2e-3 * n] for n in steps],
            },
            "result.json": result,
            "metrics.jsonl": metrics,
        },
        # Names of tensors tie the files of a run together; they are hostile already.
        leave=("report.json", "histograms.json", "trace.json") if spoil else (),
    )


def _write(folder: Path, spoil: bool, files: dict[str, Any], leave: tuple[str, ...] = ()) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for name, record in files.items():
        found = hostile(record) if spoil and name not in leave else record
        text = "".join(json.dumps(row) + "\n" for row in found) if isinstance(found, list) else json.dumps(found)
        (folder / name).write_text(text)
    return folder
