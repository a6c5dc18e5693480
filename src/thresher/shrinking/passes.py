"""Going through the data: all groups at once on the dense network, and layer by layer on the pruned prefix."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thresher.recovery import Recovery
from thresher.recovery.lockstep import in_lockstep
from thresher.recovery.moments import collect
from thresher.recovery.reading import reading_weight
from thresher.shrinking.calibration import Calibration
from thresher.shrinking.layers import Gathered, Watched, channels_by_unit, gathered_of, watch, write
from thresher.shrinking.selections.registry import Selection, View
from thresher.structure import CoupledGroup, Member


@dataclass(frozen=True, kw_only=True)
class Reading:
    """How data is read. most_rows: largest C over channel-taps. limit: at most that many batches. columns: hidden
    values to keep as they are, for scores that moments do not hold (0: none)."""

    most_rows: int
    limit: int | None = None
    columns: int = 0


@dataclass(frozen=True, eq=False)
class CutGroup:
    """What was kept of a group, from what, and whether what reads it was refitted.

    residuals: reader to ‖V‖ over all samples, V the change of what it gives; None when moments are over channels only.
    """

    group: CoupledGroup
    seen: Gathered
    recovery: Recovery
    refitted: bool
    residuals: Mapping[str, float | None]


def gather(
    model: nn.Module,
    groups: Sequence[CoupledGroup],
    batches: Iterable[Any],
    reading: Reading,
    *,
    enough: int | None = None,
) -> dict[str, Gathered]:
    """One pass over `batches`: group name to its problem.

    enough: take in no more of a group once it has so many columns for each row of C; the pass ends when all have.
    """
    watched = [
        watch(model, group, most_rows=reading.most_rows, columns=reading.columns, enough=enough) for group in groups
    ]
    shared: dict[str, list[Any]] = {}
    for each in watched:
        for name, moments in each.readers.items():
            shared.setdefault(name, []).append(moments)

    def wanted() -> Iterable[Any]:
        for batch in batches:
            yield batch
            if all(moments.full for found in shared.values() for moments in found):
                return

    readers = {name: found[0] if len(found) == 1 else _Several(found) for name, found in shared.items()}
    collect(model, wanted(), readers, limit=reading.limit)
    return {each.group.name: gathered_of(model, each) for each in watched}


class _Several:
    """A reader behind a concatenation serves several groups."""

    def __init__(self, moments: list[Any]) -> None:
        self._moments = moments

    def add(self, inputs: Tensor, mask: Tensor | None = None) -> None:
        for each in self._moments:
            each.add(inputs, mask)


def cut_in_order(
    model: nn.Module,
    work: Sequence[tuple[CoupledGroup, int]],
    method: Selection,
    data: Calibration,
    reading: Reading,
    dense: Callable[[str], Gathered],
    told: Callable[[CutGroup], None],
) -> None:
    """Cut each group of `work` to its size, on what the groups before it leave, in place (as zeros at the old shapes).

    Held data goes through the network side by side, once; other data once for each group. Data that can be read only
    once has been: then `dense` has the moments of the whole network. told: called with each group as it is done.
    """
    if data.held is not None:
        left = list(work)
        while left:
            done = _side_by_side(model, left, method, data, reading, told)
            left = [item for item in left if item[0].name not in done]
        return
    for group, size in work:
        seen = dense(group.name) if data.once else gather(model, [group], data.again(), reading)[group.name]
        told(_cut(model, group, size, method, seen))


def _side_by_side(
    model: nn.Module,
    work: Sequence[tuple[CoupledGroup, int]],
    method: Selection,
    data: Calibration,
    reading: Reading,
    told: Callable[[CutGroup], None],
) -> set[str]:
    """Cut groups in the order in which their last reader runs, until one with several readers is done: layers behind
    its first reader ran before the cut, so the rest needs another pass."""
    assert data.held is not None
    waiting: dict[str, list[tuple[Watched, int]]] = {}
    missing: dict[str, set[str]] = {}
    for group, size in work:
        watched = watch(model, group, most_rows=reading.most_rows, columns=reading.columns)
        missing[group.name] = set(watched.readers)
        for name in watched.readers:
            waiting.setdefault(name, []).append((watched, size))
    done: set[str] = set()

    def seen(name: str, inputs: Tensor, mask: Tensor | None) -> None:
        for watched, _ in waiting[name]:
            if watched.group.name not in done:
                watched.readers[name].add(inputs, mask)

    def decide(name: str) -> bool:
        for watched, size in waiting[name]:
            group = watched.group
            missing[group.name].discard(name)
            if missing[group.name]:
                continue
            told(_cut(model, group, size, method, gathered_of(model, watched)))
            done.add(group.name)
            for reader in watched.readers:  # its matrices are not needed any more
                watched.readers[reader].clear()
            if len(watched.readers) > 1:
                return False
        return True

    in_lockstep(model, data.held, list(waiting), seen, decide)
    return done


def _cut(model: nn.Module, group: CoupledGroup, size: int, method: Selection, seen: Gathered) -> CutGroup:
    recovery = method.recover(seen.problem, [size], View(model, group, seen.hidden))[size]
    before = {member.module: _weight(model, member) for member in group.readers}
    refitted = write(model, group, seen.problem, recovery, debias=method.debias, taps=seen.taps)
    residuals: dict[str, float | None] = {}
    for member, part in zip(group.readers, seen.problem.parts, strict=True):
        change = before[member.module] - _weight(model, member)
        square = float(((change @ part.moments) * change).sum()) if seen.taps else None
        residuals[member.module] = None if square is None else max(square, 0.0) ** 0.5
    return CutGroup(group, seen, recovery, refitted, residuals)


def _weight(model: nn.Module, member: Member) -> Tensor:
    return reading_weight(model.get_submodule(member.module), channels_by_unit(member)).to(torch.float64, copy=True)
