"""Draw curves: progress across, fraction of the final threshold up."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from thresher.errors import require

if TYPE_CHECKING:
    from .schedule import Schedule

POINTS = 200


def plot(schedules: Iterable[Schedule], ax: Any = None) -> Any:
    """Draw f(x) of each schedule into `ax` (new axes when None) and return the axes; nothing is shown or saved.

    Shapes: one line of 201 points per schedule. Units: fractions. Gradient: none.
    Errors: MissingExtraError without matplotlib (`thresher[plot]`). Source: choice.

    Example: `plot([SLats(), Pgh(beta=0.1)])` draws 2 lines.
    """
    if ax is None:
        ax = require("matplotlib.pyplot", extra="plot", why="plotting a schedule").subplots()[1]
    across = [n / POINTS for n in range(POINTS + 1)]
    for schedule in schedules:
        ax.plot(across, schedule.table(POINTS).tolist(), label=getattr(schedule, "spelling", schedule.name))
    ax.set_xlabel("progress")
    ax.set_ylabel("fraction of the final threshold")
    ax.legend()
    return ax
