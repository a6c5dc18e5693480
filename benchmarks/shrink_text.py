"""SST-2, encoders of BERT's kind trained here, heads and FFN shrunk to 1.5x, 2x, 3x fewer multiply-adds, in one frame.

Four layers, hidden 96, six heads, FFN 384, words as tokens; two epochs of training, one network for each seed. Every
selection method chooses on the same 640 training sentences (labels only for `taylor`), with the split over layers by
predicted output error ("residual") or the same share everywhere ("uniform"), each with the weights as they were and
after the least-squares refit of the reading layers. Accuracy is that on the validation set, straight after the cut;
after "residual" also after one equal short fine-tuning (AdamW, `--steps` steps of 64 sentences, rate falling in a
straight line from `--lr`).
Rows go to benchmarks/results/shrink_text.jsonl; those that are there already are not run again.

    python benchmarks/shrink_text.py --seeds 0
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
from oneshot import accuracy, padded, sentences
from torch import Tensor, nn

import thresher
from thresher.shrinking import SELECTIONS, Selection, parse_selection

RESULTS = Path(__file__).parent / "results" / "shrink_text.jsonl"
METHODS = [name for name in SELECTIONS if name != "bn-scale"]
BATCH, CALIBRATION, EPOCHS, RATE = 64, 640, 2, 1e-3


class Text:
    """Sentences as token numbers, the same for every network."""

    def __init__(self, limit: int | None) -> None:
        self.train, self.labels, words = sentences("train", None, limit)
        self.held, self.truth, _ = sentences("validation", words, None)
        self.words = max(words.values()) + 1

    def batch(self, chosen: Tensor) -> dict[str, Tensor]:
        """Labelled sentences."""
        return {**padded([self.train[place] for place in chosen.tolist()]), "labels": self.labels[chosen]}

    def fit(self, model: nn.Module, steps: int, rate: float, seed: int) -> None:
        """Train for so many steps. Sentences of like length share a batch, so that little is padding."""
        optimizer = torch.optim.AdamW(model.parameters(), lr=rate)
        schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
        noise = torch.Generator().manual_seed(seed)
        model.train()
        for chosen in itertools.islice(self._order(noise), steps):
            model(**self.batch(chosen)).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
        model.eval()

    def _order(self, noise: torch.Generator) -> Any:
        while True:
            order = torch.randperm(len(self.train), generator=noise)
            pools = [
                sorted(pool.tolist(), key=lambda place: len(self.train[place])) for pool in order.split(50 * BATCH)
            ]
            batches = [part for pool in pools for part in torch.tensor(pool).split(BATCH) if len(part) == BATCH]
            yield from (batches[place] for place in torch.randperm(len(batches), generator=noise).tolist())


class Bench:
    """One trained network and what units are chosen on."""

    def __init__(self, text: Text, seed: int) -> None:
        from transformers import BertConfig, BertForSequenceClassification

        torch.manual_seed(seed)
        shape = {"hidden_size": 96, "num_hidden_layers": 4, "num_attention_heads": 6, "intermediate_size": 384}
        config = BertConfig(vocab_size=text.words, max_position_embeddings=64, **shape)
        self.text, self.seed = text, seed
        self.model = BertForSequenceClassification(config)
        text.fit(self.model, EPOCHS * (len(text.train) // BATCH), RATE, seed)
        chosen = torch.randperm(len(text.train), generator=torch.Generator().manual_seed(seed))[:CALIBRATION]
        self.calibration = [text.batch(part) for part in chosen.split(BATCH)]
        self.accuracy = accuracy(self.model, text.held, text.truth)

    def selection(self, method: str, debias: bool) -> Selection:
        """The method as every row has it."""
        found = parse_selection(method)
        changes = {"debias": debias} | ({"seed": self.seed} if method == "random" else {})
        return dataclasses.replace(found, **changes)  # type: ignore[type-var]


def run(bench: Bench, key: dict[str, Any]) -> dict[str, Any]:
    """One row."""
    text, began = bench.text, time.process_time()
    found = thresher.shrink_plan(
        bench.model,
        bench.selection(key["method"], key["debias"]),
        f"flops={100 / key['ratio']:.4f}%",
        calibration=bench.calibration,
        allocation=key["allocation"],
    )
    seconds, small, report = time.process_time() - began, found.model, found.report
    row = {"accuracy_dense": bench.accuracy, "accuracy_cut": accuracy(small, text.held, text.truth)}
    if key["steps"]:
        text.fit(small, key["steps"], key["lr"], 1000 + key["seed"])
        row["accuracy_finetuned"] = accuracy(small, text.held, text.truth)
    kinds = {"heads": "heads", "ffn": "units"}
    kept = {
        f"{name}_kept": [len(group.keep) for group in found.plan.groups if group.kind == kind and group.name != POOLER]
        for name, kind in kinds.items()
    }
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


POOLER = "bert.pooler.dense"


def keys_of(args: argparse.Namespace) -> list[dict[str, Any]]:
    """What to run, one network after another."""
    return [
        {
            "method": method,
            "ratio": ratio,
            "debias": debias,
            "allocation": allocation,
            "seed": seed,
            "steps": args.steps if allocation == "residual" else 0,
            "lr": args.lr,
            "limit": args.limit,
        }
        for seed, ratio, allocation, method, debias in itertools.product(
            args.seeds, args.ratios, args.allocations, args.methods, (False, True)
        )
    ]


def main() -> None:
    """Run what is missing."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--methods", nargs="+", default=METHODS, choices=METHODS)
    parser.add_argument("--ratios", nargs="+", type=float, default=[2.0, 3.0, 1.5])
    parser.add_argument("--allocations", nargs="+", default=["residual", "uniform"], choices=["residual", "uniform"])
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, default=150, help="of fine-tuning")
    parser.add_argument("--lr", type=float, default=5e-4)
    parser.add_argument("--limit", type=int, default=None, help="at most that many sentences, for a try")
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    args.out.parent.mkdir(exist_ok=True)
    rows = [json.loads(line) for line in args.out.read_text().splitlines()] if args.out.exists() else []
    missing = [key for key in keys_of(args) if not any(key.items() <= row.items() for row in rows)]
    if not missing:
        return
    text = Text(args.limit)
    for seed, keys in itertools.groupby(missing, key=lambda key: key["seed"]):
        bench = Bench(text, seed)
        for key in keys:
            row = run(bench, key)
            with args.out.open("a") as file:
                file.write(json.dumps(row) + "\n")
            print(json.dumps(row), flush=True)


if __name__ == "__main__":
    main()
