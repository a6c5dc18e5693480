"""metrics.jsonl: one JSON object per line, flushed at once, cut back to the checkpoint when a run resumes."""

from __future__ import annotations

import json
from pathlib import Path
from types import TracebackType
from typing import Any

from thresher.budget.report import write_text


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """The records of the file; a line that was cut short when the run was killed is left out.

    >>> read_metrics(Path("nowhere"))
    []
    """
    if not path.is_file():
        return []
    records = []
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict):
            records.append(record)
    return records


class Metrics:
    """Adds records to a file. `until`: the last step whose records stay; None keeps nothing (a new run)."""

    def __init__(self, path: Path, *, until: int | None = None) -> None:
        kept = [] if until is None else [record for record in read_metrics(path) if record.get("step", 0) <= until]
        write_text(path, "".join(_line(record) for record in kept))
        self._stream = path.open("a", encoding="utf-8")

    def add(self, record: dict[str, Any]) -> None:
        """Write one record and flush it."""
        self._stream.write(_line(record))
        self._stream.flush()

    def __enter__(self) -> Metrics:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stream.close()


def _line(record: dict[str, Any]) -> str:
    return json.dumps(record) + "\n"
