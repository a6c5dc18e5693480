"""Training and pruning as one engine: `fit(config, run)`; quiet, resumable bit for bit. Torch loads on first use."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from thresher.apps.train.asking.config import TrainConfig
from thresher.apps.train.asking.reading import read_config

if TYPE_CHECKING:
    from thresher.apps.train.asking.plan import Plan, make_plan
    from thresher.apps.train.ending.result import Result
    from thresher.apps.train.engine import fit
    from thresher.apps.train.network import load_network
    from thresher.apps.train.progress import Progress

_HOMES = {
    "Plan": "asking.plan",
    "Progress": "progress",
    "Result": "ending.result",
    "fit": "engine",
    "load_network": "network",
    "make_plan": "asking.plan",
}
__all__ = ["Plan", "Progress", "Result", "TrainConfig", "fit", "load_network", "make_plan", "read_config"]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
