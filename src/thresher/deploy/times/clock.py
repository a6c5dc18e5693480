"""The sparse engine as a clock: seconds of layers, from disk where they were measured before, and of whole networks."""

from __future__ import annotations

import copy
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from thresher.deploy.bench.machine import machine
from thresher.deploy.engine import compile
from thresher.deploy.engine.library import ISAS, VERSION, native, pick_isa
from thresher.deploy.times.cache import TimesFile, cache_folder
from thresher.deploy.times.layer import LayerCase, seconds_by_zeros
from thresher.errors import InputError

ZEROS = (0.0, 0.5, 0.7, 0.8, 0.9, 0.95, 0.99)
LIMIT = 20.0  # seconds of tuning: a whole network tuned less well than its layers would seem to have a large rest


class EngineClock:
    """Seconds in the engine `thresher` with `threads` threads (None: torch's).

    Layers are measured at the shares of `ZEROS` the first time, and kept in a file for this machine in `folder` (None:
    THRESHER_CACHE, else thresher in the user's cache folder).

    Errors: InputError when the kernel library is missing.
    """

    name = "thresher"

    def __init__(self, threads: int | None = None, folder: Path | None = None) -> None:
        if native().handle is None:
            raise InputError(f"engine thresher ({native().reason})", "the kernel library", "install a C++ compiler")
        self.threads = torch.get_num_threads() if threads is None else threads
        self._isa = ISAS[pick_isa()]
        self._file = TimesFile(cache_folder() if folder is None else folder, self._machine())

    def _machine(self) -> dict[str, Any]:
        here = machine()
        return {
            "processor": here.processor,
            "instructions": self._isa,
            "threads": self.threads,
            "kernels": VERSION,
            "system": platform.machine(),
        }

    def layer(self, case: LayerCase) -> Mapping[float, float]:
        """Seconds of a layer by its share of zeros, 0 among them.

        Errors: InputError for a layer that the engine does not run.
        """
        known = self._file.get(case.key)
        if known is None or set(known) != set(ZEROS):
            known = seconds_by_zeros(case, ZEROS, self.threads, self._isa)
            self._file.put(case.key, known)
        return known

    def network(self, model: nn.Module, example: Any) -> float:
        """Seconds of one forward pass of the whole network as it is, outputs compared with torch's. A network on
        another device is copied to the CPU for it.

        Errors: those of `thresher.compile`.
        """
        if any(tensor.device.type != "cpu" for tensor in (*model.parameters(), *model.buffers())):
            model = copy.deepcopy(model).cpu()
        example = pytree.tree_map_only(Tensor, Tensor.cpu, example)
        how: dict[str, Any] = {"threads": self.threads, "engines": ("thresher",), "isa": self._isa, "limit": LIMIT}
        return compile(model, example, **how).report().seconds["thresher"]
