"""The command line, `thresher`. Torch is imported inside the commands, so that help appears at once."""

from thresher.apps.cli.main import main

__all__ = ["main"]
