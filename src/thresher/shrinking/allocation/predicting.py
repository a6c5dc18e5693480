"""How much each group's error costs at the output, measured with only that group cut."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from thresher.recovery.ranks import summed
from thresher.shrinking.allocation.curves import Curve, between, losses_of, relative
from thresher.shrinking.allocation.replaying import Replay
from thresher.shrinking.calibration import head_of
from thresher.shrinking.choosing import Choice
from thresher.shrinking.layers import Gathered, weights_of, write
from thresher.shrinking.selections.registry import Selection, View

# Shares of a group's units at which the effect on the output is measured.
PROBES = (0.25, 0.5, 0.75)


@dataclass(frozen=True, kw_only=True)
class Prediction:
    """Of one group, by size: ‖V‖²/‖U‖² after the refit if there is one (`curve`) and without any (`plain`), and
    `gain`, (‖f − f'‖/‖f‖)² over `curve`, measured at a few sizes with only that group cut: small where later layers
    forgive an error, large where they do not. Empty where no error was there to be measured."""

    curve: Curve
    plain: Curve
    gain: Curve

    def error(self, size: int) -> float:
        """(‖f − f'‖/‖f‖)² that `size` units are expected to leave."""
        # A group that the output does not feel still prefers to lose the units that matter less.
        gain = max(between(self.gain, size), 1e-9) if self.gain else 1.0
        return gain * between(self.curve, size)


def predictions(
    model: nn.Module,
    inputs: Any,
    choices: Sequence[Choice],
    gathered: Mapping[str, Gathered],
    method: Selection,
    grids: Mapping[str, Sequence[int]],
    *,
    samples: int,
) -> dict[str, Prediction]:
    """Per group its curves over the sizes of `grids`, and its gain from one forward pass of `samples` samples for each
    of three sizes. `model` is put back after each."""
    replay = Replay(model, head_of(inputs, samples))
    whole, place = replay.whole, replay.whole.device
    energy = summed([float(whole.square().sum())], place)[0]
    predicted: dict[str, Prediction] = {}
    for choice in choices:
        group, seen = choice.group, gathered[choice.group.name]
        problem = seen.problem
        view, refits = View(model, group, seen.hidden), method.debias and seen.taps
        found = method.recover(problem, grids[group.name], view)
        curve = relative(problem, losses_of(problem, found, refits=refits))
        readers = [member.module for member in group.readers]
        changes: dict[int, float] = {}
        for probe in _probes(group.units, sorted(found)):
            share = curve[probe]
            if share <= 1e-12 or energy <= 0:
                continue
            with weights_of(model, group):
                write(model, group, problem, found[probe], debias=method.debias, taps=seen.taps)
                change = float((replay.output(readers) - whole).square().sum())
            changes[probe] = change
        # Each process measures on its own samples; all have to come to one split.
        totals = dict(zip(changes, summed(list(changes.values()), place), strict=True))
        gain = {probe: change / energy / curve[probe] for probe, change in totals.items()}
        plain = relative(problem, losses_of(problem, found, refits=False))
        predicted[group.name] = Prediction(curve=curve, plain=plain, gain=gain)
    return predicted


def _probes(units: int, sizes: Sequence[int]) -> list[int]:
    """The sizes that are nearest to the shares of PROBES."""
    cut = [size for size in sizes if size < units]
    return sorted({min(cut, key=lambda size: abs(size - units * share)) for share in PROBES if cut})
