"""Which of the stored forms of a tensor is the smallest, found without building any of them."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt

from thresher.deploy.storage import nofm
from thresher.deploy.storage.blocks import SINGLE, Block, as_matrix, entries_in, grid, growths, worth_a_look
from thresher.deploy.storage.gaps import gaps_of, rice_size

HEADER_COST = 160  # measured: 120 to 176 bytes, by the length of the name
Mask = npt.NDArray[np.bool_]


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The smallest form of a tensor: `index` bytes say where the `stored` values are (0 for dense).

    `width`, `count`: of the gaps. `block`: rows and columns that share a place (bitmask and gaps). `keep`: N of an N:M
    pattern, `of`: its M.
    """

    encoding: str
    stored: int
    index: int
    bytes: int
    width: int = 0
    count: int = 0
    block: Block = SINGLE
    keep: int = 0
    of: int = 0

    @property
    def spelling(self) -> str:
        """What a report says.

        >>> Choice(encoding="gaps", stored=4, index=1, bytes=17, block=(4, 1)).spelling
        'gaps of 4x1 blocks'
        """
        if self.encoding == "n:m":
            return f"{self.keep}:{self.of}"
        return self.encoding + ("" if self.block == SINGLE else f" of {self.block[0]}x{self.block[1]} blocks")


def smallest(mask: Mask, shape: tuple[int, ...], itemsize: int) -> Choice:
    """The smallest form of a tensor of this shape whose bits are nonzero where the flat `mask` is True.

    >>> smallest(np.repeat(np.arange(20) % 3 == 0, 4 * 50), (80, 50), 4).spelling       # 4 rows of 50 stay, 8 go
    'bitmask of 4x50 blocks'
    """
    numel, count = mask.size, int(np.count_nonzero(mask))
    dense = Choice(encoding="dense", stored=numel, index=0, bytes=numel * itemsize)
    # A sparse form has a second entry in the header; it must save more than that.
    limit = numel * itemsize - HEADER_COST
    if count * itemsize >= limit:
        return dense
    matrix = as_matrix(shape)
    flat = mask.reshape(matrix)
    best = _placed(flat, count, SINGLE, itemsize)
    best = _in_blocks(flat, best, matrix, prod(shape[2:]), itemsize)
    for of in nofm.SIZES:
        if nofm.fits(shape, of) and (groups := numel // of) * itemsize < best.bytes:
            # More values in each group than that would take more bytes than the best form so far.
            keep = nofm.most_kept(mask, shape, of, enough=min(of, best.bytes // (groups * itemsize) + 1))
            size = -(-groups * nofm.bits_of(keep, of) // 8) if 0 < keep < of else 0
            if size and groups * keep * itemsize + size < best.bytes:
                stored = groups * keep
                best = Choice(
                    encoding="n:m", stored=stored, index=size, bytes=stored * itemsize + size, keep=keep, of=of
                )
    return best if best.bytes < limit else dense


def _placed(kept: Mask, stored: int, block: Block, itemsize: int) -> Choice:
    """The shorter of bitmask and gaps over the blocks of a grid; gaps above half full are the bitmask again."""
    values, mask_bytes, count = stored * itemsize, -(-kept.size // 8), int(np.count_nonzero(kept))
    if 2 * count < kept.size:
        width, size = rice_size(gaps_of(kept.reshape(-1)))
        if size < mask_bytes:
            total = values + size
            return Choice(
                encoding="gaps", stored=stored, index=size, bytes=total, width=width, count=count, block=block
            )
    return Choice(encoding="bitmask", stored=stored, index=mask_bytes, bytes=values + mask_bytes, block=block)


def _in_blocks(flat: Mask, best: Choice, matrix: tuple[int, int], taps: int, itemsize: int) -> Choice:
    """Blocks grown prime by prime for as long as the form becomes smaller."""
    if matrix[0] == 1 or best.stored == 0:
        return best
    while True:
        found = best
        bits = 8 * best.index / best.stored
        for block in growths(best.block, matrix, taps):
            if not worth_a_look(flat, block, itemsize=itemsize, index_bits=bits):
                continue
            kept = grid(flat, block)
            stored = entries_in(kept, matrix, block)
            if stored * itemsize < found.bytes:
                tried = _placed(kept, stored, block, itemsize)
                found = tried if tried.bytes < found.bytes else found
        if found is best:
            return best
        best = found
