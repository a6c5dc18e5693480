"""What a trail of 20 networks costs on disk, in dense files of the same network: ResNet-20 on CIFAR-10 to 95 % zeros.

    python benchmarks/trail_cost.py            # one epoch; writes benchmarks/results/trail_cost.json

The run is `thresher prune --trail 20`, as a user would start it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from pathlib import Path

from thresher.trail import Trail

RESULTS = Path(__file__).parent / "results" / "trail_cost.json"


def main() -> None:
    """Prune with a trail in a scratch folder, add up its files."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=1)
    parser.add_argument("--method", default="power")
    parser.add_argument("--points", type=int, default=20)
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = f"prune --model resnet20 --weights cifar10 --data cifar10 --method {args.method} --budget sparsity=95%"
        more = f"--epochs {args.epochs} --trail {args.points} --out {run}"
        code = "from thresher.apps.cli import main; main()"
        subprocess.run([sys.executable, "-c", code, *words.split(), *more.split()], check=True)
        points = Trail(run / "trail").points
        files = sum(path.stat().st_size for path in (run / "trail").rglob("*") if path.is_file())
    dense = points[0].dense_bytes
    row = {
        "method": args.method,
        "epochs": args.epochs,
        "points": len(points),
        "sparsities": [round(point.sparsity, 4) for point in points],
        "bytes": files,
        "dense_bytes": dense,
        "dense_files": round(files / dense, 3),
    }
    RESULTS.write_text(json.dumps(row, indent=1) + "\n")
    print(json.dumps(row))


if __name__ == "__main__":
    main()
