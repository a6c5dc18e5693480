"""How fast the sparse engine is against the best dense float32 engine that is installed, in turn in one process.

    python benchmarks/engine.py                       # the whole table: benchmarks/results/engine.json
    python benchmarks/engine.py --models resnet20 --batches 1 --threads 1 --rounds 3    # other rows stay in the file
    python benchmarks/engine.py --part decoding       # token by token: see decoding.py

Weights are Gaussian with a scale a channel (lognormal, sigma 0.25); the smallest of each layer are zero, layer by
layer, in all convolutions and linear layers but the first and the depthwise ones. `block` zeroes four neighbouring
output channels at once. No accuracy is measured. All engines run the same masked network; dense ones do not gain from
zeros. A round times every engine once, in turning order; medians over rounds, and the smallest and largest of the
rounds' own ratios. With one thread the clock is the processor time of the process, with more it is wall time. Beside
them: what roofline.py says the loads and multiply-adds of the network take at least, and what compiling cost.
"""

from __future__ import annotations

import argparse
import gc
import json
import platform
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from statistics import median
from typing import Any

import torch
from roofline import least_seconds, rates
from torch import Tensor, nn

import thresher
from thresher.deploy.engine.rivals import rivals

RESULTS = Path(__file__).parent / "results" / "engine.json"
ENGINES = ("torch", "onnxruntime", "openvino")


def resnet20() -> tuple[nn.Module, tuple[int, ...]]:
    from thresher.apps.models import build_model

    return build_model("resnet20", num_classes=10, input_shape=(3, 32, 32)), (3, 32, 32)


def resnet50() -> tuple[nn.Module, tuple[int, ...]]:
    from transformers import ResNetConfig, ResNetForImageClassification

    return ResNetForImageClassification(ResNetConfig(num_labels=1000)), (3, 224, 224)


def mobilenet() -> tuple[nn.Module, tuple[int, ...]]:
    from transformers import MobileNetV1Config, MobileNetV1ForImageClassification

    return MobileNetV1ForImageClassification(MobileNetV1Config(num_labels=1000)), (3, 224, 224)


def ffn() -> tuple[nn.Module, tuple[int, ...]]:
    return nn.Sequential(nn.Linear(768, 3072), nn.GELU(), nn.Linear(3072, 768)), (128, 768)


MODELS: dict[str, Callable[[], tuple[nn.Module, tuple[int, ...]]]] = {
    "resnet20": resnet20,
    "resnet50": resnet50,
    "mobilenet_v1": mobilenet,
    "bert_ffn": ffn,
}


