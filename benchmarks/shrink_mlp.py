"""MNIST, networks of two and three layers: accuracy straight after hidden units are removed, by method and share kept.

Each network is trained once (Adam, 3 epochs), then each method removes the same share of every hidden layer, on 5
batches of 256 inputs without labels; accuracy on the 10,000 test images with the outgoing weights as they were and
refitted by least squares. Several seeds. Writes benchmarks/results/shrink_mlp.json. Nothing is fine-tuned.

    python benchmarks/shrink_mlp.py            # about two minutes
    python benchmarks/shrink_mlp.py --quick    # one seed, few images, for a try
"""

from __future__ import annotations

import argparse
import json
import platform
import time
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import thresher
from thresher.apps.data import Batches, load_data
from thresher.shrinking import SELECTIONS

RESULTS = Path(__file__).parent / "results" / "shrink_mlp.json"
NETWORKS = {"two layers": (512,), "three layers": (512, 256)}
METHODS = ("ispasp", "gfs", "greedy", "omp", "l1", "l2", "random")
KEEP = (0.5, 0.25, 0.1, 0.05)


def network(hidden: tuple[int, ...]) -> nn.Sequential:
    """Linear layers with ReLU between them."""
    widths, layers = (784, *hidden), []
    for inputs, outputs in pairwise(widths):
        layers += [nn.Linear(inputs, outputs), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(widths[-1], 10))


def trained(hidden: tuple[int, ...], images: Tensor, labels: Tensor, seed: int, epochs: int) -> nn.Sequential:
    """Adam at 1e-3, batch 128."""
    torch.manual_seed(seed)
    model = network(hidden)
    optimizer = torch.optim.Adam(model.parameters(), 1e-3)
    for _ in range(epochs):
        for index in torch.randperm(len(images)).split(128):
            nn.functional.cross_entropy(model(images[index]), labels[index]).backward()
            optimizer.step()
            optimizer.zero_grad()
    return model.eval()


def accuracy(model: nn.Module, images: Tensor, labels: Tensor) -> float:
    """Top-1 in percent."""
    with torch.no_grad():
        return 100 * float((model(images).argmax(1) == labels).double().mean())


def flat(part: Any, mean: Any, std: Any) -> tuple[Tensor, Tensor]:
    """All images as rows, normalised, and their labels."""
    batches = list(Batches(part, 1000, train=False, mean=mean, std=std))
    return torch.cat([inputs.flatten(1) for inputs, _ in batches]), torch.cat([labels for _, labels in batches])


def main() -> None:
    """Run all and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    data = load_data("mnist", limit=2000 if args.quick else None)
    images, labels = flat(data.train, data.mean, data.std)
    test, truth = flat(data.test, data.mean, data.std)
    rows: list[dict[str, Any]] = []
    for name, hidden in NETWORKS.items():
        for seed in args.seeds[:1] if args.quick else args.seeds:
            started = time.time()
            model = trained(hidden, images, labels, seed, 1 if args.quick else 3)
            training = time.time() - started
            picked = torch.randperm(len(images), generator=torch.Generator().manual_seed(seed))[:1280]
            calibration = list(images[picked].split(256))
            whole = accuracy(model, test, truth)
            for share in KEEP:
                for method in METHODS:
                    row: dict[str, Any] = {"network": name, "hidden": hidden, "seed": seed, "keep": share}
                    row |= {"method": method, "dense": whole, "training_seconds": round(training, 1)}
                    for key, debias in (("accuracy", False), ("accuracy_refitted", True)):
                        selection = replace(SELECTIONS[method](), debias=debias)  # type: ignore[type-var]
                        started = time.process_time()
                        found = thresher.shrink_plan(model, selection, keep={"*": share}, calibration=calibration)
                        row["seconds"] = round(time.process_time() - started, 3)
                        row[key] = accuracy(found.model, test, truth)
                        row[f"{key}_output_error"] = found.report.output_error
                    rows.append(row)
                    print(json.dumps(row), flush=True)
    record = {
        "version": 1,
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, torch {torch.__version__}",
        "train_images": len(images),
        "test_images": len(test),
        "calibration": "5 batches of 256, no labels",
        "rows": rows,
    }
    args.out.parent.mkdir(exist_ok=True)
    args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
