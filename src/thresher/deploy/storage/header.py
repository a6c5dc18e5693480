"""The safetensors container: 8 bytes of length, a JSON header padded to a multiple of 8, then the payload."""

from __future__ import annotations

import json
import struct
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from math import prod
from typing import Any

import torch

from thresher.errors import InputError

MAX_HEADER = 100_000_000  # the limit of the safetensors library itself
DTYPES = {
    "BOOL": torch.bool,
    "U8": torch.uint8,
    "I8": torch.int8,
    "U16": torch.uint16,
    "I16": torch.int16,
    "U32": torch.uint32,
    "I32": torch.int32,
    "U64": torch.uint64,
    "I64": torch.int64,
    "F8_E4M3": torch.float8_e4m3fn,
    "F8_E5M2": torch.float8_e5m2,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "F32": torch.float32,
    "F64": torch.float64,
    "C64": torch.complex64,
}
NAMES = {dtype: name for name, dtype in DTYPES.items()}


@dataclass(frozen=True)
class Entry:
    """One array of the payload."""

    name: str
    dtype: torch.dtype
    shape: tuple[int, ...]

    @property
    def nbytes(self) -> int:
        return prod(self.shape) * self.dtype.itemsize


def build(entries: Iterable[Entry], metadata: Mapping[str, str]) -> bytes:
    """Length and header for `entries` that lie one after the other, in this order.

    >>> len(build([Entry("a", torch.float32, (2, 3))], {"format": "pt"}))
    96

    Errors: InputError when the header exceeds the 100 MB that readers accept.
    """
    table: dict[str, Any] = {"__metadata__": dict(metadata)}
    begin = 0
    for entry in entries:
        end = begin + entry.nbytes
        table[entry.name] = {"dtype": NAMES[entry.dtype], "shape": list(entry.shape), "data_offsets": [begin, end]}
        begin = end
    text = json.dumps(table, separators=(",", ":")).encode("ascii")
    text += b" " * (-len(text) % 8)
    if len(text) > MAX_HEADER:
        raise InputError(f"a header of {len(text)} bytes", f"at most {MAX_HEADER}", "store a shorter record")
    return struct.pack("<Q", len(text)) + text


def parse(text: bytes, payload: int) -> tuple[list[Entry], dict[str, str]]:
    """Entries in payload order, and the metadata, of a header whose payload has `payload` bytes.

    >>> parse(build([Entry("a", torch.float32, (2, 3))], {})[8:], 24)
    ([Entry(name='a', dtype=torch.float32, shape=(2, 3))], {})

    Errors: InputError unless the entries fill the payload without holes or overlaps, each with the bytes of its shape.
    """
    table = parse_json(text)
    metadata = table.pop("__metadata__", {})
    if not isinstance(metadata, dict) or not all(isinstance(value, str) for value in metadata.values()):
        raise _not_ours("metadata that is not strings")
    placed = sorted((_placed(name, fields) for name, fields in table.items()), key=lambda item: item[:2])
    at = 0
    for begin, end, entry in placed:
        if begin != at or end - begin != entry.nbytes:
            raise _not_ours(f"entry {entry.name!r} at bytes {begin} to {end}, of {entry.nbytes} bytes by its shape")
        at = end
    if at != payload:
        raise _not_ours(f"a payload of {payload} bytes where the header lists {at}")
    return [entry for _, _, entry in placed], metadata


def parse_json(text: bytes | str) -> dict[str, Any]:
    """A JSON object, without repeated keys, NaN or bottomless nesting; InputError otherwise."""
    try:
        table = json.loads(text, object_pairs_hook=_unique, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise _not_ours(f"no JSON ({str(error)[:80]})") from error
    if not isinstance(table, dict):
        raise _not_ours(f"a JSON {type(table).__name__}")
    return table


def sizes(value: object) -> tuple[int, ...] | None:
    """A list of sizes from JSON, or None when it is anything else.

    >>> sizes([2, 0]), sizes([2.0]), sizes([True]), sizes([-1]), sizes([2**63])
    ((2, 0), None, None, None, None)
    """
    if isinstance(value, list) and len(value) <= 64 and all(type(v) is int and 0 <= v < 2**63 for v in value):
        return tuple(value)
    return None


def _placed(name: str, fields: object) -> tuple[int, int, Entry]:
    if isinstance(fields, dict) and set(fields) == {"dtype", "shape", "data_offsets"}:
        shape, offsets = sizes(fields["shape"]), sizes(fields["data_offsets"])
        dtype = DTYPES.get(fields["dtype"]) if isinstance(fields["dtype"], str) else None
        if shape is not None and offsets is not None and len(offsets) == 2 and dtype is not None:
            return offsets[0], offsets[1], Entry(name, dtype, shape)
    raise _not_ours(f"entry {name[:80]!r} described by {str(fields)[:120]}")


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("a key appears twice")
    return found


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is not JSON")


def _not_ours(given: str) -> InputError:
    return InputError(
        f"a header with {given}",
        f"a safetensors header whose entries ({', '.join(DTYPES)}) fill the payload exactly",
        "the file is damaged or not a safetensors file: fetch or save it again",
    )
