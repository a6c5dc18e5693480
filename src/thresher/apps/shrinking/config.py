"""What a shrinking run is asked: the settings of a training run, and what only shrinking needs."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from thresher.apps.train.asking.config import TrainConfig
from thresher.errors import InputError

SCOPES = ("inside", "across")
ALLOCATIONS = ("residual", "uniform")


@dataclass(frozen=True, kw_only=True)
class ShrinkConfig:
    """`train`: network, data, budget, method, rules, seed, and how to fine-tune (`epochs`); the rest is of shrinking.

    keep: (layer pattern, units or share of units) pairs. calibration: training images that the choice is made on,
    without augmentation. reconstruct: fit every layer to what the dense network gives, on the same images. reestimate:
    measure batch norms anew after the cut.
    """

    train: TrainConfig
    keep: tuple[tuple[str, int | float], ...] = ()
    scope: str = "inside"
    allocation: str = "residual"
    round_to: int = 1
    calibration: int = 640
    reconstruct: bool = False
    reestimate: bool = False

    def __post_init__(self) -> None:
        if self.train.budget is None and not self.keep:
            raise InputError("no budget", "what the network may cost, e.g. flops=50%", "add --budget, or --keep")
        for name, known in (("scope", SCOPES), ("allocation", ALLOCATIONS)):
            if getattr(self, name) not in known:
                raise InputError(f"--{name} {getattr(self, name)}", " or ".join(known), f"correct --{name}")
        for name in ("round_to", "calibration"):
            if getattr(self, name) < 1:
                raise InputError(f"--{name.replace('_', '-')} {getattr(self, name)}", "at least 1", "correct it")

    def to_dict(self) -> dict[str, Any]:
        """What config.json holds: the settings of `train`, the kind, and the rest under "shrink"."""
        own = {key: value for key, value in asdict(self).items() if key != "train"}
        return {"kind": "shrink", **self.train.model_dump(mode="json"), "shrink": {**own, "keep": dict(self.keep)}}


def parse_keep(texts: tuple[str, ...]) -> tuple[tuple[str, int | float], ...]:
    """ "layer1.*=12" keeps 12 units, "fc1=50%" half of them.

    >>> parse_keep(("conv1=12", "fc*=50%"))
    (('conv1', 12), ('fc*', 0.5))

    Errors: InputError for any other spelling.
    """
    found: list[tuple[str, int | float]] = []
    for text in texts:
        pattern, _, amount = text.rpartition("=")
        try:
            value = float(amount[:-1]) / 100 if amount.endswith("%") else int(amount)
        except ValueError:
            value = -1
        if not pattern or value <= 0:
            raise InputError(f"--keep {text}", "PATTERN=UNITS or PATTERN=SHARE%, e.g. layer1.*=12", "correct it")
        found.append((pattern, value))
    return tuple(found)
