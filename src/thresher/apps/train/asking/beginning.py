"""config.json: written when a run begins, held against what is asked when it goes on."""

from __future__ import annotations

import platform

import torch

from thresher.apps.runs import Run
from thresher.apps.train.asking.config import MACHINE_FIELDS, TrainConfig
from thresher.apps.train.asking.reading import NOT_SETTINGS, parse_config
from thresher.errors import StateError


def begin(config: TrainConfig, run: Run, command: str | None) -> None:
    """Write config.json, unless a run goes on."""
    import thresher

    if "config.json" not in run.present():
        versions = {"thresher": thresher.__version__, "torch": torch.__version__, "python": platform.python_version()}
        run.write("config.json", {"command": command, **versions, **config.model_dump(mode="json")})


def check_same(config: TrainConfig, run: Run) -> None:
    """Make sure that a run that was begun was asked the same; where it runs may differ.

    Errors: StateError naming the settings that differ.
    """
    if "config.json" not in run.present():
        return
    stored = parse_config({key: value for key, value in run.config.items() if key not in NOT_SETTINGS})
    wanted, theirs = config.model_dump(mode="json"), stored.model_dump(mode="json")
    other = [key for key in wanted if key not in MACHINE_FIELDS and wanted[key] != theirs[key]]
    if other:
        raise StateError(
            f"the run in {run.path} with " + ", ".join(f"{key}={wanted[key]!r}" for key in other),
            ", ".join(f"{key}={theirs[key]!r}" for key in other) + ", as it was begun",
            "resume with the settings of that run, or start another in a new folder",
        )
