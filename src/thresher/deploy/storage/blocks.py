"""Blocks of R neighbouring rows and C neighbouring columns whose entries are stored or left out together.

A tensor (out, in, *kernel) is taken as a matrix with `out` rows and in · kernel columns, cut into a grid of blocks from
the first row and column on; blocks at the far edges may be smaller. The place of a block is stored once, so a pattern
in blocks of R × C costs R · C times fewer places. Entries of a stored block that are zero are stored as zeros.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.deploy.storage.gaps import Indices

Block = tuple[int, int]
Mask = npt.NDArray[np.bool_]

SINGLE: Block = (1, 1)
PRIMES = (2, 3, 5, 7)
_SAMPLE = 210  # rows and columns: a multiple of each prime


def as_matrix(shape: tuple[int, ...]) -> tuple[int, int]:
    """(rows, columns) of a tensor seen as a matrix.

    >>> as_matrix((8, 4, 3, 3)), as_matrix((5,))
    ((8, 36), (1, 5))
    """
    return (shape[0], prod(shape[1:])) if len(shape) > 1 else (1, prod(shape))


def grid(mask: Mask, block: Block) -> Mask:
    """Which blocks of a mask (rows, columns) hold something: a mask (⌈rows/R⌉, ⌈columns/C⌉).

    >>> grid(np.eye(4, dtype=bool), (2, 4)).tolist()
    [[True], [True]]
    """
    if block == SINGLE:
        return mask
    rows, columns = block
    down: Any = mask[0::rows].copy()
    for offset in range(1, min(rows, mask.shape[0])):
        part = mask[offset::rows]
        down[: len(part)] |= part
    across: Any = down[:, 0::columns].copy()
    for offset in range(1, min(columns, mask.shape[1])):
        part = down[:, offset::columns]
        across[:, : part.shape[1]] |= part
    return across  # type: ignore[no-any-return]


def entries_in(kept: Mask, matrix: tuple[int, int], block: Block) -> int:
    """Entries of the kept blocks, those at the far edges with their real size."""
    heights = np.minimum(block[0], matrix[0] - np.arange(kept.shape[0]) * block[0])
    widths = np.minimum(block[1], matrix[1] - np.arange(kept.shape[1]) * block[1])
    return int(heights @ (kept @ widths)) if kept.size else 0


def lengths(blocks: Indices, matrix: tuple[int, int], block: Block) -> tuple[Indices, Indices]:
    """(rows, columns) of each of the blocks with these numbers.

    >>> [part.tolist() for part in lengths(np.array([0, 1]), (2, 5), (2, 3))]
    [[2, 2], [3, 2]]
    """
    (rows, columns), (high, wide) = matrix, block
    across = -(-columns // wide)
    return np.minimum(high, rows - blocks // across * high), np.minimum(wide, columns - blocks % across * wide)


def positions(blocks: Indices, matrix: tuple[int, int], block: Block) -> Indices:
    """Flat indices of all entries of the blocks with these numbers: block after block, row by row inside each.

    >>> positions(np.array([1]), (2, 4), (2, 2)).tolist()
    [2, 3, 6, 7]
    """
    if block == SINGLE or not blocks.size:
        return blocks
    columns, across = matrix[1], -(-matrix[1] // block[1])
    height, width = lengths(blocks, matrix, block)
    size = height * width
    inside = np.arange(int(size.sum())) - np.repeat(np.cumsum(size) - size, size)
    width = np.repeat(width, size)
    first = np.repeat(blocks // across * block[0] * columns + blocks % across * block[1], size)
    found: Indices = first + inside // width * columns + inside % width
    return found


def growths(block: Block, matrix: tuple[int, int], taps: int) -> list[Block]:
    """The blocks to try next: a prime times as high or as wide, as wide as a kernel, a row or the matrix.

    >>> growths((4, 1), (4, 6), 1)
    [(4, 2), (4, 3), (4, 5), (4, 6)]
    """
    high, wide = block
    rows, columns = matrix
    found = [(high * prime, wide) for prime in PRIMES] + [(rows, wide)]
    found += [(high, wide * prime) for prime in PRIMES] + [(high, columns)]
    if wide == 1 and taps > 1:
        found.append((high, taps))
    fitting = {(min(h, rows), min(w, columns)) for h, w in found if h < 2 * rows and w < 2 * columns}
    return sorted(fitting - {block})


def worth_a_look(mask: Mask, block: Block, *, itemsize: int, index_bits: float) -> bool:
    """Whether blocks may save anything, judged by the first rows and columns.

    No more than the `index_bits` bits that say where a nonzero is can be saved on each; the zeros that would be stored
    with it may cost twice that here, so that only clear cases are dropped.
    """
    part = mask[: max(_SAMPLE, block[0]), : max(_SAMPLE, block[1])]
    count = int(np.count_nonzero(part))
    if count == 0:
        return True
    more = entries_in(grid(part, block), (part.shape[0], part.shape[1]), block) - count
    return more * itemsize * 8 <= 2 * count * index_bits
