"""One folder per run: created once, written piece by piece, readable when half of it is there."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from thresher.apps.runs.metrics import Metrics, read_metrics
from thresher.budget.report import Report, write_text
from thresher.budget.rich_text import html_table
from thresher.errors import InputError

VERSION = 1
FILES = {
    "config.json": "what was asked: settings, seed, command and library versions",
    "metrics.jsonl": "what happened: one JSON object per line, steps and epochs",
    "trace.json": "thresholds over time",
    "report.json": "zeros, multiply-adds and bytes, per layer and in total",
    "plan.json": "what `thresher shrink` cut, layer by layer",
    "shrink.json": "widths, errors and costs of a shrunk network, per layer and in total",
    "histograms.json": "sizes of the weights before and after, per tensor",
    "result.json": "the outcome in a few numbers",
    "model.safetensors": "the network",
    "checkpoint.pt": "where an interrupted run goes on",
}
_ONLY_PRUNED = ("trace.json", "report.json", "histograms.json")
_ONLY_SHRUNK = ("plan.json", "shrink.json")
_NEVER_SHRUNK = (*_ONLY_PRUNED, "checkpoint.pt")


@dataclass(frozen=True)
class Run:
    """A run folder. `path`: where it is.

    Every file appears whole or not at all, but for metrics.jsonl, whose last line may be cut short.
    """

    path: Path

    @classmethod
    def create(cls, path: Path | str, *, resume: bool = False) -> Run:
        """A new folder, or with `resume` one that a run has begun (or a new one, when there is none).

        Errors: InputError for a folder that holds something already, or cannot be made.
        """
        run = cls(Path(path))
        held = run.present() or (sorted(entry.name for entry in run.path.iterdir()) if run.path.is_dir() else [])
        if held and not resume:
            raise InputError(
                f"the run folder {str(path)!r}, which holds {', '.join(held[:4])}",
                "a new or empty folder",
                "choose another --out, or go on with that run by --resume",
            )
        if held and "config.json" not in held:
            raise InputError(
                f"the folder {str(path)!r} without config.json", "a folder that a run has begun", "correct the path"
            )
        try:
            run.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"the run folder {str(path)!r} ({error.strerror})", "a folder that can be made", "choose another"
            ) from error
        return run

    @classmethod
    def open(cls, path: Path | str) -> Run:
        """The run in `path`, finished or not; `missing()` says what it lacks.

        Errors: InputError for a path that is no folder, or a folder without config.json.
        """
        run = cls(Path(path))
        if not (run.path / "config.json").is_file():
            lack = "without config.json" if run.path.is_dir() else "which is no folder"
            raise InputError(f"run {str(path)!r}, {lack}", "a folder that a run wrote", "check the path")
        return run

    def present(self) -> list[str]:
        """Names of the files that are there."""
        return [name for name in FILES if (self.path / name).is_file()]

    def missing(self) -> list[str]:
        """Names of the files that a finished run of this kind would have and that are not there.

        >>> Run(Path("nowhere")).missing()[0]
        'config.json'
        """
        without = _NEVER_SHRUNK if self._shrinks() else _ONLY_SHRUNK if self._prunes() else _ONLY_PRUNED + _ONLY_SHRUNK
        wanted = [name for name in FILES if name not in without]
        return [name for name in wanted if not (self.path / name).is_file()]

    @property
    def finished(self) -> bool:
        """Whether the outcome is written."""
        return (self.path / "result.json").is_file()

    @property
    def model_path(self) -> Path:
        """Where the network is, or will be."""
        return self.path / "model.safetensors"

    @property
    def trail_path(self) -> Path:
        """Where the trail is, or would be: a folder with a file for each network kept on the way."""
        return self.path / "trail"

    @property
    def config(self) -> dict[str, Any]:
        """What was asked."""
        return self._read("config.json")

    @property
    def result(self) -> dict[str, Any] | None:
        """The outcome, None while the run goes on."""
        return self._read("result.json") if self.finished else None

    @property
    def report(self) -> Report | None:
        """The report of the pruner, None when there is none (yet)."""
        return Report.from_dict(self._read("report.json")) if (self.path / "report.json").is_file() else None

    @property
    def trace(self) -> dict[str, Any] | None:
        """Thresholds over time as `thresher.Trace.state_dict` gives them, None when there are none (yet)."""
        return self._read("trace.json") if (self.path / "trace.json").is_file() else None

    def metrics(self) -> list[dict[str, Any]]:
        """The records of metrics.jsonl, without a last line that was cut short; [] when there is none."""
        return read_metrics(self.path / "metrics.jsonl")

    def log(self, *, until: int | None = None) -> Metrics:
        """Open metrics.jsonl for adding; records of steps after `until` are dropped first."""
        return Metrics(self.path / "metrics.jsonl", until=until)

    def drop_if_empty(self) -> None:
        """Remove the folder when nothing was written into it."""
        with suppress(OSError):
            self.path.rmdir()

    def write(self, name: str, record: Mapping[str, Any]) -> None:
        """Write `record` as JSON under one of the names in FILES, whole or not at all."""
        write_text(self.path / name, json.dumps({"version": VERSION, **record}, indent=1))

    def _repr_html_(self) -> str:
        """What the run came to, for notebooks; where it stands, while it goes on."""
        from thresher.plots.outcome import outcome_of
        from thresher.plots.reading import read_run

        run = read_run(self.path, networks=2)
        outcome = outcome_of(run)
        notes = [f"thresher report {self.path}", *run.missing[:6]]
        return html_table([("run", "method"), (outcome.name, outcome.method)], title=outcome.verdict, lines=notes)

    def _prunes(self) -> bool:
        return not (self.path / "config.json").is_file() or self.config.get("method") is not None

    def _shrinks(self) -> bool:
        return (self.path / "config.json").is_file() and self.config.get("kind") == "shrink"

    def _read(self, name: str) -> dict[str, Any]:
        path = self.path / name
        try:
            record = json.loads(path.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise InputError(
                f"{path}, which cannot be read ({error})", "a JSON file of a run", "run it again"
            ) from error
        if not isinstance(record, dict) or record.get("version", VERSION) != VERSION:
            raise InputError(f"{path} of another version", f"version {VERSION}", "use the release that wrote it")
        return record
