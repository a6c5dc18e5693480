"""Decoding token by token: the linear layers of a Llama, one token at a time, against the best dense engine.

    python benchmarks/engine.py --part decoding --precisions bfloat16 --zeros 0.5 0.8

Query, output, gate, up and down projections of `transformers`' LlamaConfig in the shape of TinyLlama-1.1B (hidden
2048, inner 5632, 22 blocks), with the residual sums and the gated activation between them, without attention and
norms; 0.95 billion weights, so that sparse ones, too, are larger than any cache here. Weights are Gaussian, zero
where the magnitude is least. bfloat16: the sparse engine takes float32 activations and weights rounded to bfloat16;
torch and OpenVINO compute in bfloat16 altogether. float32: everything in float32. A round times each engine once, in
turn; medians over the rounds, and the smallest and largest of the rounds' own ratios. Rates count the bytes of the
stored weights. Weights of all engines lie on large pages. `read` is the rate at which torch.sum reads one GiB of
float32 numbers in the same rounds: what a program that hardly does more than read reaches.
"""

from __future__ import annotations

import copy
import gc
import math
import os
import sys
import time
from collections.abc import Callable
from statistics import median
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

import thresher

# Large pages for the others, too: the engine's own weights have them.
LARGE_PAGES = {"THP_MEM_ALLOC_ENABLE": "1", "GLIBC_TUNABLES": "glibc.malloc.hugetlb=1"}


def with_large_pages() -> None:
    """Starts this script anew where the settings above are not there yet; they count from the start of a process."""
    if any(os.environ.get(name) != value for name, value in LARGE_PAGES.items()):
        os.execve(sys.executable, [sys.executable, *sys.argv], {**os.environ, **LARGE_PAGES})


class Block(nn.Module):
    """The projections of one decoder block that read the hidden state or write it."""

    def __init__(self, config: Any) -> None:
        super().__init__()
        hidden, inner = config.hidden_size, config.intermediate_size
        self.q_proj = nn.Linear(hidden, hidden, bias=False)
        self.o_proj = nn.Linear(hidden, hidden, bias=False)
        self.gate_proj = nn.Linear(hidden, inner, bias=False)
        self.up_proj = nn.Linear(hidden, inner, bias=False)
        self.down_proj = nn.Linear(inner, hidden, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.o_proj(self.q_proj(x))
        return x + self.down_proj(F.silu(self.gate_proj(x)) * self.up_proj(x))


def stack(zeros: float, blocks: int) -> nn.Module:
    """Blocks of equal weights (each in memory of its own), `zeros` of each matrix zero by magnitude."""
    from transformers import LlamaConfig

    config = LlamaConfig(hidden_size=2048, intermediate_size=5632, num_attention_heads=32, num_key_value_heads=4)
    generator = torch.Generator().manual_seed(0)
    with torch.device("meta"):
        first = Block(config)
    first.to_empty(device="cpu")
    edge = math.sqrt(2) * float(torch.erfinv(torch.tensor(zeros)))  # of a Gaussian's magnitude
    for layer in first.children():
        weight = torch.randn(layer.weight.shape, generator=generator)  # type: ignore[operator, arg-type]
        weight[weight.abs() < edge] = 0
        layer.weight.data = 0.2 * weight / weight.square().sum(1).mean().sqrt()  # what flows stays of size 1
    return nn.Sequential(first, *(copy.deepcopy(first) for _ in range(blocks - 1))).eval()


def openvino(model: nn.Module, x: Tensor, threads: int, precision: str) -> Callable[[], Tensor]:
    import openvino as ov

    with torch.no_grad():
        graph = ov.convert_model(model, example_input=x, input=[tuple(x.shape)])  # of a shape that is known
    hint = {"float32": "f32", "bfloat16": "bf16"}[precision]
    settings = {"INFERENCE_PRECISION_HINT": hint, "INFERENCE_NUM_THREADS": threads, "NUM_STREAMS": 1}
    request = ov.Core().compile_model(graph, "CPU", settings).create_infer_request()
    data = x.numpy()
    return lambda: torch.from_numpy(next(iter(request.infer([data]).values())).copy())


def measure(zeros: float, precision: str, threads: int, rounds: int, blocks: int) -> dict[str, Any]:
    """One row."""
    torch.set_num_threads(threads)
    dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[precision]
    model = stack(zeros, blocks)
    weights = [p for p in model.parameters()]
    count = sum(w.numel() for w in weights)
    actual = 1 - sum(int((w != 0).sum()) for w in weights) / count
    # Without a dimension of tokens: with it OpenVINO 2026.4 divides by zero when it compiles this network in bfloat16.
    x = torch.randn(1, 2048, generator=torch.Generator().manual_seed(1))
    clock = time.process_time if threads == 1 else time.perf_counter
    for weight in weights:
        weight.data = weight.data.to(dtype).float()
    fast = thresher.compile(model, x, threads=threads, engines=("thresher",), limit=20.0)
    calls: dict[str, Callable[[], Tensor]] = {"thresher": lambda: fast(x)}
    left_out: list[str] = []
    with torch.inference_mode():
        right = model(x)
    try:
        calls["openvino"] = openvino(model, x, threads, precision)
    except ImportError as error:
        left_out.append(f"openvino: {error}")
    model.to(dtype)
    gc.collect()
    given = x.to(dtype)
    calls["torch"] = lambda: model(given)
    numbers = torch.ones(2**28)
    calls["read"] = lambda: numbers.sum()
    times: dict[str, list[float]] = {name: [] for name in calls}
    with torch.inference_mode():
        errors = {
            name: float((call().float() - right).abs().max() / right.abs().max())
            for name, call in calls.items()
            if name != "read"
        }
        for turn in range(rounds + 1):
            for name in list(calls) if turn % 2 == 0 else list(calls)[::-1]:
                start = clock()
                calls[name]()
                if turn:  # the first warms up
                    times[name].append(clock() - start)
    middle = {name: median(t) for name, t in times.items()}
    dense = min((name for name in middle if name not in ("thresher", "read")), key=lambda name: middle[name])
    ratios = [d / s for d, s in zip(times[dense], times["thresher"], strict=True)]
    report = fast.report()
    stored = {name: count * dtype.itemsize for name in ("torch", "openvino") if name in calls}
    stored |= {"thresher": report.packed_bytes, "read": 2**30}
    return {
        "zeros": round(actual, 4), "precision": precision, "threads": threads, "blocks": blocks, "weights": count,
        "milliseconds": {name: round(1e3 * t, 3) for name, t in middle.items()},
        "spread": {name: [round(1e3 * min(t), 3), round(1e3 * max(t), 3)] for name, t in times.items()},
        "gigabytes_a_second": {name: round(stored[name] / middle[name] / 1e9, 2) for name in middle},
        "bytes": stored,
        "best_dense": dense,
        "speedup": round(median(ratios), 3), "speedup_low": round(min(ratios), 3),
        "speedup_high": round(max(ratios), 3),
        "errors": errors, "left_out": left_out, "isa": report.isa, "rounds": rounds,
        "kernels": sorted({layer.runs for layer in report.layers if layer.zeros is not None}),
        "compile_seconds": round(report.compile_seconds, 2),
    }  # fmt: skip
