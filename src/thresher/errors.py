"""What went wrong, in three parts: what was given, what was expected, what to do."""

from __future__ import annotations

import importlib
from types import ModuleType


class ThresherError(Exception):
    """Base of every error that Thresher raises on purpose.

    Args:
        given: what the caller handed in, with its value.
        expected: what would have been accepted.
        do: the next step for the caller.

    >>> print(ThresherError("sparsity=120%", "a share from 0% to 100%", "lower it"))
    given: sparsity=120%
    expected: a share from 0% to 100%
    do: lower it
    """

    def __init__(self, given: str, expected: str, do: str) -> None:
        self.given, self.expected, self.do = given, expected, do
        super().__init__(f"given: {given}\nexpected: {expected}\ndo: {do}")

    def __reduce__(self) -> tuple[type[ThresherError], tuple[str, str, str]]:
        return type(self), (self.given, self.expected, self.do)


class InputError(ThresherError, ValueError):
    """An argument, a file or a configuration that cannot be used."""


class BudgetError(InputError):
    """A budget that cannot be read or cannot be reached."""


class StateError(ThresherError, RuntimeError):
    """A call that does not fit the present state, e.g. finishing twice or resuming another run."""


class NumericsError(ThresherError, ArithmeticError):
    """NaN or infinity where a finite number is needed."""


class MissingExtraError(ThresherError, ImportError):
    """An optional library that is not installed."""


def require(module: str, extra: str, why: str) -> ModuleType:
    """Import an optional library, or say which extra brings it.

    >>> require("json", extra="none", why="reading").__name__
    'json'

    Errors: MissingExtraError when `module` is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        raise MissingExtraError(
            f"{why} without the library {module!r}",
            f"{module!r} to be installed",
            f'run: pip install "thresher[{extra}]"',
        ) from error
