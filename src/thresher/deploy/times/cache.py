"""Times of layers in one JSON file for each machine, in the user's cache folder."""

from __future__ import annotations

import hashlib
import json
import os
import sys
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

VARIABLE = "THRESHER_CACHE"
_VERSION = 1


def cache_folder() -> Path:
    """$THRESHER_CACHE, else `thresher` in the system's folder for caches."""
    if named := os.environ.get(VARIABLE):
        return Path(named)
    if sys.platform == "win32":
        base = Path(os.environ.get("LOCALAPPDATA") or Path.home() / "AppData" / "Local")
    elif sys.platform == "darwin":
        base = Path.home() / "Library" / "Caches"
    else:
        base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return base / "thresher"


class TimesFile:
    """Seconds by share of zeros, by the text of a layer, for one `machine`.

    What cannot be read counts as not there; what cannot be written is measured again the next time.
    """

    def __init__(self, folder: Path, machine: Mapping[str, Any]) -> None:
        self._machine = dict(machine)
        digest = hashlib.sha256(json.dumps(self._machine, sort_keys=True).encode()).hexdigest()[:16]
        self.path = folder / f"layer-times-{digest}.json"
        self._known = self._read()

    def get(self, key: str) -> dict[float, float] | None:
        """Seconds by share of zeros, None where not measured."""
        return self._known.get(key)

    def put(self, key: str, seconds: Mapping[float, float]) -> None:
        """Remembers them, and writes the file with what others have added meanwhile; atomically."""
        self._known = {**self._read(), **self._known, key: dict(seconds)}
        layers = {name: [[zeros, time] for zeros, time in times.items()] for name, times in self._known.items()}
        text = json.dumps({"version": _VERSION, "machine": self._machine, "layers": layers}, indent=1)
        fresh = self.path.with_name(f".{self.path.name}.{os.getpid()}.tmp")
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            fresh.write_text(text + "\n", encoding="utf-8")
            fresh.replace(self.path)
        except OSError:
            with suppress(OSError):
                fresh.unlink(missing_ok=True)

    def _read(self) -> dict[str, dict[float, float]]:
        try:
            record = json.loads(self.path.read_text(encoding="utf-8"))
            if record["version"] != _VERSION or record["machine"] != self._machine:
                return {}
            found = {
                str(name): {float(zeros): float(time) for zeros, time in rows}
                for name, rows in record["layers"].items()
            }
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}
        return {
            name: times
            for name, times in found.items()
            if all(0 <= zeros <= 1 and 0 < time < 1e6 for zeros, time in times.items())
        }
