"""A folder of ever sparser networks of one run: added as it goes, picked from at any time."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from torch import Tensor, nn

from thresher.budget.counts import eval_mode
from thresher.budget.language import Budget
from thresher.budget.rich_text import html_table
from thresher.deploy.storage import load_state, save
from thresher.errors import InputError
from thresher.trail.files import Listing, file_name, read_header, record_of
from thresher.trail.grid import Grid
from thresher.trail.loading import put
from thresher.trail.measuring import Measure, number
from thresher.trail.picking import choose, front
from thresher.trail.point import Point
from thresher.trail.settings import Settings
from thresher.trail.snapshot import take, widen
from thresher.trail.table import rows, table, view

if TYPE_CHECKING:
    from thresher.session import Pruner

M = TypeVar("M", bound=nn.Module)


class Trail:
    """The networks in a folder, which is made by the first `add`.

    Args:
        path: the folder.
        dense_accuracy: of the dense network, in percent: what `pick(accuracy_drop=...)` compares with.
        points: at most that many, besides those added with `keep=True`: one for each equal stretch of compression from
            dense to `target`, see grid.py. The best one of a stretch stays: measured on more images, then more
            accurate, then later.
        target: the sparsity at which the last stretch begins.
        precision: of the prunable tensors in the files; biases, norms and statistics stay as they are. "float16" halves
            the trail, and takes accuracies as functions only, which measure the rounded network; "float32" stores every
            tensor as it is; "auto" rounds a point unless its accuracy comes as a number.

    A trail that has points was begun with settings of its own: what is left out is taken from there.

    Errors: InputError on values that do not fit, or differ from those that the trail was begun with.

    >>> import tempfile, thresher
    >>> folder = tempfile.TemporaryDirectory()
    >>> trail = Trail(folder.name, dense_accuracy=90.0)
    >>> for sparsity, accuracy in ((50, 89.7), (75, 89.1), (90, 84.0)):
    ...     pruner = thresher.prune(nn.Linear(40, 40), None, "magnitude", f"sparsity={sparsity}%")
    ...     pruner.step = sparsity
    ...     point = trail.add(pruner, accuracy=accuracy)
    >>> trail.pick(accuracy_drop=1.0).sparsity
    0.75
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        dense_accuracy: float | None = None,
        points: int | None = None,
        target: float | None = None,
        precision: str | None = None,
    ) -> None:
        self.path = Path(path)
        if self.path.exists() and not self.path.is_dir():
            raise InputError(f"trail {str(path)!r}, which is no folder", "a folder, or a new path", "correct the path")
        self._listing = Listing(self.path)
        given = {"dense_accuracy": dense_accuracy, "points": points, "target": target, "precision": precision}
        stored = self._listing.read()[0]
        begun = stored[-1].settings if stored else Settings()
        self._settings = begun.merged(given, begun=bool(stored), place=str(path))
        self._grid = Grid(points=self._settings.points, target=self._settings.target)

    @property
    def name(self) -> str:
        """The folder's name, or for RUN/trail that of the run."""
        path = Path(os.path.abspath(self.path))
        return path.parent.name if path.name == "trail" else path.name

    @property
    def dense_accuracy(self) -> float | None:
        """Of the dense network, in percent."""
        return self._settings.dense_accuracy

    @property
    def points(self) -> list[Point]:
        """Every point whose file is whole, by rising step; read from the files, each time."""
        return [stored.point.under(self.dense_accuracy) for stored in self._listing.read()[0]]

    @property
    def problems(self) -> list[str]:
        """What is wrong with files that look like points and cannot be read as such."""
        return [f"{error.given}; {error.do}" for error in self._listing.read()[1]]

    def due(self, pruner: Pruner) -> bool:
        """Whether the present network reaches a stretch of compression that has no point yet."""
        return not self.held(pruner)

    def held(self, pruner: Pruner) -> list[Point]:
        """The points in the stretch of compression of the present network: normally one or none."""
        entries = sum(target.numel for target in pruner.targets)
        with eval_mode(pruner.model):
            return self._within(round(pruner.sparsity * entries), entries)

    def add(
        self,
        pruner: Pruner,
        accuracy: float | Measure | None = None,
        *,
        images: int | None = None,
        reference: float | None = None,
        keep: bool = False,
        **metrics: float | Measure,
    ) -> Point | None:
        """Store the present network of `pruner`, at work or finished; the run goes on bit for bit as without.

        Args:
            accuracy: in percent: a number, or a function that measures it on the plain network that is stored.
            images: how many it was measured on. reference: the dense accuracy on the same images, when these are not
                those of the trail's `dense_accuracy`.
            keep: store it whatever the grid says, and for good; for the finished network.
            metrics: further numbers, or functions of the stored network.

        Returns: the point, or None when its stretch of compression holds a better one (see the class). A second point
        of the same step takes the place of the first.
        Errors: InputError on values that are not finite, on a number as accuracy of a float16 trail, and for a folder
        that cannot be written; NumericsError when the network holds NaN.
        """
        given = accuracy is not None and not callable(accuracy)
        if given and self._settings.precision == "float16":
            raise InputError(
                f"accuracy={accuracy!r} for a float16 trail, measured before its rounding",
                "a function that measures the network that is stored",
                "pass accuracy=lambda network: ..., or begin the trail without precision='float16'",
            )
        snapshot = take(pruner, half=self._settings.precision != "float32" and not given)
        network = snapshot.network
        point = replace(
            snapshot.point,
            accuracy=None if accuracy is None else number("accuracy", accuracy, network),
            images=images,
            reference=None if reference is None else number("reference", reference, network),
            metrics={name: number(name, value, network) for name, value in metrics.items()},
            kept=keep,
        ).under(self.dense_accuracy)
        rivals = [] if keep else [each for each in self._within(point.zeros, point.entries) if each.step != point.step]
        if any(_rank(each) > _rank(point) for each in rivals):
            return None
        path = self.path / file_name(point.step)
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(
                f"trail {str(self.path)!r} ({error})", "a folder that can be made", "choose another"
            ) from error
        save(snapshot.state, path, record=record_of(point, self._settings, snapshot.dtypes))
        for each in rivals:  # only now: killed in between, a stretch has two points for a while, never none
            with suppress(OSError):
                (self.path / file_name(each.step)).unlink()
        return read_header(path).point

    def pick(
        self, *, accuracy_drop: float | None = None, budget: str | Mapping[str, object] | Budget | None = None
    ) -> Point:
        """The sparsest point at most `accuracy_drop` percentage points under the dense accuracy, or the most accurate
        one that meets `budget`; with both, the sparsest that keeps both. Ties and errors: see `thresher.trail.choose`.
        """
        return choose(self.points, accuracy_drop=accuracy_drop, budget=budget)

    def pareto(self, x: str = "bytes", y: str = "accuracy") -> list[Point]:
        """The points that no other beats in both, by rising x; see `thresher.trail.front`."""
        return front(self.points, x, y)

    def state_dict(self, point: Point) -> dict[str, Tensor]:
        """The tensors of the plain network, in its own types, with exact zeros.

        Errors: InputError when the point is not (or no longer) in this trail, or its file is damaged.
        """
        path = self.path / file_name(point.step)
        if not path.is_file():
            steps = ", ".join(map(str, self._listing.steps())) or "none"
            raise InputError(f"step {point.step}, not in {str(self.path)!r}", f"one of {steps}", "pick again")
        return widen(load_state(path)[0], read_header(path).dtypes)

    def load(self, point: Point, model: M) -> M:
        """`model`, of the plain class that was pruned, with the tensors of `point` copied into it; all or nothing.

        Errors: InputError for a model that is being pruned, or whose names, shapes or types differ; those of
        `state_dict`.
        """
        return put(self.state_dict(point), model)

    def table(self) -> str:
        """The points as text; `*` marks the Pareto front of bytes and accuracy."""
        return table(view([self]))

    def _repr_html_(self) -> str:
        """The points as a table for notebooks."""
        return html_table(rows(view([self])), title=repr(self), lines=self.problems)

    def __repr__(self) -> str:
        points = self.points
        reach = f", {points[0].sparsity:.1%} to {points[-1].sparsity:.1%} zeros" if points else ""
        return f"Trail({str(self.path)!r}: {len(points)} point{'' if len(points) == 1 else 's'}{reach})"

    def _within(self, zeros: int, entries: int) -> list[Point]:
        cell = self._grid.cell(zeros, entries)
        return [each for each in self.points if not each.kept and self._grid.cell(each.zeros, each.entries) == cell]


def _rank(point: Point) -> tuple[int, float, int]:
    accuracy = float("-inf") if point.accuracy is None else point.accuracy
    return point.images or 0, accuracy, point.step
