"""Where everything lies in a file, and so how long the file is, before any of it is encoded.

The header's metadata holds three texts: "format" ("pt", as other tools expect), "thresher" (JSON: version, tensors,
record) and "thresher.sha256", the digest of the whole file with that digest's 64 digits read as zeros. A tensor is
listed as

    {"encoding": "dense"}                                                stored under NAME, shape and dtype in its entry
    {"encoding": "bitmask", "shape": [...], "dtype": "F32"}              NAME#mask, NAME#values
    {"encoding": "gaps", "width": 3, "shape": [...], "dtype": "F32"}     NAME#gaps, NAME#values
    {"encoding": "n:m", "keep": 2, "of": 4, "shape": ..., "dtype": ...}  NAME#pattern, NAME#values
    {"tie": "OTHER"}                                                     the same tensor as OTHER

where bitmask and gaps may cover blocks, {..., "block": [4, 1]}, and gaps then say how many they are, {..., "count": 7}.
Version 1 of the format has neither n:m nor blocks; a file that needs neither is written as version 1.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from thresher.deploy.storage.blocks import SINGLE
from thresher.deploy.storage.choosing import Choice
from thresher.deploy.storage.encoding import choose, choose_for_mask
from thresher.deploy.storage.header import NAMES, Entry, build
from thresher.deploy.storage.rounding import rounded
from thresher.deploy.storage.state import tensors_of, ties_of
from thresher.errors import InputError

VERSIONS = (1, 2)
DIGEST_KEY = "thresher.sha256"
BLANK = "0" * 64
INDEX_SUFFIX = {"bitmask": "#mask", "gaps": "#gaps", "n:m": "#pattern"}


@dataclass(frozen=True, kw_only=True)
class Layout:
    """The header (with its length, the digest blank), the entries in payload order, and the size of the file."""

    header: bytes
    entries: list[Entry]
    bytes: int


def lay_out(
    state: Mapping[str, Tensor], choices: Mapping[str, Choice], ties: Mapping[str, str], record: dict[str, Any] | None
) -> Layout:
    """The layout of `state` in the forms `choices`; wide elements first, so that every array is aligned."""
    tensors: dict[str, dict[str, Any]] = {}
    entries: list[Entry] = []
    for name, tensor in state.items():
        if name in ties:
            tensors[name] = {"tie": ties[name]}
            continue
        choice, shape = choices[name], tuple(tensor.shape)
        tensors[name] = {"encoding": choice.encoding}
        if choice.encoding == "dense":
            entries.append(Entry(name, tensor.dtype, shape))
            continue
        if choice.encoding == "gaps":
            tensors[name]["width"] = choice.width
        if choice.encoding == "n:m":
            tensors[name] |= {"keep": choice.keep, "of": choice.of}
        if choice.block != SINGLE:
            tensors[name]["block"] = list(choice.block)
            if choice.encoding == "gaps":
                tensors[name]["count"] = choice.count
        tensors[name] |= {"shape": list(shape), "dtype": NAMES[tensor.dtype]}
        entries.append(Entry(name + INDEX_SUFFIX[choice.encoding], torch.uint8, (choice.index,)))
        entries.append(Entry(name + "#values", tensor.dtype, (choice.stored,)))
    entries.sort(key=lambda entry: -entry.dtype.itemsize)
    newer = any("block" in fields or "keep" in fields for fields in tensors.values())
    manifest = {"version": VERSIONS[newer], "tensors": tensors, "record": _checked(record)}
    text = json.dumps(manifest, separators=(",", ":"))
    header = build(entries, {"format": "pt", "thresher": text, DIGEST_KEY: BLANK})
    return Layout(header=header, entries=entries, bytes=len(header) + sum(entry.nbytes for entry in entries))


def predicted_file_bytes(
    model_or_state: nn.Module | Mapping[str, Tensor],
    *,
    keep: Mapping[str, Tensor] | None = None,
    record: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
) -> int:
    """Size of the file that `save` would write, to the byte, header and `record` included.

    `keep` maps names to boolean masks of the same shape: that tensor is taken as nonzero exactly where its mask is
    True, and its own values are not looked at (so it may be a meta tensor). For the prediction to hold, what is cut
    must be +0.0, as `torch.where(keep, weight, 0)` gives; `weight * keep` leaves −0.0, which is stored. `record` must
    be the one that is saved (with a plan, a report or a config: `file_record(...)`), or one whose JSON is as long.
    `dtype`: as for `save`; a mask cannot know which values float16 rounds to zero.

    >>> state = {"w": torch.ones(100, 100)}
    >>> predicted_file_bytes(state), predicted_file_bytes(state, keep={"w": torch.eye(100, dtype=torch.bool)})
    (40280, 892)

    Errors: InputError for an unknown name, or for a mask that is not boolean or has another shape.
    """
    state, keep = rounded(tensors_of(model_or_state), dtype), dict(keep or {})
    for name, mask in keep.items():
        if name not in state or mask.dtype != torch.bool or mask.shape != state[name].shape:
            has = f"shape {list(state[name].shape)}" if name in state else f"one of {list(state)[:3]} ..."
            raise InputError(
                f"keep[{name!r}] of {mask.dtype}, shape {list(mask.shape)}", f"torch.bool, {has}", "pass weight != 0"
            )
    ties = ties_of(state)
    for alias, owner in ties.items():
        if alias in keep and not torch.equal(keep.setdefault(owner, keep[alias]), keep[alias]):
            raise InputError(f"two masks for {owner!r} and {alias!r}", "one, as they are one tensor", "pass either")
    choices = {
        name: choose_for_mask(keep[name], tensor.element_size()) if name in keep else choose(tensor)
        for name, tensor in state.items()
        if name not in ties
    }
    return lay_out(state, choices, ties, record).bytes


def _checked(record: dict[str, Any] | None) -> dict[str, Any]:
    try:
        copy = json.loads(json.dumps({} if record is None else record, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise _no_record(f"a record that JSON cannot hold ({error})") from error
    if not isinstance(copy, dict):
        raise _no_record(f"a record of type {type(record).__name__}")
    return copy


def _no_record(given: str) -> InputError:
    return InputError(given, "a dict of texts, finite numbers, booleans, None, lists and dicts", "convert it first")
