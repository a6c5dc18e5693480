"""checkpoint.pt and the one before it: written whole, read without running code, the older for a damaged newer."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path
from typing import Any

import torch

from thresher.errors import InputError

NAMES = ("checkpoint.pt", "checkpoint.previous.pt")


def save_checkpoint(folder: Path, state: dict[str, Any]) -> None:
    """Write `state` (plain containers and tensors) as checkpoint.pt; what was there becomes checkpoint.previous.pt.

    Flushed to the disk under a temporary name, then renamed: a kill at any moment leaves a whole checkpoint.

    Errors: InputError when the folder cannot be written.
    """
    newest, previous = (folder / name for name in NAMES)
    temporary = folder / f".{NAMES[0]}.{os.getpid()}.tmp"
    try:
        with temporary.open("wb") as stream:
            torch.save(state, stream)
            stream.flush()
            os.fsync(stream.fileno())
        if newest.exists():
            os.replace(newest, previous)
        os.replace(temporary, newest)
    except (OSError, RuntimeError) as error:  # torch reports a full disk as a RuntimeError
        temporary.unlink(missing_ok=True)
        raise InputError(
            f"a checkpoint in {folder}, which cannot be written ({error})",
            "a folder with room for it",
            "free some space, then go on with --resume",
        ) from error


def load_checkpoint(folder: Path) -> tuple[dict[str, Any] | None, list[str]]:
    """(the newest checkpoint that can be read, or None when there is none; what the user should know).

    Errors: InputError when there are checkpoints and none can be read.
    """
    said: list[str] = []
    there = [folder / name for name in NAMES if (folder / name).is_file()]
    for path in there:
        try:
            state = _read(path)
        except Exception as error:  # damaged archives raise errors of many kinds
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            said.append(f"{path.name} is damaged ({reason[:120]})")
            continue
        if isinstance(state, dict) and "step" in state:
            if said:
                said.append(f"going on from {path.name}, step {state['step']}")
            return state, said
        said.append(f"{path.name} is no checkpoint of a run")
    if there:
        raise InputError(
            f"the checkpoints in {folder}: {'; '.join(said)}",
            "one that can be read",
            "delete them to start the run from its beginning, or start a new run",
        )
    return None, said


def _read(path: Path) -> Any:
    # torch.load does not look at the checksums that torch.save wrote: a flipped bit would go through.
    with zipfile.ZipFile(path) as archive:
        broken = archive.testzip()
    if broken is not None:
        raise zipfile.BadZipFile(f"wrong checksum of {broken}")
    return torch.load(path, map_location="cpu", weights_only=True)
