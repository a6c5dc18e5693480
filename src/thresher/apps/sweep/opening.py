"""Begin a sweep in a folder, or join one that was begun there with the same settings."""

from __future__ import annotations

import platform
import shlex
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from thresher.apps.runs.folder import Run
from thresher.apps.sweep.claims import Claims
from thresher.apps.sweep.config import SweepConfig, read_sweep
from thresher.apps.sweep.plan import planned_runs, run_config
from thresher.apps.sweep.sweep import Sweep
from thresher.apps.train.asking.config import MACHINE_FIELDS
from thresher.apps.train.asking.reading import settings_of
from thresher.errors import InputError, StateError, require

_OURS = ("config.json", "claims", ".config.json")


def is_sweep(folder: Path) -> bool:
    """Whether a sweep was begun in `folder`."""
    return (folder / "config.json").is_file() and "methods" in settings_of(folder)


def open_sweep(folder: Path | str, config: SweepConfig, *, command: str | None = None) -> Sweep:
    """The sweep in `folder`: begun, when it is new or empty, or gone on with, by this worker beside any others.

    Before anything is written, data and network are loaded once, so that a wrong name does not fail run after run.

    Errors: MissingExtraError without the libraries of the extra `sweep`; StateError naming the first setting that
    differs from those the sweep was begun with (where it runs may differ); InputError for a folder that holds
    something else, and for data or weights that cannot be loaded.
    """
    require("optuna", extra="sweep", why="sweeping")
    folder = Path(folder)
    if not is_sweep(folder):
        held = sorted(entry.name for entry in folder.iterdir()) if folder.is_dir() else []
        if any(not name.startswith(_OURS) for name in held) or "config.json" in held:
            raise InputError(
                f"the folder {str(folder)!r}, which holds {', '.join(held[:4])}",
                "a new or empty folder, or one that a sweep has begun",
                "choose another --out",
            )
        _try_out(config)
    try:
        claims = Claims(folder)
    except OSError as error:
        raise InputError(
            f"the folder {str(folder)!r} ({error.strerror})", "one that can be made", "choose another"
        ) from error
    with claims.mutex:  # several machines may begin at the same time
        if is_sweep(folder):
            _check_same(folder, config)
        else:
            _write(folder, config, command)
    return Sweep(folder, config)


def _write(folder: Path, config: SweepConfig, command: str | None) -> None:
    import torch

    import thresher

    versions = {"thresher": thresher.__version__, "torch": torch.__version__, "python": platform.python_version()}
    Run(folder).write("config.json", {"command": command, **versions, **config.record()})


def _check_same(folder: Path, config: SweepConfig) -> None:
    wanted, stored = config.record(), read_sweep(settings_of(folder)).record()
    for name, value in wanted.items():
        if name not in MACHINE_FIELDS and value != stored[name]:
            raise StateError(
                f"{name}={_shown(value)} for the sweep in {str(folder)!r}",
                f"{name}={_shown(stored[name])}, as it was begun",
                f"go on with its own by `thresher sweep --out {shlex.quote(str(folder))}`, or choose another --out",
            )


def _shown(value: Any) -> str:
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _try_out(config: SweepConfig) -> None:
    from thresher.apps.train.device import machine_settings
    from thresher.apps.train.setup import assemble

    run = planned_runs(config)[0]
    settings: Mapping[str, Any] = {} if run.lr is None else {"lr": run.lr}
    first = run_config(config, run, settings)
    with machine_settings(first):
        assemble(first)
