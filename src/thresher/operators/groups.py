"""Which weights share one decision: the surface of a pattern, and the text that names it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import ClassVar, Protocol

from torch import Tensor

from thresher.errors import InputError

from .patterns import AXES, Axes, Block, NofM, Weight


class Groups(Protocol):
    """magnitude(θ) > cap(θ, d) decides, per group, what survives.

    Shapes: θ is `(out, in, *kernel)`; what comes back has θ's shape, except `cap` (broadcasts to it) and `sizes`.
    Units: magnitude, cap and threshold are in weight units, float32 (float64 for a float64 θ).
    Gradient: `magnitude` and `cap` are differentiable and free of NaN at zero.
    Errors: none; ask `fits` first.
    Source: choice. RMS instead of the sum norm, so that one threshold fits groups of every size.

    >>> [parse_groups(text).spelling for text in ("weight", "2:4", "block:4x1", "channel", "kernel")]
    ['weight', '2:4', 'block:4x1', 'row', 'kernel']
    """

    entrywise: ClassVar[bool]  # True where magnitude is |θ|, so that an operator may use sign(θ)

    @property
    def spelling(self) -> str:
        """The text that `parse_groups` reads back to an equal pattern."""

    def fits(self, shape: Sequence[int]) -> bool:
        """Whether a weight of this shape can carry the pattern."""

    def magnitude(self, theta: Tensor) -> Tensor:
        """|θ|, or the root mean square of the entry's group, at every entry."""

    def cap(self, theta: Tensor, threshold: Tensor) -> Tensor:
        """The threshold that holds at each entry: d itself, lower where the pattern must keep some weights."""

    def index(self, theta: Tensor) -> Tensor:
        """Group number of each entry, int64, 0 … n_groups − 1 without gaps."""

    def sizes(self, theta: Tensor) -> Tensor:
        """Entries of each group, int64, shape (n_groups,)."""


def parse_groups(text: str) -> Groups:
    """text → pattern: "weight", "N:M", "block:RxC", "row" (= "channel"), "column", "kernel".

    * weight: every entry alone. row: one output neuron or filter (dim 0). column: one input neuron or channel (dim 1).
      kernel: one k × k kernel (dims 0 and 1).
    * N:M, e.g. "2:4": of M neighbours along the input axis (dim 1) N survive, for each kernel tap separately.
    * block:RxC, e.g. "block:4x1": R neighbouring outputs × C neighbours of the flattened input side share one fate.

    Errors: InputError for any other text, for N:M without 1 ≤ N < M, for a block without R, C ≥ 1.
    Source: choice.

    >>> parse_groups("2:4")
    NofM(keep=2, of=4)
    """
    word = text.strip().lower()
    if word == "weight":
        return Weight()
    if word == "channel":
        return Axes(kind="row")
    if word in AXES:
        return Axes(kind=word)
    if (found := re.fullmatch(r"([0-9]+):([0-9]+)", word)) and 1 <= int(found[1]) < int(found[2]):
        return NofM(keep=int(found[1]), of=int(found[2]))
    if (found := re.fullmatch(r"block:([0-9]+)x([0-9]+)", word)) and int(found[1]) >= 1 and int(found[2]) >= 1:
        return Block(rows=int(found[1]), columns=int(found[2]))
    raise InputError(
        f"groups={text!r}",
        '"weight", "N:M" with 1 <= N < M, "block:RxC" with R, C >= 1, "row" (or "channel"), "column" or "kernel"',
        'name one of these, e.g. "2:4" or "block:4x1"',
    )


UNSTRUCTURED: Groups = parse_groups("weight")
