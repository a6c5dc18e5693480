"""The engine's own graph: blobs of shape (channels, rows, columns) a picture, and the steps that write them."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

ACTIVATIONS = (
    "none", "clamp", "silu", "gelu", "gelu_tanh", "hardswish", "hardsigmoid", "sigmoid", "tanh", "relu",
)  # fmt: skip


@dataclass
class Blob:
    """What a step writes: (c, h, w) numbers for each picture.

    `part_of`: this blob is channels `first`.. of another (a concatenation). `constant`: the values, for every picture.
    `phases`: filled by a phases step: the (row, column) remainders that are stored, in order.
    """

    c: int
    h: int
    w: int
    part_of: int | None = None
    first: int = 0
    constant: Tensor | None = None
    phases: list[tuple[int, int]] = field(default_factory=list)


@dataclass
class Step:
    """One operation: `kind` as in native/program.h; reads and writes are numbers of blobs."""

    kind: str
    reads: list[int]
    write: int
    name: str = ""
    weight: Tensor | None = None  # (rows, channels of a group, kh, kw), batch norm folded in
    bias: Tensor | None = None
    residual: int | None = None
    activation: str = "none"
    low: float = 0.0
    high: float = 0.0
    attributes: dict[str, Any] = field(default_factory=dict)

    def sources(self) -> list[int]:
        """All blobs that it reads."""
        return self.reads + ([] if self.residual is None else [self.residual])


@dataclass
class Port:
    """Where a torch tensor enters or leaves: its blob, and what its dimensions mean.

    `form`: image (B, C, H, W), sequence (B, C, T), tokens (B, T, C), flat (B, C), nhwc (B, H, W, C).
    """

    blob: int
    form: str
    shape: tuple[int, ...]  # without the batch

    def strides(self, tensor: Tensor) -> tuple[int, int, int, int]:
        """Strides of image, channel, row, column in `tensor`."""
        s = tensor.stride()
        return {
            "image": lambda: (s[0], s[1], s[2], s[3]),
            "nhwc": lambda: (s[0], s[3], s[1], s[2]),
            "sequence": lambda: (s[0], s[1], 0, s[2]),
            "tokens": lambda: (s[0], s[2], 0, s[1]),
            "flat": lambda: (s[0], s[1], 0, 0),
        }[self.form]()


@dataclass
class Graph:
    """A piece of a network that the engine runs in one call."""

    blobs: list[Blob] = field(default_factory=list)
    steps: list[Step] = field(default_factory=list)
    inputs: list[Port] = field(default_factory=list)
    outputs: list[Port] = field(default_factory=list)

    def blob(self, c: int, h: int = 1, w: int = 1, **more: Any) -> int:
        """A new blob; its number."""
        self.blobs.append(Blob(c, h, w, **more))
        return len(self.blobs) - 1

    def writer(self, blob: int) -> Step | None:
        """The step that writes `blob`, if a single step does."""
        found = [step for step in self.steps if step.write == blob]
        return found[0] if len(found) == 1 else None
