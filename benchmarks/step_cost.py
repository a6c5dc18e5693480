"""What a pruned training step costs: time and peak memory against the plain dense step, in turn in one process.

    python benchmarks/step_cost.py            # writes benchmarks/results/step_cost.json

float32, no compilation, one thread; single steps in turn. Time is processor time (what others on a shared machine
take does not count): the median pruned step over the median dense step. Memory is the peak that torch's allocator
reports during one step. The hooks (threshold moves, re-planning) are part of the pruned step.

A step on the CPU hands its activations back to the system and takes new pages for the next: some 30 000 page faults,
whose cost depends on how the heap happens to lie and outweighs a hook. So the program starts itself again with an
allocator that keeps its memory (glibc's MALLOC_ settings; other systems ignore them). The method `dense` is the
control: a second plain model against the first.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor, nn

import thresher
from thresher.apps.models import build_model
from thresher.deploy.latency import measure_ratio, peak_memory

RESULTS = Path(__file__).parent / "results" / "step_cost.json"
KEEP_MEMORY = {"MALLOC_MMAP_THRESHOLD_": "1073741824", "MALLOC_TRIM_THRESHOLD_": "8589934592"}
STEPS = 2_000  # as long as a short run, so that re-planning is part of the cost


class Transformer(nn.Module):
    """A small text classifier: embedding, 4 encoder layers of width 128, mean over 64 tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.embedding = nn.Embedding(1000, 128)
        self.encoder = nn.Sequential(
            *(nn.TransformerEncoderLayer(128, 4, 512, dropout=0.0, batch_first=True) for _ in range(4))
        )
        self.head = nn.Linear(128, 2)

    def forward(self, tokens: Tensor) -> Tensor:
        """(batch, 64) token numbers -> (batch, 2) logits."""
        return self.head(self.encoder(self.embedding(tokens)).mean(1))


def stepper(
    make: Callable[[], nn.Module], inputs: Tensor, labels: Tensor, method: str
) -> tuple[Callable[[], None], thresher.Pruner | None]:
    """A function that does one training step, pruned by `method` or plain (`dense`)."""
    torch.manual_seed(0)
    model = make()
    optimizer = torch.optim.SGD(model.parameters(), 0.01, momentum=0.9, weight_decay=1e-4)
    pruner = None
    if method != "dense":
        pruner = thresher.prune(model, optimizer, method, "sparsity=90%", steps=STEPS)

    def step() -> None:
        nn.functional.cross_entropy(model(inputs), labels).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, pruner


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=["dense", "lats", "gmp", "power", "st3", "asl", "ltp", "str"])
    parser.add_argument("--rounds", type=int, default=61)
    args = parser.parse_args()
    if any(os.environ.get(name) != value for name, value in KEEP_MEMORY.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **KEEP_MEMORY})
    torch.set_num_threads(1)  # processor time of a waiting thread would count as work
    networks = {
        "resnet20, batch 128": (
            lambda: build_model("resnet20", num_classes=10, input_shape=(3, 32, 32)),
            torch.randn(128, 3, 32, 32),
            torch.randint(0, 10, (128,)),
        ),
        "transformer (4 layers, width 128), batch 32 x 64 tokens": (
            Transformer,
            torch.randint(0, 1000, (32, 64)),
            torch.randint(0, 2, (32,)),
        ),
    }
    rows = []
    for name, (make, inputs, labels) in networks.items():
        for method in args.methods:
            dense, _ = stepper(make, inputs, labels, "dense")
            pruned, _ = stepper(make, inputs, labels, method)
            ratio = measure_ratio(pruned, dense, rounds=args.rounds, min_time=0.0, clock=time.process_time)
            row = {
                "network": name,
                "method": method,
                "time_ratio": ratio.a.seconds / ratio.b.seconds,
                "time_low": ratio.low,
                "time_high": ratio.high,
                "dense_seconds": ratio.b.seconds,
                "memory_ratio": peak_memory(pruned) / peak_memory(dense),
                "machine": f"{platform.machine()}, {torch.get_num_threads()} thread",
                "torch": torch.__version__,
            }
            rows.append(row)
            print(json.dumps(row), flush=True)
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(json.dumps(rows, indent=1) + "\n")


if __name__ == "__main__":
    main()
