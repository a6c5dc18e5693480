"""CIFAR-10, pretrained ResNet-20, shrunk to 1.5x, 2x, 3x fewer multiply-adds by every selection method, in one frame.

Each row: accuracy straight after the cut, after measuring batch norm anew on the augmented training stream (both with
and without a least-squares refit, `debias`), and instead of that after `thresher.reconstruct` on the images that the
choice was made on. One epoch of equal fine-tuning (SGD, momentum 0.9, weight decay 1e-4, cosine, bfloat16 autocast)
starts from there; torch-pruning's own pruners are not reconstructed and start from the batch norms measured anew. The
dense and the small network are timed in turn in one run, one thread, processor time, beside the ratio of multiply-adds.
The lineage methods (lats-early, ltp, asl, gmp) train one epoch on the scales of batch norms, the channels whose scale
is zero are cut by `thresher.compact`, and `l2` takes what is left to the budget; their epochs are counted in
`trained_epochs`. Rows go to benchmarks/results/shrink_quality.jsonl; those that are there are not run again.

    python benchmarks/shrink_quality.py --methods ispasp l2 --ratios 2
    python benchmarks/shrink_quality.py --limit 600 --epochs 0 --ratios 2 --out /tmp/try.jsonl      # a quick try
"""

from __future__ import annotations

import argparse
import copy
import dataclasses
import itertools
import json
import platform
import time
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

import thresher
from thresher.apps.data import ArrayData, Batches, DataSplit, load_data
from thresher.apps.models import build_model, normalisation_of
from thresher.apps.train.ending.evaluate import accuracy
from thresher.budget.counts import count_positions, counted_weights
from thresher.deploy.latency import measure_ratio
from thresher.shrinking import SELECTIONS, ShrinkReport, parse_selection
from thresher.shrinking.composing import composed
from thresher.shrinking.selections.torch_pruners import KINDS
from thresher.structure import ShrinkPlan

RESULTS = Path(__file__).parent / "results" / "shrink_quality.jsonl"
BALANCED = "ispasp, balanced"
LINEAGE = ("lats-early", "ltp", "asl", "gmp")
BATCH, NORM_BATCHES, TIMED = 128, 100, 32


class Bench:
    """The network and its data, the same for every row."""

    def __init__(self, limit: int | None, images: int, seed: int, device: str) -> None:
        self.data: DataSplit = load_data("cifar10", limit=limit)
        self.seed, self.device = seed, device
        self.model = build_model("resnet20", num_classes=10, input_shape=(3, 32, 32), weights="cifar10").to(device)
        self.model.eval().to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.mean, self.std = normalisation_of(self.model) or (self.data.mean, self.data.std)
        self.test = Batches(self.data.test, min(500, len(self.data.test)), train=False, **self.common())
        rows = torch.randperm(len(self.data.train), generator=torch.Generator().manual_seed(seed))[:images]
        some = ArrayData(self.data.train.images[rows], self.data.train.labels[rows])
        self.calibration = list(Batches(some, min(BATCH, len(some)), train=False, **self.common()))
        self.macs = macs(self.model, self.example)
        self.accuracy = accuracy(self.model, self.test)

    def common(self) -> dict[str, Any]:
        """Normalisation and place of every batch."""
        return {"mean": self.mean, "std": self.std, "device": self.device}

    def stream(self) -> Batches:
        """Training images, augmented, from their first epoch on."""
        train = self.data.train
        return Batches(train, min(BATCH, len(train)), train=True, augment="crop_flip", seed=self.seed, **self.common())

    @property
    def example(self) -> Tensor:
        """A few images."""
        return self.calibration[0][0][:2]


def macs(model: nn.Module, example: Tensor) -> float:
    """Multiply-adds of convolutions and linear layers for one image."""
    positions = count_positions(model, example)
    return sum(
        positions.get(name, 0.0) * getattr(module, tensor).numel()
        for name, (module, tensor) in counted_weights(model).items()
    )


def train(bench: Bench, model: nn.Module, epochs: int, lr: float, pruning: dict[str, Any] | None = None) -> None:
    """Equal training for all; with `pruning`, by a method of `thresher.prune`."""
    stream = bench.stream()
    model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = torch.optim.SGD(model.parameters(), lr, momentum=0.9, weight_decay=1e-4)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, max(len(stream) * epochs, 1))
    pruner = None
    if pruning is not None:
        steps = len(stream) * epochs
        pruner = thresher.prune(model, optimizer, steps=steps, lr_schedule=scheduler, **pruning)
    model.train()
    for _ in range(epochs):
        for inputs, labels in stream:
            with torch.autocast(bench.device, torch.bfloat16):
                loss = functional.cross_entropy(model(inputs.contiguous(memory_format=torch.channels_last)), labels)
            loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            scheduler.step()
    if pruner is not None:
        pruner.finish()
    model.eval()


