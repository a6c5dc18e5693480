"""Layers done and the time left: a bar on a terminal, a line for each layer elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager


@contextmanager
def layer_counter(quiet: bool) -> Iterator[Callable[[int, int, str], None] | None]:
    """A function to tell (layers done, layers in all or 0, the layer that is next)."""
    if quiet:
        yield None
    elif not sys.stderr.isatty():
        yield LayerLines()
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("layers, left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}"),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as drawing:
            task = drawing.add_task("", total=None)
            yield lambda done, total, name: drawing.update(task, completed=done, total=total or None, description=name)


class LayerLines:
    """Plain lines, for logs and pipes."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock, self._began, self._last = clock, 0.0, ""

    def __call__(self, done: int, total: int, name: str) -> None:
        now = self._clock()
        if not done:
            self._began = now
        if name == self._last:
            return
        self._last = name
        text = name
        if total:
            text = f"layer {done + 1} of {total}: {name}"
        if done and total:
            text += f", about {(now - self._began) / done * (total - done):.0f} s left"
        print(text, file=sys.stderr, flush=True)
