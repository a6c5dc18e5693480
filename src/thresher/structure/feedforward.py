"""Feed-forward pairs by widths alone, where no graph can tell: plain, gated, gate and value in one layer."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from torch import nn

from thresher.budget.linear import features_of, is_linear
from thresher.structure.groups import CoupledGroup, Member


def feedforward_groups(model: nn.Module, done: set[str]) -> Iterator[list[CoupledGroup]]:
    """For each module with linear children that can be a feed-forward block, candidates for its group, to be proven.

    One child reads what the others make: all of them side by side (plain: one, gated: two), or one of twice the width
    (its halves gate each other, or its even and odd outputs do). `done`: layers that are not asked again.
    """
    for name, module in model.named_modules():
        children = {
            f"{name}.{child}" if name else child: made
            for child, made in module._modules.items()
            if made is not None and is_linear(made)
        }
        for reader, last in children.items():
            units, ends = features_of(last)
            makers = [
                each
                for each, made in children.items()
                if each != reader and each not in done and features_of(made) in ((ends, units), (ends, 2 * units))
            ]
            candidates = list(_candidates(children, makers, reader, units))
            if candidates:
                yield candidates


def _candidates(
    children: dict[str, nn.Module], makers: Sequence[str], reader: str, units: int
) -> Iterator[CoupledGroup]:
    alone = tuple((unit,) for unit in range(units))
    reads = Member(module=reader, axis="in", size=units, index=alone)
    plain = tuple(each for each in makers if features_of(children[each])[1] == units)
    fused = [each for each in makers if features_of(children[each])[1] == 2 * units]
    if plain:
        makes = [Member(module=each, axis="out", size=units, index=alone) for each in plain]
        yield CoupledGroup(name=plain[0], units=units, members=(*makes, reads), producers=plain)
    for each in fused:
        halves = tuple((unit, unit + units) for unit in range(units))
        pairs = tuple((2 * unit, 2 * unit + 1) for unit in range(units))
        for index in (halves, pairs):
            makes = [Member(module=each, axis="out", size=2 * units, index=index)]
            yield CoupledGroup(name=each, units=units, members=(*makes, reads), producers=(each,))