def shrunk(bench: Bench, key: dict[str, Any], budget: float) -> tuple[nn.Module, ShrinkPlan, ShrinkReport | None]:
    """The smaller network, what was cut, and what shrinking said about it."""
    method, asked = key["method"], {"flops": f"{budget:.0f}"}
    options: dict[str, Any] = {"calibration": bench.calibration, "scope": key["scope"]}
    if method in KINDS:
        found = thresher.torch_pruned(bench.model, method, asked, debias=key["debias"], **options)
        return found.model, found.plan, None
    if method not in LINEAGE:
        chosen = thresher.ISpaSP(balance=True) if method == BALANCED else parse_selection(method)
        selection = dataclasses.replace(chosen, debias=key["debias"])
        found = thresher.shrink_plan(bench.model, selection, asked, allocation=key["allocation"], **options)
        return found.model, found.plan, found.report
    model = copy.deepcopy(bench.model)
    # A channel takes the row that makes it and the column that reads it: equal shares of all channels, about.
    positions = count_positions(model, bench.example)
    cut = [rule.removeprefix("include:") for rule in thresher.channel_rules(model, bench.example)[1:]]
    both = sum(
        positions[f"{name}.weight"] * model.get_submodule(name).weight.numel()
        for producer in cut
        for name in (producer, producer.replace("conv1", "conv2"))
    )
    share = min(max((bench.macs - budget) / both, 0.0), 0.95)
    rules = thresher.channel_rules(model, bench.example, scales=True)
    asked_of = {"method": method, "budget": f"sparsity={share:.6f}", "rules": rules, "example": bench.example}
    train(bench, model, key["trained_epochs"], key["lr"], asked_of)
    whole = thresher.compact(model, bench.example)
    if macs(whole.model, bench.example) <= budget:
        return whole.model, whole.plan, None
    found = thresher.shrink_plan(whole.model, "l2", asked, calibration=bench.calibration)
    return found.model, composed(whole.plan, found.plan), None


def run(bench: Bench, key: dict[str, Any]) -> dict[str, Any]:
    """One row."""
    torch.manual_seed(key["seed"])
    started = time.time()
    small, plan, report = shrunk(bench, key, bench.macs / key["ratio"])
    small.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    seconds = time.time() - started
    row = {"accuracy_dense": bench.accuracy, "accuracy_cut": accuracy(small, bench.test)}
    anew = copy.deepcopy(small)
    thresher.reestimate_norm(anew, bench.stream(), limit=NORM_BATCHES)
    row["accuracy_norm"] = accuracy(anew, bench.test)
    if key["reconstruct"]:
        began = time.time()
        thresher.reconstruct(small, bench.model, bench.calibration, plan=plan)
        row["reconstruct_seconds"] = round(time.time() - began, 1)
        row["accuracy_reconstructed"] = accuracy(small, bench.test)
    else:
        small = anew
    if key["epochs"]:
        train(bench, small, key["epochs"], key["lr"])
        row["accuracy_finetuned"] = accuracy(small, bench.test)
    images = next(iter(bench.test))[0][:TIMED]

    def once(model: nn.Module) -> None:
        with torch.inference_mode():
            model(images)

    clock = time.process_time if torch.get_num_threads() == 1 else None
    timed = measure_ratio(lambda: once(bench.model), lambda: once(small), rounds=9, min_time=0.05, clock=clock)
    now = macs(small, bench.example)
    return {
        **key,
        **row,
        "macs": now,
        "total_macs": bench.macs,
        "macs_ratio": bench.macs / now,
        "params": sum(parameter.numel() for parameter in small.parameters()),
        "speedup": timed.ratio,
        "speedup_low": timed.low,
        "speedup_high": timed.high,
        "milliseconds_dense": 1000 * timed.a.seconds,
        "milliseconds": 1000 * timed.b.seconds,
        "output_error": None if report is None else report.output_error,
        "predicted_error": None if report is None else report.predicted_error,
        "shrink_seconds": round(seconds, 2),
        "seconds": round(time.time() - started, 1),
        "machine": f"{platform.machine()}, {torch.get_num_threads()} threads, {bench.device}",
        "torch": torch.__version__,
        "thresher": thresher.__version__,
    }


def keys_of(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What to run, one ratio after another."""
    found = []
    for ratio, method in itertools.product(args.ratios, args.methods):
        frame = method not in KINDS and method not in LINEAGE  # the others have their own split over layers
        for scope, allocation, debias in itertools.product(
            args.scopes if method not in LINEAGE else ["inside"],
            args.allocations if frame else ["own"],
            args.refits
            if frame
            else [False],  # of the others, torch-pruning runs as it is; training has its own weights
        ):
            key = {"method": method, "ratio": ratio, "debias": debias, "scope": scope, "allocation": allocation}
            key |= {"lr": args.lr, "seed": args.seed, "images": args.images, "limit": args.limit}
            # What is fine-tuned is the best that each frame has to start from.
            key |= {
                "epochs": args.epochs if debias or not frame else 0,
                "reconstruct": debias and frame,
            }
            key |= {"trained_epochs": max(args.epochs, 1) if method in LINEAGE else 0}
            found.append(key)
    return found


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    every = [*SELECTIONS, BALANCED, *KINDS, *LINEAGE]
    parser.add_argument("--methods", nargs="+", default=every, choices=every)
    parser.add_argument("--ratios", nargs="+", type=float, default=[2.0, 1.5, 3.0])
    parser.add_argument("--scopes", nargs="+", default=["inside"], choices=["inside", "across"])
    parser.add_argument("--allocations", nargs="+", default=["residual", "uniform"], choices=["residual", "uniform"])
    parser.add_argument("--refits", nargs="+", type=lambda text: text == "yes", default=[True, False], metavar="yes|no")
    parser.add_argument("--epochs", type=int, default=1, help="of fine-tuning")
    parser.add_argument("--lr", type=float, default=0.02)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--images", type=int, default=640, help="to choose on")
    parser.add_argument("--limit", type=int, default=None, help="at most that many images, for a try")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.out.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    missing = [
        key
        for key in keys_of(args)
        if not any(all(row.get(name, False) == value for name, value in key.items()) for row in rows)
    ]
    if not missing:
        return
    torch.set_num_threads(args.threads)
    bench = Bench(args.limit, args.images, args.seed, "cuda" if torch.cuda.is_available() else "cpu")
    for key in missing:
        row = run(bench, key)
        with args.out.open("a") as file:
            file.write(json.dumps(row) + "\n")
        print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