def prune(model: nn.Module, sparsity: float, pattern: str, keep_first: bool) -> None:
    """Random weights with the zeros of magnitude pruning, layer by layer."""
    generator = torch.Generator().manual_seed(0)
    layers = [layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear))]
    for layer in layers[keep_first:]:
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            continue
        weight = layer.weight.data
        scale = torch.exp(0.25 * torch.randn(weight.shape[0], generator=generator))
        fan = weight[0].numel() * (1 - sparsity) + 1e-9
        drawn = torch.randn(weight.shape, generator=generator).flatten(1) * scale[:, None] / fan**0.5
        score = drawn.abs()
        if pattern == "block" and len(score) % 4 == 0:
            score = score.reshape(len(score) // 4, 4, -1).sum(1).repeat_interleave(4, 0)
        zeros = int(score.numel() * sparsity)
        keep = torch.ones(score.numel(), dtype=torch.bool)
        keep[score.flatten().argsort(stable=True)[:zeros]] = False
        weight.copy_((drawn * keep.reshape(drawn.shape)).reshape(weight.shape))
    for layer in model.modules():
        if isinstance(layer, nn.BatchNorm2d):
            layer.running_mean.normal_(0, 0.1, generator=generator)  # type: ignore[union-attr]
            layer.running_var.uniform_(0.5, 1.5, generator=generator)  # type: ignore[union-attr]


def nonzeros(model: nn.Module) -> int:
    layers = (layer for layer in model.modules() if isinstance(layer, (nn.Conv2d, nn.Linear)))
    return sum(int((layer.weight != 0).sum()) for layer in layers)


def first_tensor(result: Any) -> Tensor:
    if isinstance(result, Tensor):
        return result
    return first_tensor(next(iter(result.values())) if hasattr(result, "values") else result[0])


def measure(
    name: str, batch: int, threads: int, sparsity: float, pattern: str, rounds: int, seconds: float
) -> dict[str, Any]:
    """One row of the table."""
    torch.set_num_threads(threads)
    torch.manual_seed(0)
    model, shape = MODELS[name]()
    model.eval()
    prune(model, sparsity, pattern, keep_first=name != "bert_ffn")
    x = torch.randn(batch, *shape)
    if x.ndim == 4:
        model = model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        x = x.to(memory_format=torch.channels_last)
    fast = thresher.compile(model, x, threads=threads, engines=("thresher",))
    found, left_out = rivals(model, None, x, threads, list(ENGINES))
    calls: dict[str, Callable[[], Any]] = {"thresher": lambda: fast(x), **{n: r.call for n, r in found.items()}}
    with torch.inference_mode():
        right = first_tensor(model(x))
        errors = {n: float((first_tensor(c()) - right).abs().max() / right.abs().max()) for n, c in calls.items()}
        times = in_turn(calls, rounds, seconds, time.process_time if threads == 1 else time.perf_counter)
    middle = {n: median(t) for n, t in times.items()}
    dense = min((n for n in middle if n != "thresher"), key=lambda n: middle[n])
    ratios = [d / s for d, s in zip(times[dense], times["thresher"], strict=True)]
    report = fast.report()
    rate = rates(threads)
    least = least_seconds(model, x, pattern == "block", rate)
    return {
        "model": name, "batch": batch, "threads": threads, "sparsity": sparsity, "pattern": pattern,
        "milliseconds": {n: round(1e3 * t, 4) for n, t in middle.items()},
        "spread": {n: [round(1e3 * min(t), 4), round(1e3 * max(t), 4)] for n, t in times.items()},
        "best_dense": dense,
        "speedup": round(median(ratios), 3),
        "speedup_low": round(min(ratios), 3), "speedup_high": round(max(ratios), 3),
        "speedup_over_torch": round(middle["torch"] / middle["thresher"], 3),
        "errors": errors, "left_out": left_out, "mode": report.mode, "isa": report.isa,
        "compile_seconds": round(report.compile_seconds, 2), "packed_bytes": report.packed_bytes,
        "arena_bytes": report.arena_bytes, "nonzeros": nonzeros(model),
        "roofline_rates": rate, "roofline_milliseconds": round(1e3 * least, 4),
    }  # fmt: skip


def in_turn(
    calls: dict[str, Callable[[], Any]], rounds: int, seconds: float, clock: Callable[[], float]
) -> dict[str, list[float]]:
    """Seconds a call, for each engine and round."""
    counts = {}
    for name, call in calls.items():
        call()
        start = time.perf_counter()
        call()
        counts[name] = max(1, int(seconds / max(time.perf_counter() - start, 1e-6)))
    times: dict[str, list[float]] = {name: [] for name in calls}
    gc.collect()
    gc.disable()
    for turn in range(rounds):
        for name in list(calls) if turn % 2 == 0 else list(calls)[::-1]:
            calls[name]()  # caches and pools of its own
            start = clock()
            for _ in range(counts[name]):
                calls[name]()
            times[name].append((clock() - start) / counts[name])
    gc.enable()
    return times


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def write(path: Path, **parts: list[dict[str, Any]]) -> None:
    """Replaces some parts of the results, with the machine that measured them."""
    machine = {"processor": processor(), "torch": torch.__version__, "python": platform.python_version()}
    path.parent.mkdir(exist_ok=True)
    found = json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
    path.write_text(json.dumps({**found, "machine": machine, **parts}, indent=1) + "\n", encoding="utf-8")


def replaced(path: Path, part: str, row: dict[str, Any], same: Sequence[str]) -> list[dict[str, Any]]:
    """The rows of a part with `row` in place of the one that was measured with the same settings before."""
    rows = json.loads(path.read_text(encoding="utf-8")).get(part, []) if path.exists() else []
    return [old for old in rows if any(old[name] != row[name] for name in same)] + [row]


def decode(options: argparse.Namespace) -> None:
    """Rows of decoding.py, each in place of the one that was measured with the same settings before."""
    from decoding import measure as one
    from decoding import with_large_pages

    with_large_pages()
    for threads in options.threads:
        for precision in options.precisions:
            for zeros in options.zeros:
                row = {"asked": zeros, **one(zeros, precision, threads, options.rounds, options.blocks)}
                same = ("asked", "precision", "threads", "blocks")
                rows = replaced(options.out, "decoding", row, same)
                rows.sort(key=lambda row: [row[name] for name in same[1:] + same[:1]])
                write(options.out, decoding=rows)
                print({name: row[name] for name in ("speedup", "milliseconds", "gigabytes_a_second", "errors")})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=list(MODELS), choices=list(MODELS))
    parser.add_argument("--batches", nargs="+", type=int, default=[1, 16])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--patterns", nargs="+", default=["free", "block"], choices=["free", "block"])
    parser.add_argument("--sparsity", type=float, default=0.9)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=0.3, help="of each engine in each round")
    parser.add_argument("--out", type=Path, default=RESULTS)
    parser.add_argument("--part", default="models", choices=["models", "decoding"])
    parser.add_argument("--precisions", nargs="+", default=["bfloat16", "float32"], choices=["bfloat16", "float32"])
    parser.add_argument("--zeros", nargs="+", type=float, default=[0.5, 0.8])
    parser.add_argument("--blocks", type=int, default=22, help="of the decoder")
    options = parser.parse_args()
    if options.part == "decoding":
        decode(options)
        return
    same = ("model", "batch", "threads", "sparsity", "pattern")
    for name in options.models:
        for batch in options.batches:
            for threads in options.threads:
                for pattern in options.patterns:
                    how = (options.sparsity, pattern, options.rounds, options.seconds)
                    row = measure(name, batch, threads, *how)
                    rows = replaced(options.out, "rows", row, same)
                    rows.sort(
                        key=lambda row: (
                            row["threads"],
                            row["batch"],
                            list(MODELS).index(row["model"]),
                            row["pattern"] != "free",
                        )
                    )
                    print(
                        f"{name:13s} batch {batch:2d} threads {threads} {pattern:5s} {row['speedup']:5.2f}x "
                        f"({row['speedup_low']:.2f} to {row['speedup_high']:.2f}) against {row['best_dense']}, "
                        f"{row['speedup_over_torch']:.1f}x torch; {row['milliseconds']}"
                    )
                    write(options.out, rows=rows)


if __name__ == "__main__":
    main()
