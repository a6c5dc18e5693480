"""N:M patterns: N of M neighbours along the input axis are stored, and which N as one small number per group.

There are C(M, N) ways to choose; their number, counted in the order (0, 1), (0, 2), ..., (1, 2), ... takes
⌈log2 C(M, N)⌉ bits: 3 for 2:4 instead of the 4 of a bitmask. Groups lie in the order (row, group along the input,
kernel tap); bits fill each byte from the lowest up. A group with fewer than N nonzeros stores zeros of its own.
"""

from __future__ import annotations

from functools import cache
from itertools import combinations
from math import comb, prod

import numpy as np
import numpy.typing as npt

from thresher.deploy.storage.gaps import Bytes, Indices
from thresher.errors import InputError

Mask = npt.NDArray[np.bool_]
SIZES = (2, 4, 8, 16)
_SAMPLE = 64


def bits_of(keep: int, of: int) -> int:
    """⌈log2 C(of, keep)⌉.

    >>> bits_of(2, 4), bits_of(1, 4), bits_of(4, 8)
    (3, 2, 7)
    """
    return (comb(of, keep) - 1).bit_length()


def fits(shape: tuple[int, ...], of: int) -> bool:
    """Whether a tensor of this shape falls into groups of `of`."""
    return of in SIZES and len(shape) >= 2 and prod(shape) > 0 and shape[1] % of == 0


def most_kept(mask: Mask, shape: tuple[int, ...], of: int, enough: int) -> int:
    """The largest number of nonzeros in a group of a flat mask; some number from `enough` on when that is reached.

    >>> most_kept(np.array([1, 1, 0, 0, 0, 0, 1, 0], dtype=bool), (1, 8), 4, enough=4)
    2
    """
    taps = prod(shape[2:])
    rows = mask.reshape(shape[0], shape[1] // of, of, taps)
    for part in (rows[:_SAMPLE], rows):  # most tensors without the pattern show it in their first rows
        most = int(np.count_nonzero(part, axis=2).max())
        if most >= enough:
            break
    return most


def pack(mask: Mask, shape: tuple[int, ...], keep: int, of: int) -> tuple[Bytes, Indices]:
    """(bytes that say which, flat index of each stored entry, group by group) of a flat mask that `fits`."""
    grouped = _grouped(mask, shape, of)
    chosen = np.sort(np.argsort(~grouped, axis=1, kind="stable")[:, :keep], axis=1)
    numbers = _numbering(keep, of)[1][(1 << chosen).sum(axis=1)]
    width = bits_of(keep, of)
    bits = np.empty((len(numbers), width), dtype=np.uint8)
    for bit in range(width):
        bits[:, bit] = (numbers >> bit) & 1
    return np.packbits(bits.reshape(-1), bitorder="little"), _flat(chosen, shape, of)


def unpack(code: Bytes, shape: tuple[int, ...], keep: int, of: int) -> Indices:
    """The flat indices that `pack` gave. Errors: InputError for a code of another length, or a number too large."""
    groups, width = prod(shape) // of, bits_of(keep, of)
    if code.size != -(-groups * width // 8):
        raise _damaged(f"{code.size} bytes of {keep}:{of} pattern", f"{-(-groups * width // 8)} for {groups} groups")
    bits = np.unpackbits(code, count=groups * width, bitorder="little").reshape(groups, width)
    numbers = np.zeros(groups, dtype=np.int64)
    for bit in range(width):
        numbers |= bits[:, bit].astype(np.int64) << bit
    ways = _numbering(keep, of)[0]
    if groups and int(numbers.max()) >= len(ways):
        raise _damaged(f"pattern number {int(numbers.max())}", f"one of the {len(ways)} ways to keep {keep} of {of}")
    return _flat(ways[numbers], shape, of)


@cache
def _numbering(keep: int, of: int) -> tuple[Indices, Indices]:
    ways = np.array(list(combinations(range(of), keep)), dtype=np.int64).reshape(-1, keep)
    number = np.zeros(1 << of, dtype=np.int64)
    number[(1 << ways).sum(axis=1)] = np.arange(len(ways))
    return ways, number


def _grouped(mask: Mask, shape: tuple[int, ...], of: int) -> Mask:
    return mask.reshape(shape[0], shape[1] // of, of, prod(shape[2:])).swapaxes(2, 3).reshape(-1, of)


def _flat(chosen: Indices, shape: tuple[int, ...], of: int) -> Indices:
    taps = prod(shape[2:])
    group = np.arange(len(chosen))
    start = group // taps * (of * taps) + group % taps
    found: Indices = (start[:, None] + chosen * taps).reshape(-1)
    return found


def _damaged(given: str, expected: str) -> InputError:
    return InputError(given, expected, "the file is damaged: fetch or save it again")
