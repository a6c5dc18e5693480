"""A run folder as data: whatever of it can be read, and a note on whatever cannot."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from thresher.errors import InputError
from thresher.plots.formats import number
from thresher.plots.points import BINS, Stops, stops_of
from thresher.plots.trace import Trace, trace_of

Record = Mapping[str, Any]
ONLY_PRUNED = ("trace.json", "report.json", "histograms.json")

FILES = {
    "config.json": "the settings of the run",
    "metrics.jsonl": "loss, accuracy and sparsity over time",
    "trace.json": "thresholds over time",
    "report.json": "zeros, multiply-adds and bytes per layer",
    "result.json": "accuracy before and after, bytes, seconds",
}
# Read where they are there; a run need not have them.
OPTIONAL = {
    "histograms.json": "sizes of the weights before and after",
    "sensitivity.json": "how far each layer can be pruned alone",
    "shrink.json": "what was cut, its errors and their bounds",
    "plan.json": "which units stay",
    "bench.json": "milliseconds, dense and sparse",
}
_ABSENT = tuple(f"{name} is not there" for name in FILES)
_ABOUT = FILES | OPTIONAL


@dataclass(frozen=True, kw_only=True)
class Run:
    """What a folder held. `steps`, `epochs`: the lines of metrics.jsonl by kind. `missing`: what could not be read.

    `path`: as it was given. `more`: the OPTIONAL files that are there. `trail`: the networks kept on the way.

    Nothing is checked beyond "a JSON object": readers of single values go through `formats.number` and `text`.
    """

    name: str
    config: Record
    steps: tuple[Record, ...]
    epochs: tuple[Record, ...]
    trace: Trace | None
    report: Record
    result: Record
    missing: tuple[str, ...]
    path: str = ""
    more: Mapping[str, Record] = field(default_factory=dict)
    trail: Stops | None = None

    @property
    def shrink(self) -> Record:
        """The report of a structured run, {} when there is none."""
        return self.more.get("shrink.json") or (self.report if isinstance(self.report.get("groups"), list) else {})

    @property
    def pruned(self) -> bool:
        """Whether the run prunes at all: plain training names its method as null."""
        return self.config.get("method", "unknown") is not None

    @property
    def method(self) -> str:
        """The method's name, as the settings or the report give it."""
        chosen = self.config.get("method")
        if isinstance(chosen, Mapping):
            chosen = chosen.get("name") or chosen.get("kind")
        # The settings tell presets and modes apart; the report has the bare name.
        named = (chosen, self.report.get("method"), self.result.get("method"), self.shrink.get("method"))
        if run_of_bench(self):
            return "bench"
        found = next((method[:60] for method in named if isinstance(method, str) and method), None)
        return found or ("unknown" if self.pruned else "dense training")


def run_of_bench(run: Run) -> bool:
    """Whether the folder holds timings and no run besides."""
    return "bench.json" in run.more and not (run.result or run.report or run.shrink)


def read_run(folder: Path, name: str | None = None, networks: int = 40) -> Run:
    """Everything readable in `folder`, of its trail at most `networks`; missing, truncated or alien files become notes.

    Errors: InputError when `folder` is no folder.
    """
    if not folder.is_dir():
        raise InputError(f"run {str(folder)!r}", "a run folder", "pass a folder that a thresher command wrote")
    missing: list[str] = []
    objects = {file: _object(folder / file, missing) for file in FILES if file.endswith(".json")}
    rows = _lines(folder / "metrics.jsonl", missing)
    more = {
        file: found for file in OPTIONAL if (folder / file).is_file() and (found := _object(folder / file, missing))
    }
    if (more.keys() & {"shrink.json", "plan.json", "bench.json"}) or isinstance(
        objects["report.json"].get("groups"), list
    ):
        # Such runs train nothing, or little: they lack these files by nature.
        missing = [note for note in missing if not note.startswith(_ABSENT)]
    trail = stops_of(folder, _reach(more.get("histograms.json", {})), networks)
    missing += [] if trail is None else list(trail.notes)
    if objects["config.json"].get("method", "unknown") is None:
        missing = [note for note in missing if not note.startswith(ONLY_PRUNED)]
    return Run(
        name=name or folder.resolve().name,
        config=objects["config.json"],
        steps=tuple(row for row in rows if row.get("kind") == "step"),
        epochs=tuple(row for row in rows if row.get("kind") == "epoch"),
        trace=trace_of(objects["trace.json"]),
        report=objects["report.json"],
        result=objects["result.json"],
        missing=tuple(missing),
        path=str(folder),
        more=more,
        trail=trail if trail is not None and trail.stops else None,
    )


def _reach(record: Record) -> dict[str, float]:
    rows = record.get("layers")
    found = {}
    for row in rows if isinstance(rows, list) and record.get("bins") == BINS else ():
        if isinstance(row, dict) and isinstance(row.get("name"), str) and (end := number(row.get("reach"))):
            found[row["name"]] = end
    return found


def _object(path: Path, missing: list[str]) -> Record:
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        missing.append(f"{path.name} is not there ({_ABOUT[path.name]})")
        return {}
    except (OSError, ValueError, RecursionError):
        missing.append(f"{path.name} cannot be read, or is only half written ({_ABOUT[path.name]})")
        return {}
    if not isinstance(value, dict):
        missing.append(f"{path.name} holds no JSON object ({_ABOUT[path.name]})")
        return {}
    return value


def _lines(path: Path, missing: list[str]) -> list[Record]:
    rows: list[Record] = []
    broken = 0
    try:
        with open(path, encoding="utf-8", errors="replace") as stream:
            for line in stream:
                if not line.strip():
                    continue
                try:
                    row = json.loads(line)
                except (ValueError, RecursionError):
                    row = None
                if isinstance(row, dict):
                    rows.append(row)
                else:
                    broken += 1
    except FileNotFoundError:
        missing.append(f"{path.name} is not there ({_ABOUT[path.name]})")
    except OSError:
        missing.append(f"{path.name} cannot be read ({_ABOUT[path.name]})")
    if broken:
        missing.append(f"{path.name}: {broken} of {broken + len(rows)} lines half written or unreadable, left out")
    return rows
