"""How much is done and the time left: a bar on a terminal, lines elsewhere, always on stderr."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

Told = Callable[[int, int, str], None]


@contextmanager
def counter(quiet: bool, what: str = "layer", *, every: float = 0.0) -> Iterator[Told | None]:
    """A function to tell (done, in all or 0, what is next), None when `quiet`.

    Args:
        what: one of the things that are counted. every: seconds at least between two lines where there is no bar.
    """
    if quiet:
        yield None
    elif not sys.stderr.isatty():
        yield CountLines(what, every)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn(f"{what}s, left"),
            TimeRemainingColumn(),
            TextColumn("{task.description}", markup=False),
        )
        with Progress(*columns, console=Console(stderr=True), transient=True) as drawing:
            task = drawing.add_task("", total=None)
            yield lambda done, total, name: drawing.update(task, completed=done, total=total or None, description=name)


class CountLines:
    """Plain lines, for logs and pipes."""

    def __init__(self, what: str = "layer", every: float = 0.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._what, self._every, self._clock = what, every, clock
        self._began, self._said, self._last = 0.0, 0.0, ""

    def __call__(self, done: int, total: int, name: str) -> None:
        now = self._clock()
        if not done:
            self._began, self._said = now, now - self._every
        finished = 0 < total <= done
        if finished or now - self._said < self._every or (name == self._last and not self._every):
            return
        self._last, self._said = name, now
        text = name
        if total:
            text = f"{self._what} {done + 1} of {total}: {name}"
        if done and total:
            text += f", about {(now - self._began) / done * (total - done):.0f} s left"
        print(text, file=sys.stderr, flush=True)
