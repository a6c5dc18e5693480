"""Several workers on one machine, each a process of its own."""

from __future__ import annotations

import multiprocessing
import signal
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

from thresher.apps.sweep.config import read_sweep
from thresher.apps.sweep.sweep import Sweep
from thresher.apps.sweep.worker import STOP, StoppedError, work
from thresher.errors import StateError

_LOOK_SECONDS = 0.5
_PATIENCE_SECONDS = 10.0


def work_together(
    sweep: Sweep,
    workers: int,
    told: Callable[[], None] = lambda: None,
    *,
    say: Callable[[str], None] = lambda message: None,
    command: str | None = None,
) -> None:
    """Do all runs with so many worker processes. `told` is called now and then, `say` when there is bad news.

    Without `threads` in the settings, the workers share the CPU's cores; with device auto or cuda, the GPUs.

    Errors: StateError when every worker died with runs left.
    """
    spawn = multiprocessing.get_context("spawn")  # a forked process would inherit torch's threads as they stood
    asked = (str(sweep.folder), sweep.config.record(), workers, command)
    crew = [spawn.Process(target=_member, args=(number, *asked), daemon=True) for number in range(workers)]
    for member in crew:
        member.start()
    try:
        dead: set[int] = set()
        while any(member.is_alive() for member in crew):
            told()
            for number, member in enumerate(crew, start=1):
                if member.exitcode and number not in dead:
                    dead.add(number)
                    say(f"worker {number} died (exit code {member.exitcode}); another one takes up its run")
            time.sleep(_LOOK_SECONDS)
        told()
    finally:
        for member in crew:
            member.terminate()
        for member in crew:
            member.join(_PATIENCE_SECONDS)
            member.kill()
    if not sweep.finished:
        raise StateError(
            f"{workers} workers, which ended with codes {', '.join(str(member.exitcode) for member in crew)}",
            "workers that live until all runs are done",
            "look for a lack of memory; run the same command again to go on, with fewer --workers perhaps",
        )


def _member(number: int, folder: str, record: dict[str, Any], workers: int, command: str | None) -> None:
    import torch

    # Ctrl-C reaches every process of a terminal: this one leaves it to the parent, and lets go of its run when told.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda number, frame: STOP.set())
    config = read_sweep(record)
    if config.base.threads is None:
        torch.set_num_threads(max(1, torch.get_num_threads() // workers))
    with suppress(StoppedError):
        work(
            Sweep(Path(folder), config),
            device=_device(config.base.device, number),
            command=command,
        )


def _device(asked: str, number: int) -> str | None:
    """A GPU of its own for each worker, as far as there are several; None: as configured."""
    import torch

    there = torch.cuda.device_count()
    return f"cuda:{number % there}" if asked in ("auto", "cuda") and there > 1 else None
