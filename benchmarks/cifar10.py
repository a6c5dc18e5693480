"""CIFAR-10, pretrained ResNet-20: methods at equal epochs, learning rates and seeds, every one at exactly its budget.

Protocol: 5 epochs, batch 128, SGD (momentum 0.9, weight decay 1e-4, cosine without warm-up), crop and flip, bfloat16
autocast, torch.compile, channels last. `soft_gap`: what the soft gates of an unfrozen LTP have over the hard masks, in
points, as training left them. `accuracy_norm` is the accuracy once more with the batch norms measured anew on
a pass over the training images. One row per run is appended to benchmarks/results/cifar10.jsonl; rows that are there
already are not run again, so that a study can be stopped and taken up.

    python benchmarks/cifar10.py --methods gmp lats --sparsities 90 95 98 --seeds 0 1 2
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch

import thresher
from thresher.apps.data import Batches, load_data
from thresher.apps.models import build_model, normalisation_of
from thresher.apps.train.objective import Objective
from thresher.diagnostics.l1 import l1_spread
from thresher.methods.learning.gated import GateShell, soft_gates

RESULTS = Path(__file__).parent / "results" / "cifar10.jsonl"


def accuracy(model: torch.nn.Module, batches: Batches) -> float:
    """Top-1 in percent, float32, eval mode."""
    model.eval()
    right = 0
    with torch.no_grad():
        for inputs, labels in batches:
            right += int((model(inputs).argmax(1) == labels).sum())
    model.train()
    return 100 * right / len(batches.data)


def schedule_of(optimizer: torch.optim.Optimizer, steps: int, shape: str) -> torch.optim.lr_scheduler.LRScheduler:
    """The protocol's cosine, or `flat`: constant for three fifths of the run, then straight down to 0."""
    if shape == "cosine":
        return torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    return torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: min(1.0, (1 - step / steps) / 0.4))


def run(key: dict[str, Any], data: Any) -> dict[str, Any]:
    """One row: train, prune, finish, measure."""
    torch.manual_seed(key["seed"])
    device = "cuda" if torch.cuda.is_available() else "cpu"
    model, teacher = (
        build_model("resnet20", num_classes=10, input_shape=(3, 32, 32), weights="cifar10").to(
            device,
            memory_format=torch.channels_last,  # type: ignore[call-overload]
        )
        for _ in range(2)
    )
    mean, std = normalisation_of(model) or (data.mean, data.std)
    train = Batches(
        data.train, 128, train=True, augment="crop_flip", mean=mean, std=std, seed=key["seed"], device=device
    )
    test = Batches(data.test, 500, train=False, mean=mean, std=std, device=device)
    steps = len(train) * key["epochs"]
    optimizer = torch.optim.SGD(
        model.parameters(),
        key["lr"],
        momentum=0.9,
        weight_decay=key.get("weight_decay", 1e-4),
        nesterov=key.get("nesterov", False),
    )
    scheduler = schedule_of(optimizer, steps, key.get("shape", "cosine"))
    pruner = thresher.prune(
        model,
        optimizer,
        key["method"],
        f"sparsity={key['sparsity']}%",
        steps=steps,
        lr_schedule=scheduler,
        groups=key.get("groups", "weight"),
    )
    forward = torch.compile(model)
    objective = Objective(
        torch.compile(teacher),  # type: ignore[arg-type]
        distill=key.get("distill", 0.0),
        temperature=key.get("temperature", 4.0),
        label_smoothing=0.0,
    )
    started = time.time()
    for _ in range(key["epochs"]):
        for inputs, labels in train:
            inputs = inputs.to(memory_format=torch.channels_last)
            with torch.autocast(device, torch.bfloat16):
                loss = objective(forward(inputs), inputs, labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    soft = None
    if any(isinstance(module, GateShell) and module.mask is None for module in model.modules()):
        with soft_gates(model):
            soft = accuracy(model, test)
    before_projection = pruner.sparsity
    trace = pruner.trace
    report = pruner.finish()
    renewed = copy.deepcopy(model)
    thresher.reestimate_norm(renewed, train)
    median, low, high = l1_spread(trace.clock, trace.thresholds)
    hard = accuracy(model, test)
    return {
        **key,
        "accuracy": hard,
        **({} if soft is None else {"soft_gap": soft - hard}),
        "accuracy_norm": accuracy(renewed, test),
        "zeros": report.zeros,
        "entries": report.entries,
        "sparsity_before_projection": before_projection,
        "touched": report.touched,
        "bytes": report.bytes,
        "l1_median": median,
        "l1_low": low,
        "l1_high": high,
        "seconds": round(time.time() - started, 1),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {device}",
        "torch": torch.__version__,
        "thresher": thresher.__version__,
    }


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["lats-early", "gmp", "lats", "magnitude"])
    parser.add_argument("--sparsities", nargs="+", type=float, default=[95, 90, 98])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--lrs", nargs="+", type=float, default=[0.025, 0.05])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--shape", choices=["cosine", "flat"], default="cosine", help="of the learning rate")
    parser.add_argument("--distill", type=float, default=0.0, help="share of the loss that the dense network sets")
    parser.add_argument("--temperature", type=float, default=4.0, help="of the distillation")
    parser.add_argument("--nesterov", action="store_true")
    parser.add_argument("--weight-decay", type=float, default=1e-4)
    parser.add_argument("--groups", default="weight", help="pattern of the zeros, such as block:4x1")
    args = parser.parse_args()
    unusual = {
        "shape": args.shape if args.shape != "cosine" else None,
        "distill": args.distill or None,
        "temperature": args.temperature if args.distill and args.temperature != 4 else None,
        "nesterov": args.nesterov or None,
        "weight_decay": args.weight_decay if args.weight_decay != 1e-4 else None,
        "groups": args.groups if args.groups != "weight" else None,
    }
    RESULTS.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    data = load_data("cifar10")
    for seed in args.seeds:
        for sparsity in args.sparsities:
            for method in args.methods:
                for lr in args.lrs:
                    key = {"method": method, "sparsity": sparsity, "lr": lr, "seed": seed, "epochs": args.epochs}
                    key |= {name: value for name, value in unusual.items() if value is not None}
                    names = key.keys() | unusual.keys()
                    if any(all(row.get(name) == key.get(name) for name in names) for row in rows):
                        continue
                    row = run(key, data)
                    with RESULTS.open("a") as file:
                        file.write(json.dumps(row) + "\n")
                    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
