"""Progress for people: bars with the time left on a terminal, one line per epoch elsewhere, always on stderr."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from thresher.apps.train.progress import Progress

_LINES = 10


@contextmanager
def watcher(quiet: bool, *, title: str = "") -> Iterator[Progress]:
    """A watcher that suits stderr; it stops drawing when the block ends, however it ends."""
    if quiet:
        yield Progress()
    elif not sys.stderr.isatty():
        yield Lines(title)
    else:
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn, TimeRemainingColumn
        from rich.progress import Progress as Drawing

        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
            TextColumn("{task.fields[note]}"),
        )
        with Drawing(*columns, console=Console(stderr=True), transient=bool(title)) as drawing:
            yield Bar(drawing, title)


def summary(record: dict[str, Any], epochs: int) -> str:
    """One line about an epoch's record, with the time that the epochs after it will take."""
    left = record["seconds"] / (record["epoch"] + 1) * (epochs - record["epoch"] - 1)
    rest = f", about {left:.0f} s left" if left else ""
    zeros = f", {record['sparsity']:.1%} zeros" if record["sparsity"] else ""
    return (
        f"epoch {record['epoch'] + 1}/{epochs}: loss {record['loss']:.4f}, accuracy {record['accuracy']:.2f} %{zeros}, "
        f"{record['seconds']:.0f} s{rest}"
    )


class Lines(Progress):
    """Plain lines, for logs and pipes."""

    def __init__(self, title: str) -> None:
        self._title = f"{title}: " if title else ""
        self._epochs = 0

    def started(self, *, step: int, steps: int, epochs: int) -> None:
        """Note how long it is."""
        self._epochs = epochs
        if step:
            self.said(f"going on behind step {step} of {steps}")

    def logged(self, record: dict[str, Any]) -> None:
        """One line per epoch."""
        # A log of a long run shall stay readable: ten lines and the last.
        if record["kind"] == "epoch" and self._due(record["epoch"] + 1):
            self.said(summary(record, self._epochs))

    def _due(self, epoch: int) -> bool:
        return epoch == self._epochs or epoch % max(self._epochs // _LINES, 1) == 0

    def said(self, message: str) -> None:
        """One line."""
        print(self._title + message, file=sys.stderr, flush=True)


class Bar(Progress):
    """One bar of rich over all steps; the last epoch's numbers stand beside it."""

    def __init__(self, drawing: Any, title: str) -> None:
        self._drawing, self._title = drawing, title
        self._task: Any = drawing.add_task(title or "loading", total=None, note="")
        self._epochs = 0

    def started(self, *, step: int, steps: int, epochs: int) -> None:
        """Show the whole length."""
        self._epochs = epochs
        self._drawing.update(self._task, description=self._title or "training", total=steps, completed=step)

    def stepped(self, step: int) -> None:
        """Move the bar."""
        self._drawing.update(self._task, completed=step)

    def logged(self, record: dict[str, Any]) -> None:
        """Show the numbers."""
        if record["kind"] == "epoch":
            note = f"loss {record['loss']:.3f}, accuracy {record['accuracy']:.2f} %"
            if record["sparsity"]:
                note += f", {record['sparsity']:.1%} zeros"
            self._drawing.update(self._task, note=note)

    def said(self, message: str) -> None:
        """A line above the bar."""
        self._drawing.console.print(message, markup=False, highlight=False)

    def stage(self, name: str) -> None:
        """Name what is done outside the loop."""
        self._drawing.update(self._task, description=f"{self._title}: {name}" if self._title else name)
