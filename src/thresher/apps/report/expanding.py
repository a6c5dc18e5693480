"""Folders that hold runs, such as a sweep or a demo, as the runs in them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from thresher.errors import InputError
from thresher.plots.reading import FILES, OPTIONAL

_MARKS = tuple(name for name in (*FILES, *OPTIONAL) if name != "sensitivity.json")


def run_folders(paths: Sequence[Path]) -> list[Path]:
    """Each path that is a run folder as it is; of others, the run folders in them (SWEEP/runs/* for a sweep).

    A folder without any run stays as it is: its page says what is missing.

    Errors: InputError for a path that is no folder.
    """
    found: list[Path] = []
    for path in paths:
        if not path.is_dir():
            raise InputError(f"run {str(path)!r}", "a run folder", "pass a folder that a thresher command wrote")
        inside = _inside(path / "runs") or _inside(path)
        found += [path] if _is_run(path) or not inside else inside
    return found


def _inside(folder: Path) -> list[Path]:
    return sorted(each for each in folder.iterdir() if each.is_dir() and _is_run(each)) if folder.is_dir() else []


def _is_run(folder: Path) -> bool:
    # A sweep has a config.json of its own beside its runs.
    return not (folder / "sweep.json").is_file() and any((folder / name).is_file() for name in _MARKS)
