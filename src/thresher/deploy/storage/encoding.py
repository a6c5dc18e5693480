"""One tensor as bytes: dense, bitmask + values, gaps + values or N:M + values, whichever is smallest.

    dense    n·s                    s = bytes per element, n = elements
    bitmask  ⌈b/8⌉ + z·s            b = blocks (of one entry: elements), z = elements of blocks that hold something
    gaps     rice(gaps) + z·s       see gaps.py; tried when fewer than b/2 blocks hold something
    n:m      ⌈g·w/8⌉ + g·N·s        g = groups, w = ⌈log2 C(M, N)⌉; see nofm.py

"Holding something" means that some bit is set, so −0.0 and NaN are stored and come back bit for bit. A sparse form has
two entries in the file's header instead of one; it is taken only when it saves more than those bytes (choosing.py).
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from thresher.deploy.storage import nofm
from thresher.deploy.storage.blocks import SINGLE, Block, as_matrix, grid, lengths, positions
from thresher.deploy.storage.choosing import Choice, smallest
from thresher.deploy.storage.gaps import Indices, gaps_of, pack, unpack
from thresher.errors import InputError

_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A tensor in its stored form; `index` is uint8 (n,), `values` has the tensor's dtype (if dense, its shape).

    `count`: how many gaps there are. The other fields are those of the `Choice`.
    """

    encoding: str
    shape: tuple[int, ...]
    index: Tensor
    values: Tensor
    width: int = 0
    count: int = 0
    block: Block = SINGLE
    keep: int = 0
    of: int = 0

    @property
    def nbytes(self) -> int:
        return self.index.nbytes + self.values.nbytes


def encode(tensor: Tensor) -> Encoded:
    """The smallest stored form of `tensor`, on the CPU.

    >>> form = encode(torch.eye(100))
    >>> form.encoding, form.nbytes          # 100 values of 4 bytes, and 100 bytes that say where they are
    ('gaps', 500)

    Errors: InputError for a dtype or layout that a file cannot hold.
    """
    flat = _flat(tensor)
    nonzero = _nonzero(flat)
    shape = tuple(tensor.shape)
    choice = smallest(nonzero, shape, tensor.element_size())
    if choice.encoding == "dense":
        none = torch.empty(0, dtype=torch.uint8)
        return Encoded(encoding="dense", shape=shape, index=none, values=flat.view(shape))
    if choice.encoding == "n:m":
        index, where = nofm.pack(nonzero, shape, choice.keep, choice.of)
    else:
        matrix = as_matrix(shape)
        kept = grid(nonzero.reshape(matrix), choice.block).reshape(-1)
        packed = choice.encoding == "gaps"
        index = pack(gaps_of(kept), choice.width) if packed else np.packbits(kept, bitorder="little")
        where = positions(np.flatnonzero(kept), matrix, choice.block)
    values = torch.from_numpy(_bits(flat).numpy()[where]).view(tensor.dtype)
    return Encoded(
        encoding=choice.encoding,
        shape=shape,
        index=torch.from_numpy(index),
        values=values,
        width=choice.width,
        count=choice.count,
        block=choice.block,
        keep=choice.keep,
        of=choice.of,
    )


def decode(form: Encoded) -> Tensor:
    """The tensor that `encode` was given, bit for bit.

    >>> decode(encode(torch.tensor([0.0, -0.0, 3.0])))
    tensor([0., -0., 3.])

    Errors: InputError when index, values and shape do not belong together. The caller bounds prod(shape).
    """
    if form.encoding == "dense":
        return form.values
    numel, values = prod(form.shape), form.values
    where = _where(form)
    if where.size != values.numel() or (where.size and int(where.max()) >= numel):
        raise _damaged(f"places for {where.size} values", f"{values.numel()}, one per value, below {numel}")
    try:
        flat = torch.zeros(numel, dtype=values.dtype)
        _bits(flat).numpy()[where] = _bits(values).numpy()
        return flat.view(form.shape)
    except (RuntimeError, MemoryError, OverflowError, ValueError) as error:
        raise _damaged(f"a tensor of shape {list(form.shape)[:8]} ({error})", "a shape that can be built") from error


