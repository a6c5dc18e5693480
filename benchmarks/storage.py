"""How large a ResNet-50 with 90 % zeros is: thresher.save against torch.save, gzip and zstd.

    python benchmarks/storage.py           # writes benchmarks/results/storage.json, in about a minute

Random weights, magnitude masks: free-form zeros over the whole network, zeros in blocks of 4 x 1, and 2:4. What a
general compressor makes of the plain file depends little on the values, since float32 weights do not compress. zstd is
measured where the library `zstandard` is installed.
"""

from __future__ import annotations

import argparse
import gzip
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import transformers

import thresher

RESULTS = Path(__file__).parent / "results" / "storage.json"
PATTERNS = {
    "90 % zeros, free form": ("weight", "sparsity=90%", ()),
    "90 % zeros, blocks of 4x1": ("block:4x1", "sparsity=90%", ()),
    "2:4, but for the first layer": ("2:4", "sparsity=50%", ("exclude:resnet.embedder.embedder.convolution",)),
}


def network(stage_widths: tuple[int, ...]) -> torch.nn.Module:
    """A ResNet-50 from its configuration, with random weights."""
    torch.manual_seed(0)
    config = transformers.ResNetConfig(hidden_sizes=list(stage_widths), num_labels=1000)
    return transformers.AutoModelForImageClassification.from_config(config).eval()


def zstd_size(data: bytes) -> int | None:
    """Bytes that zstd at level 12 makes of `data`; None without the library."""
    try:
        import zstandard
    except ModuleNotFoundError:
        return None
    return len(zstandard.ZstdCompressor(level=12, threads=1).compress(data))


def sizes(model: torch.nn.Module, folder: Path) -> dict[str, Any]:
    """Bytes of one model in every form; what thresher writes is read back and compared."""
    state = {name: tensor.contiguous() for name, tensor in model.state_dict().items()}
    start = time.perf_counter()
    ours = thresher.save(model, folder / "ours")
    saved = time.perf_counter() - start
    start = time.perf_counter()
    loaded, _ = thresher.load_state(folder / "ours")
    read = time.perf_counter() - start
    assert all(torch.equal(loaded[name], tensor) for name, tensor in state.items())
    torch.save(state, folder / "torch")
    safetensors.torch.save_file(state, folder / "plain")
    plain = (folder / "plain").read_bytes()
    return {
        "thresher float32": ours.bytes,
        "thresher bfloat16": thresher.save(model, folder / "half", dtype=torch.bfloat16).bytes,
        "torch.save": (folder / "torch").stat().st_size,
        "safetensors": len(plain),
        "safetensors, gzip -6": len(gzip.compress(plain, 6)),
        "safetensors, zstd -12": zstd_size(plain),
        "save_seconds": round(saved, 2),
        "load_seconds": round(read, 2),
    }


def main() -> None:
    """Measure and write."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--tiny", action="store_true", help="a small network, to try the script")
    parser.add_argument("--out", type=Path, default=RESULTS)
    asked = parser.parse_args()
    torch.set_num_threads(1)
    widths = (16, 32, 64, 128) if asked.tiny else (256, 512, 1024, 2048)
    rows = []
    for name, (groups, budget, rules) in PATTERNS.items():
        model = network(widths)
        report = thresher.prune(model, None, "magnitude", budget, groups=groups, rules=rules).finish()
        with tempfile.TemporaryDirectory() as folder:
            measured = sizes(model, Path(folder))
        parameters = sum(parameter.numel() for parameter in model.parameters())
        rows.append({"pattern": name, "parameters": parameters, "sparsity": report.sparsity, **measured})
        print(rows[-1], flush=True)
    asked.out.write_text(json.dumps({"network": "ResNet-50", "widths": widths, "rows": rows}, indent=1) + "\n")


if __name__ == "__main__":
    main()
