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


class ShiftedMoments:
    """C of one layer, (channels · taps) squared, channel-major, summed over inputs in their own precision.

    What is summed are the products by shift, some 40 blocks of (channels) squared for a 3 x 3 kernel; C, of twice their
    size, is put together once, by `matrix`.

    >>> total = ShiftedMoments(nn.Conv1d(1, 1, 2))
    >>> total.add(torch.tensor([[[1.0, 2.0, 3.0]]]))
    >>> total.matrix().tolist()
    [[5.0, 8.0], [8.0, 13.0]]
    """

    def __init__(self, module: nn.Conv1d | nn.Conv2d) -> None:
        self._kernel, self._dilation = _two(module.kernel_size, 1), _two(module.dilation, 1)
        self._padding = _two(module.padding, 0)
        self._reach = [self._dilation[axis] * (self._kernel[axis] - 1) for axis in (0, 1)]
        self._taps = list(product(range(self._kernel[0]), range(self._kernel[1])))
        self._sums: dict[tuple[int, int], dict[_Key, Tensor]] = {}

    def add(self, picked: Tensor) -> None:
        """Take in one input (batch, channels, positions...)."""
        if picked.ndim == 3:
            picked = picked[:, :, None]
        extent = (int(picked.shape[2]), int(picked.shape[3]))
        grid = _Grid(picked, *self._reach)
        sums = self._sums.setdefault(extent, {})
        for key in {key for terms in self._terms(extent).values() for _, key in terms}:
            block = grid.product(key)
            sums[key] = sums[key].add_(block) if key in sums else block

    def include(self, other: ShiftedMoments) -> None:
        """Add what another one, of the same layer, has taken in."""
        for extent, blocks in other._sums.items():
            sums = self._sums.setdefault(extent, {})
            for key, block in blocks.items():
                sums[key] = sums[key].add_(block) if key in sums else block.clone()

    def matrix(self) -> Tensor:
        """C of all that was taken in."""
        some = next(block for sums in self._sums.values() for block in sums.values())
        channels, taps = some.shape[0], len(self._taps)
        zero, matrix = some.new_zeros(()), some.new_empty(channels, taps, channels, taps)
        each = [(sums, self._terms(extent)) for extent, sums in self._sums.items()]
        for first, second in each[0][1]:
            block = sum((sign * sums[key] for sums, terms in each for sign, key in terms[first, second]), zero)
            matrix[:, first, :, second] = block
            if second != first:
                matrix[:, second, :, first] = block.T
        return matrix.reshape(channels * taps, -1)

    def _terms(self, extent: tuple[int, int]) -> dict[tuple[int, int], list[tuple[int, _Key]]]:
        """Per pair of taps: the sums that make its block, each with its sign; the first is that over all positions."""
        out = [extent[axis] + 2 * self._padding[axis] - self._reach[axis] for axis in (0, 1)]
        # Per axis and tap: the input positions that it never meets.
        missed = [
            [
                [place for place in range(extent[axis]) if not 0 <= place - start < out[axis]]
                for tap in range(self._kernel[axis])
                for start in [self._dilation[axis] * tap - self._padding[axis]]
            ]
            for axis in (0, 1)
        ]
        found = {}
        for first, tap in enumerate(self._taps):
            for second in range(first, len(self._taps)):
                shift = [self._dilation[axis] * (self._taps[second][axis] - tap[axis]) for axis in (0, 1)]
                # Where the shift leaves the image, the product is zero anyway.
                rows, columns = (
                    tuple(place for place in missed[axis][tap[axis]] if 0 <= place + shift[axis] < extent[axis])
                    for axis in (0, 1)
                )
                down, right = shift
                terms: list[tuple[int, _Key]] = [(1, ((), (), down, right))]
                terms += [(-1, (rows, (), down, right))] if rows else []
                terms += [(-1, ((), columns, down, right))] if columns else []
                terms += [(1, (rows, columns, down, right))] if rows and columns else []
                found[first, second] = terms
        return found


def _two(values: Any, first: int) -> tuple[int, int]:
    """Of a 1-d convolution as of a 2-d one with a single row."""
    return (first, int(values[0])) if len(values) == 1 else (int(values[0]), int(values[1]))


class _Grid:
    """One input H, for sums of H[:, u] H[:, u + shift]ᵀ over all positions u or over some rows and columns."""

    def __init__(self, picked: Tensor, down: int, right: int) -> None:
        self._height, self._width = int(picked.shape[2]), int(picked.shape[3])
        # Zeros behind each row and each image: a shift of both axes is then one step along flat memory.
        padded = picked.new_zeros(len(picked), self._height + down, self._width + right, picked.shape[1])
        padded[:, : self._height, : self._width] = picked.permute(0, 2, 3, 1)
        self._grid, self._flat, self._line = padded, padded.flatten(0, 2), self._width + right

    def product(self, key: _Key) -> Tensor:
        """(channels) squared; rows and columns both empty: over all positions, one of them empty: all of that axis."""
        rows, columns, down, right = key
        if not rows and not columns:
            step = down * self._line + right
            return self._flat[: len(self._flat) - step].T @ self._flat[step:]
        high = torch.tensor(rows or range(self._height), device=self._grid.device)
        high = high[(high + down >= 0) & (high + down < self._height)]
        wide = torch.tensor(columns or range(self._width), device=self._grid.device)
        wide = wide[(wide + right >= 0) & (wide + right < self._width)]
        here = self._grid[:, high[:, None], wide].flatten(0, 2)
        there = self._grid[:, high[:, None] + down, wide + right].flatten(0, 2)
        return here.T @ there
