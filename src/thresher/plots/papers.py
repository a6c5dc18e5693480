"""Every plot of the report page as a matplotlib figure, by its name."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from thresher.errors import InputError, require
from thresher.plots.drawing import draw
from thresher.plots.figures import OF_ONE_RUN, OF_SEVERAL_RUNS, Detail
from thresher.plots.outcome import outcome_of
from thresher.plots.reading import Run, read_run

FORMATS = ("svg", "pdf", "png")
NAMES = (*OF_ONE_RUN, *OF_SEVERAL_RUNS)
Folder = str | os.PathLike[str] | Run


def plot(name: str, *runs: Folder, ax: Any = None, variant: str | None = None) -> Any:
    """The plot `name` of a run folder, or of several, as a matplotlib figure.

    Args:
        name: one of `thresher.plots.NAMES`; those that begin with "accuracy-" compare runs.
        ax: matplotlib axes to draw into; default: a new figure.
        variant: of plots that have several, such as the tensor of "histograms"; default: the first.

    Errors: InputError for an unknown name or variant, for a folder without the data, for one run too many;
    MissingExtraError without matplotlib.

    Example: `plot("zeros", "runs/lats95").savefig("zeros.pdf")`
    """
    if name not in NAMES:
        raise InputError(f"plot {name!r}", f"one of {', '.join(NAMES)}", "correct the name")
    several = name in OF_SEVERAL_RUNS
    if not runs or (len(runs) > 1 and not several):
        raise InputError(f"{len(runs)} runs for {name!r}", "at least one" if several else "one run", "pass its folder")
    read = [run if isinstance(run, Run) else read_run(Path(run)) for run in runs]
    if several:
        figure = OF_SEVERAL_RUNS[name]([outcome_of(run) for run in read])
        needs = "result.json"
    else:
        _, needs, make = OF_ONE_RUN[name]
        figure = make(read[0], Detail())
    if figure is None:
        raise InputError(f"{name!r} of {read[0].path!r}", f"its data, from {needs}", "check the folder")
    if variant is not None:
        found = dict(figure.variants)
        if variant not in found:
            known = ", ".join(found) or "none"
            raise InputError(f"variant {variant!r} of {name!r}", f"one of {known}", "correct it")
        figure = found[variant]
    return draw(figure, ax)


def save_all(runs: Sequence[str | os.PathLike[str]], folder: str | os.PathLike[str], form: str = "svg") -> list[Path]:
    """Every plot that the runs have data for, as files in `folder`, which is made; returns the files.

    Of several runs each has a folder of its own, numbered, beside the comparisons.

    Errors: InputError for another format, or a folder that cannot be written; MissingExtraError without matplotlib.
    """
    if form not in FORMATS:
        raise InputError(f"format {form!r}", f"one of {', '.join(FORMATS)}", "correct it")
    matplotlib = require("matplotlib", extra="plot", why="drawing figures")
    read, folder = [read_run(Path(run)) for run in runs], Path(folder)
    drawn = []
    for number, run in enumerate(read):
        place = folder if len(read) == 1 else folder / f"run-{number + 1}"
        drawn += [
            (place / name, figure) for name, (_, _, make) in OF_ONE_RUN.items() if (figure := make(run, Detail()))
        ]
    if len(read) > 1:
        outcomes = [outcome_of(run) for run in read]
        drawn += [(folder / name, figure) for name, make in OF_SEVERAL_RUNS.items() if (figure := make(outcomes))]
    written = []
    try:
        for stem, figure in drawn:
            stem.parent.mkdir(parents=True, exist_ok=True)
            written.append(stem.with_suffix(f".{form}"))
            # Without a date the same run gives the same file.
            with matplotlib.rc_context(_SETTINGS):
                draw(figure).savefig(written[-1], metadata=None if form == "png" else {_DATE[form]: None})
    except OSError as error:
        raise InputError(
            f"folder {str(folder)!r} ({error.strerror})", "one that can be written", "choose another"
        ) from error
    return written


# Text stays text in SVG and PDF, and identifiers do not change from one drawing to the next.
_SETTINGS = {"svg.fonttype": "none", "svg.hashsalt": "thresher", "pdf.fonttype": 42}
_DATE = {"svg": "Date", "pdf": "CreationDate"}
