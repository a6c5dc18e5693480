"""One-shot weight pruning of two trained networks: perplexity and accuracy by method and pattern, and how long it took.

    python benchmarks/oneshot.py                # both networks, some minutes on two cores
    python benchmarks/oneshot.py --only stories --patterns 2:4 --methods sparsegpt   # that part again

stories: the 260,032-parameter Llama in shared/data/weights/stories260k, perplexity on five TinyStories. Each story is
evaluated on networks that were calibrated on the other four; or all five on networks that were calibrated on 64 x 256
tokens that the dense network wrote itself (temperature 1). sst2: a two-layer encoder of BERT's kind (hidden 64, words
as tokens), trained here for two epochs, accuracy on the validation set, 256 training sentences without labels for
calibration. Writes benchmarks/results/oneshot.json.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import platform
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import thresher
from thresher.apps.data.roots import find

PATTERNS = {"30%": "sparsity=30%", "50%": "sparsity=50%", "4:8": None, "2:4": None}
METHODS: dict[str, Any] = {
    "magnitude": "magnitude",
    "magnitude, global": thresher.Magnitude(scope="global"),
    "wanda": "wanda",
    "sparsegpt": "sparsegpt",
    "sparsegpt, as published": thresher.SparseGpt(block=128, quota="even"),
}
OUT = Path(__file__).parent / "results" / "oneshot.json"


def pruned(dense: nn.Module, method: str, pattern: str, calibration: Sequence[Any]) -> tuple[nn.Module, Any, float]:
    """(network, report, seconds that the pruning took)."""
    model, budget = copy.deepcopy(dense), PATTERNS[pattern]
    groups = "weight" if budget else pattern
    began = time.perf_counter()
    report = thresher.prune_oneshot(model, METHODS[method], budget, groups=groups, calibration=calibration)
    return model, report, time.perf_counter() - began


def cases(patterns: Sequence[str], methods: Sequence[str]) -> Iterator[tuple[str, str]]:
    """(method, pattern); with N:M a global ranking has nothing to say, and SparseGPT is as published anyway."""
    for pattern in patterns:
        yield from ((method, pattern) for method in methods if PATTERNS[pattern] or "," not in method)


def story_losses(model: nn.Module, stories: Sequence[Tensor]) -> tuple[float, int]:
    """(summed loss in nats, tokens predicted)."""
    with torch.no_grad():
        losses = [float(model(input_ids=ids, labels=ids).loss) * (ids.shape[1] - 1) for ids in stories]
    return sum(losses), sum(ids.shape[1] - 1 for ids in stories)


def stories(patterns: Sequence[str], methods: Sequence[str]) -> list[dict[str, Any]]:
    """Rows of the Llama."""
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder, text = find("weights/stories260k"), find("lm/tinystories_sample.txt")
    if folder is None or text is None:
        raise SystemExit("shared data not found: set THRESHER_DATA")
    tokenizer = AutoTokenizer.from_pretrained(folder)
    dense = AutoModelForCausalLM.from_pretrained(folder).eval()
    parts = [part.strip() for part in text.read_text(encoding="utf-8").split("<|endoftext|>") if part.strip()]
    told = [tokenizer(part, return_tensors="pt").input_ids for part in parts]
    torch.manual_seed(0)
    start = torch.full((64, 1), dense.config.bos_token_id)
    own = dense.generate(
        start, do_sample=True, temperature=1.0, top_k=0, max_new_tokens=255, eos_token_id=None, pad_token_id=0
    )
    loss, tokens = story_losses(dense, told)
    rows = [{"network": "stories260k", "method": "dense", "perplexity": math.exp(loss / tokens), "tokens": tokens}]
    # The 172 inputs of its down projections are no multiple of 8.
    fitting = [pattern for pattern in patterns if pattern != "4:8"]
    for method, pattern in cases(fitting, methods):
        for calibration in ("other stories", "own text"):
            total, seconds = 0.0, []
            for fold in range(len(told) if calibration == "other stories" else 1):
                others = [ids for place, ids in enumerate(told) if place != fold]
                held = [told[fold]] if calibration == "other stories" else told
                batches = others if calibration == "other stories" else list(own.split(16))
                model, report, took = pruned(dense, method, pattern, [{"input_ids": ids} for ids in batches])
                total += story_losses(model, held)[0]
                seconds.append(took)
            rows.append(
                {
                    "network": "stories260k",
                    "method": method,
                    "pattern": pattern,
                    "calibration": calibration,
                    "calibration_tokens": sum(ids.numel() for ids in batches),
                    "sparsity": report.sparsity,
                    "perplexity": math.exp(total / tokens),
                    "error": sum(each.after for each in report.errors) / len(report.errors),
                    "seconds": sum(seconds) / len(seconds),
                }
            )
            print(json.dumps(rows[-1]), flush=True)
    return rows


def sentences(
    name: str, words: dict[str, int] | None, limit: int | None
) -> tuple[list[list[int]], Tensor, dict[str, int]]:
    """(token numbers, labels, vocabulary) of one SST-2 file; words seen once are unknown."""
    import pyarrow.parquet as parquet

    path = find(f"sst2/{name}.parquet")
    if path is None:
        raise SystemExit("shared data not found: set THRESHER_DATA")
    table = parquet.read_table(path)
    split = [sentence.split()[:40] for sentence in table["sentence"].to_pylist()[:limit]]
    if words is None:
        counted = Counter(word for sentence in split for word in sentence)
        words = {word: place + 2 for place, (word, count) in enumerate(counted.most_common()) if count > 1}
    numbers = [[words.get(word, 1) for word in sentence] or [1] for sentence in split]
    return numbers, torch.tensor(table["label"].to_pylist()[:limit]), words


def padded(numbers: Sequence[Sequence[int]]) -> dict[str, Tensor]:
    """One batch, padded with 0 and masked."""
    width = max(len(each) for each in numbers)
    ids = torch.tensor([[*each, *[0] * (width - len(each))] for each in numbers])
    return {"input_ids": ids, "attention_mask": (ids != 0).long()}


def accuracy(model: nn.Module, numbers: Sequence[Sequence[int]], labels: Tensor) -> float:
    """Share of right answers in percent."""
    with torch.no_grad():
        found = [model(**padded(numbers[at : at + 128])).logits.argmax(1) for at in range(0, len(numbers), 128)]
    return 100 * float((torch.cat(found) == labels).float().mean())


def trained(numbers: list[list[int]], labels: Tensor, words: int, epochs: int) -> nn.Module:
    """The encoder after training with Adam, learning rate falling in a straight line."""
    from transformers import BertConfig, BertForSequenceClassification

    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=words,
        hidden_size=64,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=256,
        max_position_embeddings=64,
    )
    model = BertForSequenceClassification(config).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
    steps = epochs * (len(numbers) // 64)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=steps)
    for _ in range(epochs):
        for chosen in torch.randperm(len(numbers))[: len(numbers) // 64 * 64].split(64):
            batch = padded([numbers[place] for place in chosen.tolist()])
            model(**batch, labels=labels[chosen]).loss.backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    return model.eval()


def sst2(patterns: Sequence[str], methods: Sequence[str], limit: int | None) -> list[dict[str, Any]]:
    """Rows of the encoder."""
    train, labels, words = sentences("train", None, limit)
    held, truth, _ = sentences("validation", words, None)
    dense = trained(train, labels, max(words.values()) + 1, epochs=2)
    rows: list[dict[str, Any]] = [
        {"network": "sst2 encoder", "method": "dense", "accuracy": accuracy(dense, held, truth), "sentences": len(held)}
    ]
    batches = [padded(train[at : at + 64]) for at in range(0, 256, 64)]
    for method, pattern in cases(patterns, methods):
        model, report, took = pruned(dense, method, pattern, batches)
        rows.append(
            {
                "network": "sst2 encoder",
                "method": method,
                "pattern": pattern,
                "calibration": "256 sentences",
                "sparsity": report.sparsity,
                "accuracy": accuracy(model, held, truth),
                "error": sum(each.after for each in report.errors) / len(report.errors),
                "seconds": took,
            }
        )
        print(json.dumps(rows[-1]), flush=True)
    return rows


def key_of(row: dict[str, Any]) -> tuple[Any, ...]:
    """What a row is about."""
    return tuple(row.get(name) for name in ("network", "pattern", "calibration", "method"))


def main() -> None:
    """Run what is asked, and write the file."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--only", choices=("stories", "sst2"))
    parser.add_argument("--patterns", nargs="+", default=list(PATTERNS), choices=list(PATTERNS))
    parser.add_argument("--methods", nargs="+", default=list(METHODS), choices=list(METHODS))
    parser.add_argument("--limit", type=int, help="training sentences, for a quick try")
    parser.add_argument("--out", type=Path, default=OUT)
    given = parser.parse_args()
    torch.set_num_threads(1)
    rows = [] if given.only == "sst2" else stories(given.patterns, given.methods)
    rows += [] if given.only == "stories" else sst2(given.patterns, given.methods, given.limit)
    machine = {"machine": platform.machine(), "torch": torch.__version__, "threads": torch.get_num_threads()}
    # What was run before and is not run now stays, so that parts can be run again.
    found = {key_of(row): row for row in json.loads(given.out.read_text())["rows"]} if given.out.exists() else {}
    found.update({key_of(row): row for row in rows})
    given.out.write_text(json.dumps({**machine, "rows": list(found.values())}, indent=1) + "\n")


if __name__ == "__main__":
    main()
