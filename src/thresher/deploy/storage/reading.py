"""Reading a file back, trusting nothing in it."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from io import BufferedReader
from math import prod
from pathlib import Path
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from thresher.deploy.storage.blocks import SINGLE
from thresher.deploy.storage.encoding import Encoded, decode, raw
from thresher.deploy.storage.header import DTYPES, MAX_HEADER, Entry, parse, parse_json, sizes
from thresher.deploy.storage.layout import BLANK, DIGEST_KEY, INDEX_SUFFIX, VERSIONS
from thresher.deploy.storage.rounding import widens
from thresher.deploy.storage.state import tensors_of, ties_of
from thresher.errors import InputError

M = TypeVar("M", bound=nn.Module)
_AGAIN = "fetch or save the file again"


def load_state(
    path: str | os.PathLike[str], *, max_bytes: int | None = None
) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """(name -> tensor, record) of a file that `save` wrote; of any other safetensors file, its tensors and {}.

    Tied names get one and the same tensor. `max_bytes` bounds what sparse tensors may unfold to, against a small file
    that claims a huge one; by default the larger of 4 GiB and 256 times the file.

    Errors: InputError for a file that is truncated, altered, newer than this library or not safetensors.
    """
    path = Path(path)
    try:
        size = path.stat().st_size if path.is_file() else -1
        if size < 8:
            raise InputError("no file, or fewer than 8 bytes", "a safetensors file", "check the path")
        with open(path, "rb") as stream:
            return _read(stream, size, max(2**32, 256 * size) if max_bytes is None else max_bytes)
    except InputError as error:
        raise InputError(f"{str(path)!r}: {error.given}", error.expected, error.do) from error
    except (OSError, ValueError) as error:
        raise InputError(f"{str(path)!r} ({error})", "a file that can be read", "check the path") from error


def load(path: str | os.PathLike[str], model: M) -> M:
    """`model`, of the class that was saved, with the tensors of the file copied into it.

    Names and shapes must be those of the file, dtypes too or wider ones; nothing is copied unless everything fits.

    Errors: InputError that lists the first names, shapes or dtypes that differ, and all those of `load_state`.
    """
    own = tensors_of(model)
    if any(value.is_meta for value in own.values()):
        raise InputError("a model on the meta device", "a model with memory", "call model.to_empty(device='cpu') first")
    state, _ = load_state(path, max_bytes=None)
    missing, extra = [n for n in own if n not in state], [n for n in state if n not in own]
    if missing or extra:
        raise InputError(
            f"{str(path)!r} lacks {_first(missing)} and has {_first(extra)} besides",
            f"the {len(own)} names of {type(model).__name__}",
            "build the model as it was when saved (a shrunken one with its plan), or call load_state()",
        )
    for attribute, do in (("shape", "build the model with the shapes of the file"), ("dtype", "call model.to(dtype)")):
        wrong = [n for n in own if getattr(own[n], attribute) != getattr(state[n], attribute)]
        if attribute == "dtype":
            wrong = [n for n in wrong if not widens(state[n].dtype, own[n].dtype)]
        if wrong:
            pairs = [f"{n} {_show(state[n], attribute)} for {_show(own[n], attribute)}" for n in wrong]
            raise InputError(f"{str(path)!r} has {_first(pairs)}", f"each {attribute} as in the model", f"{do} first")
    for alias, owner in ties_of(own).items():
        if state[alias] is not state[owner] and not torch.equal(raw(state[alias]), raw(state[owner])):
            raise InputError(
                f"{str(path)!r} has different values for {owner!r} and {alias!r}",
                "one value, as the model ties them",
                "untie them in the model first",
            )
    model.load_state_dict(state, strict=True)
    return model


def _read(stream: BufferedReader, size: int, limit: int) -> tuple[dict[str, Tensor], dict[str, Any]]:
    prefix = stream.read(8)
    length = int.from_bytes(prefix, "little")
    if length > min(size - 8, MAX_HEADER):
        raise InputError(f"a header of {length} bytes in a file of {size}", "one inside the file", _AGAIN)
    text = stream.read(length)
    entries, metadata = parse(text, size - 8 - length)
    ours = [key for key in ("thresher", DIGEST_KEY) if key in metadata]
    if len(ours) == 1:
        raise InputError(f"metadata with {ours[0]!r} alone", f"both 'thresher' and {DIGEST_KEY!r}", _AGAIN)
    manifest = parse_json(metadata["thresher"]) if ours else {}
    if ours and (manifest.get("version") not in VERSIONS or set(manifest) != {"version", "tensors", "record"}):
        version = f"format version {str(manifest.get('version'))[:20]}"
        raise InputError(
            version, f"version {VERSIONS[0]} to {VERSIONS[-1]} with its fields", "update thresher, or save it again"
        )
    claimed = metadata.get(DIGEST_KEY, BLANK)
    digest = hashlib.sha256(prefix + text.replace(f'"{DIGEST_KEY}":"{claimed}"'.encode(), _BLANKED, 1))
    arrays = {}
    for entry in entries:
        buffer = torch.empty(entry.nbytes, dtype=torch.uint8)
        view: Any = buffer.numpy()
        if entry.nbytes and stream.readinto(view) != entry.nbytes:
            raise InputError("a file that ended early", f"{size} bytes", _AGAIN)
        digest.update(view)
        arrays[entry.name] = _typed(buffer, entry)
    if not ours:
        return arrays, {}
    if digest.hexdigest() != claimed:
        raise InputError(
            f"sha256 {claimed[:64]!r}", f"{digest.hexdigest()!r}, that of the content", f"altered: {_AGAIN}"
        )
    tensors, record = manifest["tensors"], manifest["record"]
    if not isinstance(tensors, dict) or not isinstance(record, dict):
        raise InputError("a manifest whose tensors or record is no object", "JSON objects", _AGAIN)
    return _assemble(tensors, arrays, limit), record


_BLANKED = f'"{DIGEST_KEY}":"{BLANK}"'.encode()


def _assemble(tensors: Mapping[str, Any], arrays: dict[str, Tensor], limit: int) -> dict[str, Tensor]:
    state: dict[str, Tensor] = {}
    used: set[str] = set()
    for name, fields in tensors.items():
        if not isinstance(fields, dict):
            raise _unfit(name, fields)
        if isinstance(fields.get("tie"), str):
            if fields["tie"] not in state:
                raise _unfit(name, fields)
            state[name] = state[fields["tie"]]
            continue
        form, parts = _form(name, fields, arrays)
        used.update(parts)
        if form.encoding != "dense":
            limit -= prod(form.shape) * form.values.element_size()
        if limit < 0:
            raise InputError(
                f"{name!r} of shape {list(form.shape)[:8]}", "fewer bytes", "pass a larger max_bytes to load_state"
            )
        state[name] = decode(form)
    if used != set(arrays):
        raise _unfit(_first(sorted(set(arrays) - used)), "nothing in the manifest")
    return state


def _form(name: str, fields: dict[str, Any], arrays: Mapping[str, Tensor]) -> tuple[Encoded, list[str]]:
    encoding = fields.get("encoding")
    none = torch.empty(0, dtype=torch.uint8)
    if encoding == "dense" and name in arrays:
        values = arrays[name]
        return Encoded(encoding=encoding, shape=tuple(values.shape), index=none, values=values), [name]
    suffix = INDEX_SUFFIX.get(encoding) if isinstance(encoding, str) else None
    shape, block = sizes(fields.get("shape")), sizes(fields.get("block", list(SINGLE)))
    index, values = arrays.get(name + str(suffix)), arrays.get(name + "#values", none)
    numbers = {
        "width": fields.get("width", 0),
        "count": fields.get("count", values.numel()),
        "keep": fields.get("keep", 0),
        "of": fields.get("of", 0),
    }
    plain = all(type(number) is int and 0 <= number < 2**63 for number in numbers.values())
    if suffix is not None and shape is not None and block is not None and len(block) == 2 and plain:
        flat = index is not None and index.dtype == torch.uint8 and index.dim() == values.dim() == 1
        named = name + "#values" in arrays and DTYPES.get(str(fields.get("dtype"))) == values.dtype
        if index is not None and flat and named:
            form = Encoded(
                encoding=str(encoding), shape=shape, index=index, values=values, block=(block[0], block[1]), **numbers
            )
            return form, [name + suffix, name + "#values"]
    raise _unfit(name, fields)


def _typed(buffer: Tensor, entry: Entry) -> Tensor:
    if entry.dtype == torch.bool and bool((buffer > 1).any()):
        raise InputError(f"{entry.name!r} with booleans that are neither 0 nor 1", "0 or 1", _AGAIN)
    try:
        return buffer.view(entry.dtype).view(entry.shape)
    except RuntimeError as error:
        raise InputError(
            f"{entry.name!r} of shape {list(entry.shape)[:8]}", "a shape that can be built", _AGAIN
        ) from error


def _show(tensor: Tensor, attribute: str) -> str:
    return str(list(tensor.shape)) if attribute == "shape" else str(tensor.dtype)


def _first(names: list[str]) -> str:
    return (", ".join(names[:3]) + (f" and {len(names) - 3} more" if len(names) > 3 else "")) or "nothing"


def _unfit(name: str, fields: object) -> InputError:
    return InputError(
        f"tensor {name[:80]!r} described by {str(fields)[:120]}", "a description that fits the entries", _AGAIN
    )
