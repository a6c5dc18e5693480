"""The slider along a trail: what it says at each point, and the command that writes this network to a file."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from typing import Any

from thresher.plots.formats import UNKNOWN, count, percent, share, size
from thresher.plots.points import Stop
from thresher.plots.reading import Run

LABELS = {
    "zeros": "zeros",
    "accuracy": "accuracy",
    "bytes": "file",
    "flops": "multiply-adds",
    "step": "optimizer step",
}


@dataclass(frozen=True, kw_only=True)
class Place:
    """One position of the slider. `texts`: by the names in LABELS. `command`: "" when the folder's name cannot be
    typed."""

    step: int
    texts: dict[str, str]
    spoken: str
    command: str

    def to_dict(self) -> dict[str, Any]:
        """What the page's script needs."""
        return vars(self)


def places_of(run: Run) -> tuple[Place, ...]:
    """A place for each point of the run's trail, () for fewer than two."""
    if run.trail is None or len(run.trail.stops) < 2:
        return ()
    return tuple(_place(run, stop) for stop in run.trail.stops)


def command_for(folder: str, step: int) -> str:
    """The shell command that writes the network of `step`; "" for a folder with characters that terminals obey.

    >>> command_for("runs/my run", 40)
    "thresher trail 'runs/my run' --pick step=40 --out picked.safetensors"
    """
    if not folder.isprintable():
        return ""
    # A folder called -x would be taken for a flag.
    folder = f"./{folder}" if folder.startswith("-") else folder
    return f"thresher trail {shlex.quote(folder)} --pick step={step} --out picked.safetensors"


def _place(run: Run, stop: Stop) -> Place:
    drop = "" if stop.drop is None else f" ({-stop.drop + 0.0:+.2f} points)".replace("-", "−")
    texts = {
        "zeros": share(stop.sparsity),
        "accuracy": percent(stop.accuracy) + drop,
        "bytes": size(stop.bytes),
        "flops": UNKNOWN if stop.flops is None else count(stop.flops),
        "step": count(stop.step),
    }
    spoken = f"{texts['zeros']} zeros, accuracy {texts['accuracy']}, {texts['bytes']}"
    return Place(step=stop.step, texts=texts, spoken=spoken, command=command_for(run.path, stop.step))
