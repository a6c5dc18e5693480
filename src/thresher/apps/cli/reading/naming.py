"""Names of run folders that nobody chose."""

from __future__ import annotations

import itertools
import time
from pathlib import Path

from thresher.apps.train.asking.config import TrainConfig


def new_folder(kind: str, asked: TrainConfig) -> Path:
    """runs/COMMAND-NETWORK-METHOD-TIME."""
    parts = [kind, asked.model or Path(str(asked.weights)).stem, (asked.method or "").split(":")[0]]
    name = "-".join(filter(None, parts)).replace("/", "-").replace(":", "-")
    return unused(Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}")


def unused(path: Path) -> Path:
    """`path`, or the first of path-2, path-3, ... that is not there yet."""
    numbered = (path.with_name(f"{path.name}-{number}") for number in itertools.count(2))
    return path if not path.exists() else next(name for name in numbered if not name.exists())
