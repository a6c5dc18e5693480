"""How long it takes to shrink whole networks: i-SpaSP beside torch-pruning's Taylor pruner, in one process.

ResNet-34 and MobileNetV2 (224 px) and an encoder of BERT-base's shape (128 tokens), random weights from their
configurations, 5 batches of 64. i-SpaSP: `flops=50%`, everything from the first look at the network to the report.
Taylor: gradients of a cross entropy on every batch, then one step at ratio 0.3, as torch-pruning does it. Beside both,
one pass over that data without gradients. Seconds are of the processor (all threads), wall-clock beside them. A row in
benchmarks/results/shrink_networks.json is replaced when it is run again.

    python benchmarks/shrink_networks.py                    # half an hour on one core
    python benchmarks/shrink_networks.py resnet34
    python benchmarks/shrink_networks.py --quick --out /tmp/try.json      # tiny networks, for a try
"""

from __future__ import annotations

import argparse
import copy
import json
import platform
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

import thresher

RESULTS = Path(__file__).parent / "results" / "shrink_networks.json"
METHODS = ("ispasp", "taylor")
NAMES = ("resnet34", "mobilenetv2", "bert-base shape")
Row = dict[str, Any]


def timed(run: Callable[[], Any]) -> tuple[Row, Any]:
    """Processor seconds and wall-clock seconds of one call."""
    wall, work = time.perf_counter(), time.process_time()
    result = run()
    return {
        "cpu_seconds": round(time.process_time() - work, 3),
        "seconds": round(time.perf_counter() - wall, 3),
    }, result


def network(name: str, quick: bool) -> tuple[nn.Module, Callable[[int], Any]]:
    """A model with random weights and a maker of batches."""
    import transformers as hf

    torch.manual_seed(0)
    pixels, tokens = (32, 16) if quick else (224, 128)
    if name == "bert-base shape":
        shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
        bert = hf.BertForSequenceClassification(hf.BertConfig(**shape) if quick else hf.BertConfig())
        return bert.eval(), lambda count: {"input_ids": torch.randint(0, 30000, (count, tokens))}
    if name == "resnet34":
        sizes, depths = ([8, 16], [1, 1]) if quick else ([64, 128, 256, 512], [3, 4, 6, 3])
        shape = {"embedding_size": sizes[0], "hidden_sizes": sizes, "depths": depths, "layer_type": "basic"}
        model = hf.ResNetForImageClassification(hf.ResNetConfig(**shape))
    else:
        config = hf.MobileNetV2Config(image_size=pixels, depth_multiplier=0.1 if quick else 1.0)
        model = hf.MobileNetV2ForImageClassification(config)
    return model.eval(), lambda count: torch.randn(count, 3, pixels, pixels)


def logits(model: nn.Module, batch: Any) -> Tensor:
    """What the network says of a batch."""
    return (model(**batch) if isinstance(batch, dict) else model(batch)).logits  # type: ignore[no-any-return]


def forward(model: nn.Module, batches: list[Any]) -> None:
    """One pass over the data."""
    with torch.no_grad():
        for batch in batches:
            logits(model, batch)


def taylor(model: nn.Module, batches: list[Any]) -> None:
    """Torch-pruning's Taylor pruner as it is, on `model` itself. Of an encoder it cuts heads and FFN."""
    import torch_pruning as tp

    for batch in batches:
        found = logits(model, batch)
        nn.functional.cross_entropy(found, found.argmax(1)).backward()
    attention = [module for module in model.modules() if hasattr(module, "num_attention_heads")]
    heads = {
        layer: module.num_attention_heads for module in attention for layer in (module.query, module.key, module.value)
    }
    linear = [module for module in model.modules() if isinstance(module, nn.Linear)]
    streams = [each for each in linear if attention and each not in heads and each.out_features < each.in_features]
    tables = [module for module in model.modules() if isinstance(module, nn.Embedding)]
    small = {key: value[:2] for key, value in batches[0].items()} if attention else batches[0][:2]
    pruner = tp.pruner.BasePruner(
        model,
        small,
        importance=tp.importance.TaylorImportance(),
        pruning_ratio=0.3,  # about half of the multiply-adds where inputs and outputs both shrink
        ignored_layers=[linear[-1], *streams, *tables],
        num_heads=heads,
        prune_num_heads=bool(heads),
        head_pruning_ratio=0.3,
        output_transform=lambda output: output.logits,
    )
    pruner.step()


def rows_of(name: str, methods: Sequence[str], quick: bool, count: int) -> Iterator[Row]:
    """The methods on one network."""
    model, make = network(name, quick)
    batches = [make(4 if quick else 64) for _ in range(count)]
    forward(model, batches[:1])
    common = {"network": name, "batches": count, "threads": torch.get_num_threads(), "torch": torch.__version__}
    one_pass, _ = timed(lambda: forward(model, batches))
    budget = "flops=90%" if quick else "flops=50%"
    if "ispasp" in methods:
        spent, found = timed(lambda: thresher.shrink_plan(model, "ispasp", budget, calibration=batches))
        report = found.report
        cut = {"groups": len(found.plan.groups), "macs_share": report.macs / report.total_macs}
        yield {**common, "method": "ispasp", **spent, "one_pass": one_pass, **cut}
        del found, report
    if "taylor" in methods:
        twin = copy.deepcopy(model)
        spent, _ = timed(lambda: taylor(twin, batches))
        yield {**common, "method": "taylor", **spent, "one_pass": one_pass}


def main() -> None:
    """Run the networks asked for and write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", default=NAMES, metavar="NETWORK")
    parser.add_argument("--methods", nargs="+", choices=METHODS, default=METHODS)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--batches", type=int, default=5)
    parser.add_argument("--out", type=Path, default=RESULTS)
    args = parser.parse_args()
    # Gradients of random weights become subnormal numbers, which cost a processor twenty times as much.
    torch.set_flush_denormal(True)
    # Imports and first calls are no part of what is measured.
    warm = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    thresher.shrink(warm, "ispasp", "flops=50%", calibration=[torch.randn(8, 4)])
    record = json.loads(args.out.read_text()) if args.out.exists() else {"rows": []}
    record |= {"version": 1, "quick": args.quick, "machine": platform.machine()}
    for name in args.names:
        for row in rows_of(name, args.methods, args.quick, args.batches):
            same = ("network", "method")
            record["rows"] = [old for old in record["rows"] if any(old[key] != row[key] for key in same)] + [row]
            print(json.dumps(row), flush=True)
            args.out.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
