"""TensorBoard logs beside metrics.jsonl, where TensorBoard is installed; nothing where it is not."""

from __future__ import annotations

from pathlib import Path
from typing import Any


class Board:
    """Mirrors metric records as scalars under `folder`/tensorboard; does nothing when the library is absent."""

    def __init__(self, folder: Path, *, purge_step: int | None = None) -> None:
        self._writer: Any = None
        try:
            from torch.utils.tensorboard import SummaryWriter
        except ImportError:
            return
        self._writer = SummaryWriter(str(folder / "tensorboard"), purge_step=purge_step)

    def add(self, record: dict[str, Any]) -> None:
        """Log every number of the record at its step."""
        if self._writer is None:
            return
        for key, value in record.items():
            if key not in ("kind", "step", "epoch") and isinstance(value, (int, float)):
                self._writer.add_scalar(f"{record['kind']}/{key}", value, record["step"])

    def close(self) -> None:
        """Write what is left."""
        if self._writer is not None:
            self._writer.close()
