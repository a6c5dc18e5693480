"""Leases on runs: one worker each, kept alive by a heartbeat, free again when the worker is dead or silent."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from thresher.errors import require

LEASE_SECONDS = 120.0
"""A worker on another machine that was silent for so long is dead. Network file systems may hide signs of life for a
minute. A worker that was killed on this machine is noticed at once."""
MUTEX_SECONDS = 30.0


class Claims:
    """Lock files in `folder`/claims. Leases are held by the process, and end with it however it ends."""

    def __init__(self, folder: Path) -> None:
        self._lease: Any = require("filelock", extra="sweep", why="sweeping").SoftFileLease
        self._timeout: type[Exception] = require("filelock", extra="sweep", why="sweeping").Timeout
        self._folder = folder / "claims"
        self._folder.mkdir(parents=True, exist_ok=True)
        self.mutex: Any = self._lease(str(self._folder / "mutex"), lease_duration=MUTEX_SECONDS)
        # Kept, because a lease object remembers since when it has seen no sign of life from another machine.
        self._known: dict[str, Any] = {}

    def take(self, name: str) -> tuple[Any, bool] | None:
        """(lease, whether its last holder died with it), None when another worker holds it, as far as can be told."""
        path = self._folder / re.sub(r"[^\w.-]", "_", name)
        lease = self._known.setdefault(name, self._lease(str(path), lease_duration=LEASE_SECONDS))
        if lease.is_locked:  # by this very worker, which may not take a run twice either
            return None
        held = lease.owner is not None
        try:
            lease.acquire(blocking=False)
        except self._timeout:
            return None
        return lease, held


def still_mine(lease: Any) -> bool:
    """Whether nobody took the lease over while this process was suspended."""
    return lease.compromise is None and lease.owner is not None and lease.owner.token == lease.token
