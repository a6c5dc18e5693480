"""Plans on disk: in a file of their own, in a run folder, in the header of a network's file."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

from thresher.deploy.storage import load_state
from thresher.errors import InputError
from thresher.structure import ShrinkPlan

_MOST = 256 * 1024 * 1024  # a plan of more bytes is none


def read_plan(file: Path) -> ShrinkPlan:
    """The plan in a JSON file, a run folder, or a network's file that carries one.

    Errors: InputError for a file that is missing, damaged, or without a plan.
    """
    path = file / "plan.json" if file.is_dir() else file
    wanted = "a plan.json, the run folder of thresher shrink, or a network that it wrote"
    if not path.is_file():
        raise InputError(f"{str(file)!r} without a plan", wanted, "check the path")
    if path.suffix == ".safetensors":
        record = load_state(path)[1]
        if "plan" not in record:
            raise InputError(f"{str(file)!r} without a plan", wanted, "name a network that was shrunk")
        plan = record["plan"]
        return _named(file, lambda: ShrinkPlan.from_dict(plan))
    try:
        if path.stat().st_size > _MOST:
            raise ValueError("too large")
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise InputError(f"{str(file)!r}, which cannot be read ({error})", wanted, "check the path") from error
    return _named(file, lambda: ShrinkPlan.from_json(text))


def copy_file(source: Path, target: Path) -> None:
    """Copy, whole or not at all. Errors: InputError when `target` cannot be written."""
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        shutil.copyfile(source, temporary)
        os.replace(temporary, target)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise InputError(f"{str(target)!r} ({error})", "a file that can be written", "correct --out") from error


def _named(file: Path, read: Callable[[], ShrinkPlan]) -> ShrinkPlan:
    try:
        return read()
    except InputError as error:
        raise InputError(f"{str(file)!r}: {error.given}", error.expected, error.do) from error
    except (TypeError, AttributeError, KeyError, RecursionError) as error:
        raise InputError(f"{str(file)!r}: a damaged plan ({error})", "what thresher wrote", "take another") from error
