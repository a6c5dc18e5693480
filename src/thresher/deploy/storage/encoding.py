"""One tensor as bytes: dense, bitmask + values or gaps + values, whichever is smallest.

    dense    n·s                    s = bytes per element, n = elements
    bitmask  ⌈n/8⌉ + z·s            z = elements that are not all-zero bits
    gaps     rice(gaps) + z·s       see gaps.py; tried when z < n/2 (above, its best width is 0, which is the bitmask)

"Nonzero" means that some bit is set, so −0.0 and NaN are stored and come back bit for bit. A sparse form has two
entries in the file's header instead of one; it is taken only when it saves more than those `HEADER_COST` bytes.
"""

from __future__ import annotations

from dataclasses import dataclass
from math import prod

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from thresher.deploy.storage.gaps import Indices, gaps_of, pack, rice_size, unpack
from thresher.errors import InputError

HEADER_COST = 160  # measured: 120 to 176 bytes, by the length of the name
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}


@dataclass(frozen=True, kw_only=True)
class Choice:
    """The smallest form of a tensor: `index` bytes say where the `nonzero` values are (0 for dense)."""

    encoding: str
    nonzero: int
    index: int
    width: int
    bytes: int


@dataclass(frozen=True, kw_only=True)
class Encoded:
    """A tensor in its stored form; `index` is uint8 (n,), `values` has the tensor's dtype (if dense, its shape)."""

    encoding: str
    shape: tuple[int, ...]
    width: int
    index: Tensor
    values: Tensor

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
    choice, gaps = _choose(nonzero, tensor.element_size())
    shape = tuple(tensor.shape)
    if choice.encoding == "dense":
        none = torch.empty(0, dtype=torch.uint8)
        return Encoded(encoding="dense", shape=shape, width=0, index=none, values=flat.view(shape))
    index = np.packbits(nonzero, bitorder="little") if gaps is None else pack(gaps, choice.width)
    values = torch.from_numpy(_bits(flat).numpy()[nonzero]).view(tensor.dtype)
    return Encoded(
        encoding=choice.encoding, shape=shape, width=choice.width, index=torch.from_numpy(index), values=values
    )


def decode(form: Encoded) -> Tensor:
    """The tensor that `encode` was given, bit for bit.

    >>> decode(encode(torch.tensor([0.0, -0.0, 3.0])))
    tensor([0., -0., 3.])

    Errors: InputError when index, values and shape do not belong together. The caller bounds prod(shape).
    """
    numel, values = prod(form.shape), form.values
    if form.encoding == "dense":
        return values
    index = form.index.numpy()
    if form.encoding == "bitmask":
        if index.size != -(-numel // 8):
            raise _damaged(f"a mask of {index.size} bytes", f"{-(-numel // 8)} bytes for {numel} elements")
        where = np.flatnonzero(np.unpackbits(index, bitorder="little"))
        if where.size != values.numel() or (where.size and int(where[-1]) >= numel):
            raise _damaged(f"a mask with {where.size} bits set", f"{values.numel()}, one per value, below {numel}")
    else:
        where = unpack(index, count=values.numel(), width=form.width, numel=numel)
    try:
        flat = torch.zeros(numel, dtype=values.dtype)
        _bits(flat).numpy()[where] = _bits(values).numpy()
        return flat.view(form.shape)
    except (RuntimeError, MemoryError, OverflowError, ValueError) as error:
        raise _damaged(f"a tensor of shape {list(form.shape)[:8]} ({error})", "a shape that can be built") from error


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
    return _choose(_nonzero(_flat(tensor)), tensor.element_size())[0]


def choose_for_mask(mask: Tensor, itemsize: int) -> Choice:
    """The smallest form for the nonzeros in `mask`."""
    if mask.dtype != torch.bool or itemsize not in _BITS:
        raise InputError(
            f"a mask of {mask.dtype} and itemsize {itemsize}", "torch.bool and 1, 2, 4 or 8", "pass weight != 0"
        )
    return _choose(_flat(mask).numpy(), itemsize)[0]


def _choose(nonzero: npt.NDArray[np.bool_], itemsize: int) -> tuple[Choice, Indices | None]:
    numel, count = nonzero.size, int(np.count_nonzero(nonzero))
    values, limit = count * itemsize, numel * itemsize - HEADER_COST
    best = Choice(encoding="dense", nonzero=count, index=0, width=0, bytes=numel * itemsize)
    if values + count // 8 >= limit:  # a nonzero costs a bit at least, in either form
        return best, None
    mask = -(-numel // 8)
    if values + mask < limit:
        best = Choice(encoding="bitmask", nonzero=count, index=mask, width=0, bytes=values + mask)
    if 2 * count < numel:
        gaps: Indices = gaps_of(nonzero)
        width, index = rice_size(gaps)
        if values + index < min(best.bytes, limit):
            return Choice(encoding="gaps", nonzero=count, index=index, width=width, bytes=values + index), gaps
    return best, None


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
