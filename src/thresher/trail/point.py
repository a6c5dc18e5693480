"""What is known of one stored network: its cost, what it is worth, and where it came from."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from thresher.errors import InputError

VERSION = 1
_DERIVED = ("sparsity", "drop", "estimate")
_WHOLE = ("step", "entries", "zeros", "params", "dense_params", "bytes", "dense_bytes")
_MAYBE = ("flops", "dense_flops", "accuracy", "reference", "dense_accuracy")


@dataclass(frozen=True, kw_only=True, eq=False)
class Point:
    """One network of a trail.

    step: optimizer steps behind it. entries, zeros: of the prunable tensors. params: non-zero parameters of the whole
    model, unprunable ones counted whole. flops: multiply-adds of one sample, zeros not counted (None while output
    positions are unknown). bytes: size of the file that `thresher.save` writes of the loaded network with the record
    `model`. dense_params, dense_flops, dense_bytes: the same with nothing pruned. accuracy: in percent, of the network
    as it is stored; images: how many it was measured on; reference: accuracy of the dense network on the same images;
    dense_accuracy: that on all images. metrics: whatever else was measured. thresholds: per target, in weight units.
    method, budget: what the run was asked. kept: stored whatever the grid said. stored: bytes that the point takes in
    the trail.
    """

    step: int
    entries: int
    zeros: int
    params: int
    dense_params: int
    bytes: int
    dense_bytes: int
    flops: float | None = None
    dense_flops: float | None = None
    accuracy: float | None = None
    images: int | None = None
    reference: float | None = None
    dense_accuracy: float | None = None
    metrics: Mapping[str, float] = field(default_factory=dict)
    thresholds: Mapping[str, float | None] = field(default_factory=dict)
    method: Mapping[str, Any] = field(default_factory=dict)
    budget: str | None = None
    model: Mapping[str, Any] | None = None
    kept: bool = False
    stored: int = 0

    def __post_init__(self) -> None:
        for name in (*_WHOLE, "stored"):
            value = getattr(self, name)
            if type(value) is not int or value < 0:
                raise _refused(name, value, "a whole number, not negative")
        for name in _MAYBE:
            if (value := getattr(self, name)) is not None and not finite(value):
                raise _refused(name, value, "a finite number, or None")
        if self.images is not None and (type(self.images) is not int or self.images < 1):
            raise _refused("images", self.images, "a whole number, at least 1, or None")
        for name, values in (("metrics", self.metrics), ("thresholds", self.thresholds)):
            for key, value in values.items():
                if not finite(value) and not (name == "thresholds" and value is None):
                    raise _refused(f"{name}[{key!r}]", value, "a finite number")
        clash = sorted(set(self.metrics) & _TAKEN)
        if clash:
            raise _refused("metrics", ", ".join(clash), "names that the point does not use itself")
        if self.entries == 0 or self.zeros > self.entries:
            raise _refused("zeros", f"{self.zeros} of {self.entries} entries", "at most as many zeros as entries")

    @property
    def sparsity(self) -> float:
        """Zeros over entries of the prunable tensors."""
        return self.zeros / self.entries

    @property
    def drop(self) -> float | None:
        """Percentage points of accuracy under the dense network, None when one of the two is unknown."""
        return None if self.accuracy is None or self.reference is None else self.reference - self.accuracy

    @property
    def estimate(self) -> float | None:
        """Accuracy to expect on all images: the dense network's, less the drop on the images measured.

        The luck of a few images is mostly the same for both networks, so the drop is known better than the accuracy.
        """
        return self.accuracy if self.drop is None or self.dense_accuracy is None else self.dense_accuracy - self.drop

    def value(self, name: str) -> float | None:
        """A number of the point by its name, its own or a metric; None when it has none.

        >>> tiny = Point(step=3, entries=8, zeros=6, params=2, dense_params=8, bytes=90, dense_bytes=120)
        >>> tiny.value("sparsity"), tiny.value("loss")
        (0.75, None)
        """
        found: Any = getattr(self, name) if name in _TAKEN else self.metrics.get(name)
        return float(found) if finite(found) else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data, JSON-ready, with a version."""
        return {"version": VERSION, **asdict(self), **{name: getattr(self, name) for name in _DERIVED}}

    @classmethod
    def from_dict(cls, record: Mapping[str, Any]) -> Point:
        """The point that `to_dict` wrote. Errors: InputError on another version, unknown keys or wrong values."""
        known = {item.name for item in fields(cls)}
        given = {key: value for key, value in record.items() if key not in ("version", *_DERIVED)}
        if record.get("version") != VERSION or not set(given) <= known:
            raise InputError(
                f"a point of version {str(record.get('version'))[:20]} with {len(set(given) - known)} unknown keys",
                f"version {VERSION}",
                "use the release of thresher that wrote it",
            )
        try:
            return cls(**given)
        except (TypeError, AttributeError) as error:
            raise InputError(f"a point that cannot be read ({error})", "a whole record", "delete its file") from error

    def under(self, dense_accuracy: float | None) -> Point:
        """The same point, held against `dense_accuracy` when it was stored without one."""
        if dense_accuracy is None or self.dense_accuracy is not None:
            return self
        reference = dense_accuracy if self.reference is None else self.reference
        return replace(self, dense_accuracy=dense_accuracy, reference=reference)


_TAKEN = {item.name for item in fields(Point)} | set(_DERIVED)


def finite(value: object) -> bool:
    """Whether `value` is a finite number (True and False are not)."""
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _refused(name: str, value: object, expected: str) -> InputError:
    return InputError(f"{name}={str(value)[:80]} of a point", expected, f"correct {name}")