def _where(form: Encoded) -> Indices:
    """Flat indices of the values, in the order in which they are stored."""
    index = form.index.numpy()
    if form.encoding == "n:m":
        if not nofm.fits(form.shape, form.of) or not 0 < form.keep < form.of:
            raise _damaged(f"a pattern {form.keep}:{form.of} of shape {list(form.shape)[:8]}", "one that fits it")
        if form.values.numel() != prod(form.shape) // form.of * form.keep:  # before anything of that size is built
            raise _damaged(f"{form.values.numel()} values of a pattern", "N for each of its groups")
        return nofm.unpack(index, form.shape, form.keep, form.of)
    matrix, (high, wide) = as_matrix(form.shape), form.block
    if form.block != SINGLE and not (0 < high <= matrix[0] and 0 < wide <= matrix[1]):
        raise _damaged(f"blocks of {high} x {wide} in a matrix of {matrix[0]} x {matrix[1]}", "blocks inside it")
    blocks = -(-matrix[0] // high) * -(-matrix[1] // wide)
    if form.encoding == "bitmask":
        if index.size != -(-blocks // 8):
            raise _damaged(f"a mask of {index.size} bytes", f"{-(-blocks // 8)} bytes for {blocks} places")
        kept: Indices = np.flatnonzero(np.unpackbits(index, bitorder="little"))
    else:
        kept = unpack(index, count=form.count, width=form.width, numel=blocks)
    if kept.size and int(kept[-1]) >= blocks:
        raise _damaged(f"place {int(kept[-1])}", f"places below {blocks}")
    if form.block != SINGLE:  # counted before anything of that size is built
        height, width = lengths(kept, matrix, form.block)
        if int(height @ width) != form.values.numel():
            raise _damaged(f"blocks of {int(height @ width)} entries", f"{form.values.numel()}, one per value")
    return positions(kept, matrix, form.block)


def encoded_bytes(tensor: Tensor) -> int:
    """Bytes of `encode(tensor)`, exactly, without building it.

    >>> encoded_bytes(torch.zeros(1000)), encoded_bytes(torch.ones(1000))
    (0, 4000)
    """
    return choose(tensor).bytes


def encoded_bytes_of_mask(mask: Tensor, itemsize: int) -> int:
    """Bytes of `encode` for a tensor of `itemsize` bytes per element that is nonzero exactly where `mask` is True.

    >>> encoded_bytes_of_mask(torch.arange(8000) % 4 == 0, itemsize=4)   # 2000 values, 3 bits each to say where
    8750

    Errors: InputError when `mask` is not boolean or `itemsize` is not 1, 2, 4 or 8.
    """
    return choose_for_mask(mask, itemsize).bytes


def raw(tensor: Tensor) -> Tensor:
    """The bytes of a CPU tensor in logical order, uint8 (nbytes,).

    >>> raw(torch.tensor([1.0, -0.0])).tolist()
    [0, 0, 128, 63, 0, 0, 0, 128]
    """
    flat = tensor.contiguous().view(-1)
    # An empty tensor may have stride 0, which no view to another element size accepts.
    return flat.view(torch.uint8) if flat.numel() else torch.empty(0, dtype=torch.uint8)


def choose(tensor: Tensor) -> Choice:
    """The smallest form of `tensor`, without building it."""
    return smallest(_nonzero(_flat(tensor)), tuple(tensor.shape), tensor.element_size())


def choose_for_mask(mask: Tensor, itemsize: int) -> Choice:
    """The smallest form for the nonzeros in `mask`."""
    if mask.dtype != torch.bool or itemsize not in _BITS:
        raise InputError(
            f"a mask of {mask.dtype} and itemsize {itemsize}", "torch.bool and 1, 2, 4 or 8", "pass weight != 0"
        )
    return smallest(_flat(mask).numpy(), tuple(mask.shape), itemsize)


def _flat(tensor: Tensor) -> Tensor:
    tensor = tensor.detach()
    if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta or tensor.element_size() not in _BITS:
        raise InputError(
            f"a {tensor.layout} tensor of {tensor.dtype} on {tensor.device}",
            "a dense tensor with data and 1, 2, 4 or 8 bytes per element",
            "convert it first (to_dense(), dequantize(), to_empty(), view_as_real())",
        )
    return tensor.cpu().resolve_conj().resolve_neg().contiguous().view(-1)


def _bits(flat: Tensor) -> Tensor:
    return flat.view(_BITS[flat.element_size()])


def _nonzero(flat: Tensor) -> npt.NDArray[np.bool_]:
    found: npt.NDArray[np.bool_] = _bits(flat).numpy() != 0
    return found


def _damaged(given: str, expected: str) -> InputError:
    return InputError(given, expected, "the file is damaged: fetch or save it again")
