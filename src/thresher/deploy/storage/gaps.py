"""Where the nonzeros are, as Rice-coded gaps: within about 2 % of the entropy when zeros fall at random.

A gap is the number of zeros before a nonzero. With a width of w bits it is split into a quotient `gap >> w`, written
in unary (that many 0 bits, then a 1), and a remainder, written in w bits. All quotients come first, then, from the
next whole byte on, all remainders; bits fill each byte from the lowest up. The zeros after the last nonzero are not
written.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from thresher.errors import InputError

Bytes = npt.NDArray[np.uint8]
Indices = npt.NDArray[np.signedinteger[Any]]

MAX_WIDTH = 48


def gaps_of(nonzero: npt.NDArray[np.bool_]) -> Indices:
    """Zeros before each nonzero of a flat mask.

    >>> gaps_of(np.array([False, False, True, True, False])).tolist()
    [2, 0]
    """
    positions: Indices = np.flatnonzero(nonzero)
    if nonzero.size < 2**31:
        positions = positions.astype(np.int32)  # half the memory traffic, which is most of the cost
    return _zeros_before(positions)


def rice_size(gaps: Indices) -> tuple[int, int]:
    """(width, bytes) of the shortest Rice code: min over w of Σ (gap >> w) + count·(1 + w) bits.

    The sum is convex in w (each step saves Σ ⌈(gap >> w)/2⌉ bits, which falls, and costs `count`), so the first rise
    ends the search.

    >>> rice_size(np.array([9, 12, 7, 10]))
    (3, 3)
    """
    count, width, quotients = gaps.size, 0, gaps.copy()
    unary = int(gaps.sum(dtype=np.int64)) + count
    while width < MAX_WIDTH:
        quotients >>= 1
        shorter = int(quotients.sum(dtype=np.int64)) + count
        if shorter + count >= unary:
            break
        width, unary = width + 1, shorter
    return width, -(-unary // 8) + -(-count * width // 8)


def pack(gaps: Indices, width: int) -> Bytes:
    """The Rice code of `gaps`.

    >>> unpack(pack(np.array([2, 0, 5]), 1), count=3, width=1, numel=12).tolist()
    [2, 3, 9]
    """
    ends = np.cumsum((gaps >> width) + 1, dtype=np.int64) - 1
    unary = np.zeros(int(ends[-1]) + 1 if gaps.size else 0, dtype=np.uint8)
    unary[ends] = 1
    low = np.empty((gaps.size, width), dtype=np.uint8)
    for bit in range(width):
        low[:, bit] = (gaps >> bit) & 1
    return np.concatenate([np.packbits(unary, bitorder="little"), np.packbits(low.reshape(-1), bitorder="little")])


def unpack(code: Bytes, *, count: int, width: int, numel: int) -> Indices:
    """Indices of the `count` nonzeros among `numel`; the inverse of `pack`.

    Errors: InputError for a code that does not hold `count` gaps or that runs beyond `numel`; memory stays in
    proportion to the length of the code.
    """
    if not 0 <= width <= MAX_WIDTH:
        raise _damaged(f"a gap width of {width} bits", f"0 to {MAX_WIDTH} bits")
    low_bytes = -(-count * width // 8)
    if low_bytes > code.size:
        raise _damaged(f"{code.size} bytes of gaps", f"at least {low_bytes} bytes for {count} values")
    split = code.size - low_bytes
    ends = np.flatnonzero(np.unpackbits(code[:split], bitorder="little"))
    if ends.size != count:
        raise _damaged(f"{ends.size} gaps", f"{count}, one per value")
    gaps = _zeros_before(ends.astype(np.int64, copy=False))
    if count and int(gaps.max()) > numel >> width:  # before the shift, which could overflow
        raise _damaged("a gap longer than the tensor", f"indices below {numel}")
    gaps <<= width
    low = np.unpackbits(code[split:], count=count * width, bitorder="little").reshape(count, width)
    for bit in range(width):
        gaps |= low[:, bit].astype(np.int64) << bit
    indices: Indices = np.cumsum(gaps + 1) - 1
    if count and (int(indices[-1]) >= numel or int(indices.min()) < 0):  # negative: the sum itself overflowed
        raise _damaged("an index beyond the tensor", f"indices below {numel}")
    return indices


def _zeros_before(positions: Indices) -> Indices:
    gaps = positions.copy()
    gaps[1:] -= positions[:-1]
    gaps[1:] -= 1
    return gaps


def _damaged(given: str, expected: str) -> InputError:
    return InputError(given, expected, "the file is damaged: fetch or save it again")
