"""What the engine tells whoever watches; every method here does nothing, and any of them may be overridden."""

from __future__ import annotations

from typing import Any


class Progress:
    """A watcher that ignores everything. Subclass it and override what you want to see."""

    def started(self, *, step: int, steps: int, epochs: int) -> None:
        """Training begins (or goes on) behind `step` of `steps`."""

    def stepped(self, step: int) -> None:
        """Step number `step` is done. Called at each step: be quick."""

    def logged(self, record: dict[str, Any]) -> None:
        """A record went into metrics.jsonl."""

    def said(self, message: str) -> None:
        """Something the user should know."""

    def stage(self, name: str) -> None:
        """Work outside the training loop begins: "loading", "measuring", ..."""
