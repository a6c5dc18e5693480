"""Draw residual curves: units kept across, ‖V‖²/‖U‖² up, beside the decay that compressibility predicts."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from thresher.errors import InputError, require

if TYPE_CHECKING:
    from thresher.shrinking.report.records import ShrinkReport

COLUMNS = 3


def plot(report: ShrinkReport, axes: Any = None) -> Any:
    """One panel per group: its curve after and before the refit, s^(1 − 2/p), and the size that was chosen.

    axes: a flat sequence of matplotlib axes, one per group (new ones when None). Returns the axes; nothing is shown or
    saved. Errors: MissingExtraError without matplotlib (`thresher[plot]`); InputError for a report without curves.
    """
    groups = [group for group in report.groups if group.curve]
    if not groups:
        raise InputError(
            "a report without residual curves", "one with a budget", 'give budget= and allocation="residual"'
        )
    if axes is None:
        pyplot = require("matplotlib.pyplot", extra="plot", why="plotting residual curves")
        columns = min(COLUMNS, len(groups))
        rows = math.ceil(len(groups) / columns)
        axes = pyplot.subplots(rows, columns, figsize=(4 * columns, 3 * rows), squeeze=False)[1].flatten()
        for spare in axes[len(groups) :]:
            spare.set_visible(False)
    for axis, group in zip(axes, groups, strict=False):
        whole = [(size, value) for size, value in group.curve if value > 0]
        axis.plot(
            *zip(*whole, strict=True), label="after the refit" if group.refitted else "measured"
        ) if whole else None
        decay = [(size, value, predicted) for size, value, predicted in group.decay if value > 0]
        if decay:
            sizes, values, predicted = zip(*decay, strict=True)
            if group.refitted:
                axis.plot(sizes, values, label="before the refit")
            # A slope that rises is no promise.
            if group.exponent is not None and group.exponent < 0:
                axis.plot(sizes, predicted, linestyle="--", label=f"s^({group.exponent:.2f})")
        axis.axvline(group.kept, color="grey", linewidth=0.8)
        axis.set_xscale("log")
        axis.set_yscale("log")
        axis.set_title(group.name, fontsize="small")
        axis.set_xlabel("units kept")
        axis.set_ylabel("residual, relative")
        axis.legend(fontsize="x-small")
    return axes
