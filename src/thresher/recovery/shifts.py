"""C over channel-taps of a convolution with stride 1 from sums of shifted products: no input is unfolded.

Entry ((c, t), (c', t')) of C is the sum over output positions u of H[c, u + t] H[c', u + t']. Away from the edges it
depends on t' − t alone: a 3 x 3 kernel has 81 pairs of taps and 13 different shifts (and their transposes). What the
edges take away is summed over the few rows and columns that a tap does not reach.
"""

from __future__ import annotations

from itertools import product
from typing import Any

import torch
from torch import Tensor, nn

_Key = tuple[tuple[int, ...], tuple[int, ...], int, int]


def shiftable(module: nn.Module) -> bool:
    """Whether the sum works for the layer: a 1-d or 2-d convolution with stride 1, zero padding and several taps."""
    return (
        isinstance(module, (nn.Conv1d, nn.Conv2d))
        and set(module.stride) == {1}
        and not isinstance(module.padding, str)
        and module.padding_mode == "zeros"
        and max(module.kernel_size) > 1
    )


def shifted_moments(module: nn.Conv1d | nn.Conv2d, picked: Tensor) -> Tensor:
    """C, (channels · taps) squared, channel-major, of one input (batch, channels, positions...) in its own precision.

    >>> layer = nn.Conv1d(1, 1, 2)
    >>> shifted_moments(layer, torch.tensor([[[1.0, 2.0, 3.0]]])).tolist()
    [[5.0, 8.0], [8.0, 13.0]]
    """
    if picked.ndim == 3:
        picked = picked[:, :, None]
    kernel, dilation = _two(module.kernel_size, 1), _two(module.dilation, 1)
    padding = _two(module.padding, 0)
    extent = picked.shape[2:]
    reach = [dilation[axis] * (kernel[axis] - 1) for axis in (0, 1)]
    out = [int(extent[axis]) + 2 * padding[axis] - reach[axis] for axis in (0, 1)]
    sums = _Sums(picked, reach[0], reach[1])
    taps = list(product(range(kernel[0]), range(kernel[1])))
    # Per tap and axis: the input positions that it never meets.
    missed = [
        {
            tap: tuple(place for place in range(int(extent[axis])) if not 0 <= place - start < out[axis])
            for tap in range(kernel[axis])
            for start in [dilation[axis] * tap - padding[axis]]
        }
        for axis in (0, 1)
    ]
    channels = picked.shape[1]
    matrix = picked.new_zeros(channels, len(taps), channels, len(taps))
    for first, tap in enumerate(taps):
        for second in range(first, len(taps)):
            down, right = (dilation[axis] * (taps[second][axis] - tap[axis]) for axis in (0, 1))
            block = sums.without(missed[0][tap[0]], missed[1][tap[1]], down, right)
            matrix[:, first, :, second] = block
            if second != first:
                matrix[:, second, :, first] = block.T
    return matrix.reshape(channels * len(taps), -1)


def _two(values: Any, first: int) -> tuple[int, int]:
    """Of a 1-d convolution as of a 2-d one with a single row."""
    return (first, int(values[0])) if len(values) == 1 else (int(values[0]), int(values[1]))


class _Sums:
    """Sums over positions of H[:, u] H[:, u + shift]ᵀ, whole or over some rows and columns, each worked out once."""

    def __init__(self, picked: Tensor, down: int, right: int) -> None:
        self._height, self._width = int(picked.shape[2]), int(picked.shape[3])
        # Zeros behind each row and each image: a shift of both axes is then one step along flat memory.
        padded = picked.new_zeros(len(picked), self._height + down, self._width + right, picked.shape[1])
        padded[:, : self._height, : self._width] = picked.permute(0, 2, 3, 1)
        self._grid, self._flat, self._line = padded, padded.flatten(0, 2), self._width + right
        self._known: dict[_Key, Tensor] = {}

    def without(self, rows: tuple[int, ...], columns: tuple[int, ...], down: int, right: int) -> Tensor:
        """The sum over all u outside `rows` and `columns`."""
        # Where the shift leaves the image, the product is zero anyway.
        rows = tuple(row for row in rows if 0 <= row + down < self._height)
        columns = tuple(column for column in columns if 0 <= column + right < self._width)
        total = self._whole(down, right)
        if rows:
            total = total - self._part(rows, (), down, right)
        if columns:
            total = total - self._part((), columns, down, right)
        if rows and columns:
            total = total + self._part(rows, columns, down, right)
        return total

    def _whole(self, down: int, right: int) -> Tensor:
        key = ((), (), down, right)
        if key not in self._known:
            step = down * self._line + right
            flat = self._flat
            self._known[key] = flat[: len(flat) - step].T @ flat[step:]
        return self._known[key]

    def _part(self, rows: tuple[int, ...], columns: tuple[int, ...], down: int, right: int) -> Tensor:
        key = (rows, columns, down, right)
        if key not in self._known:
            high = torch.tensor(rows or range(self._height), device=self._grid.device)
            high = high[(high + down >= 0) & (high + down < self._height)]
            wide = torch.tensor(columns or range(self._width), device=self._grid.device)
            wide = wide[(wide + right >= 0) & (wide + right < self._width)]
            here = self._grid[:, high[:, None], wide].flatten(0, 2)
            there = self._grid[:, high[:, None] + down, wide + right].flatten(0, 2)
            self._known[key] = here.T @ there
        return self._known[key]
