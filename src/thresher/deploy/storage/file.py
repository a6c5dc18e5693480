"""Writing a file that is as small as its zeros allow, in one piece or not at all."""

from __future__ import annotations

import hashlib
import os
import secrets
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from thresher.deploy.storage.about import file_record
from thresher.deploy.storage.choosing import Choice
from thresher.deploy.storage.encoding import Encoded, encode, raw
from thresher.deploy.storage.layout import BLANK, DIGEST_KEY, INDEX_SUFFIX, lay_out
from thresher.deploy.storage.rounding import rounded
from thresher.deploy.storage.state import tensors_of, ties_of
from thresher.errors import InputError


@dataclass(frozen=True, kw_only=True)
class FileReport:
    """What was written: the size of the file, the bytes of the model's tensors (tied ones once), their forms."""

    path: Path
    bytes: int
    dense_bytes: int
    encodings: dict[str, str] = field(default_factory=dict)
    ties: dict[str, str] = field(default_factory=dict)


def save(
    model_or_state: nn.Module | Mapping[str, Tensor],
    path: str | os.PathLike[str],
    *,
    record: dict[str, Any] | None = None,
    dtype: torch.dtype | None = None,
    plan: Any = None,
    report: Any = None,
    config: Any = None,
) -> FileReport:
    """A safetensors file in which each tensor is stored in its smallest form (see encoding.py, layout.py), bit for bit.

    The file appears whole or not at all: it is written under a temporary name in the same folder, flushed to the
    disk, and renamed. Tied tensors are stored once.

    Args:
        record: any JSON object; `load_state` hands it back.
        dtype: torch.bfloat16 or torch.float16 rounds matrices and kernels first (rounding.py); `load` widens them.
        plan: how the model was shrunk, from which `thresher.load` cuts a dense model again.
        report, config: what pruning reached, and the settings behind it. All three go into the record (about.py).

    >>> import tempfile, torch
    >>> folder = tempfile.TemporaryDirectory()
    >>> report = save({"w": torch.eye(100)}, folder.name + "/w.safetensors", record={"sparsity": 0.99})
    >>> report.bytes, report.dense_bytes, report.encodings
    (908, 40000, {'w': 'gaps'})

    Errors: InputError for a model that is not finished, for a value that is no plain tensor, for a path that cannot
    be written.
    """
    given = tensors_of(model_or_state)
    state = rounded(given, dtype)
    record = file_record(record, plan=plan, report=report, config=config)
    ties = ties_of(state)
    forms = {name: encode(tensor) for name, tensor in state.items() if name not in ties}
    choices = {name: _choice(form) for name, form in forms.items()}
    layout = lay_out(state, choices, ties, record)
    arrays = _arrays(forms)
    payload = [arrays[entry.name] for entry in layout.entries]
    digest = hashlib.sha256(layout.header)
    for array in payload:
        digest.update(_raw(array))
    blank, filled = (f'"{DIGEST_KEY}":"{value}"'.encode() for value in (BLANK, digest.hexdigest()))
    _write(path, [layout.header.replace(blank, filled, 1), *(_raw(array) for array in payload)])
    return FileReport(
        path=Path(path),
        bytes=layout.bytes,
        dense_bytes=sum(given[name].nbytes for name in forms),
        encodings={name: choice.spelling for name, choice in choices.items()},
        ties=ties,
    )


def _choice(form: Encoded) -> Choice:
    stored, index = form.values.numel(), form.index.numel()
    shared = {name: getattr(form, name) for name in ("encoding", "width", "count", "block", "keep", "of")}
    return Choice(stored=stored, index=index, bytes=form.nbytes, **shared)


def _arrays(forms: Mapping[str, Encoded]) -> dict[str, Tensor]:
    arrays = {}
    for name, form in forms.items():
        if form.encoding == "dense":
            arrays[name] = form.values
        else:
            arrays[name + INDEX_SUFFIX[form.encoding]] = form.index
            arrays[name + "#values"] = form.values
    return arrays


def _raw(array: Tensor) -> memoryview:
    array_bytes: Any = raw(array).numpy()
    return memoryview(array_bytes)


def _write(path: str | os.PathLike[str], chunks: Iterable[bytes | memoryview]) -> None:
    # Not tempfile.mkstemp: its file is readable by the owner only, whatever the umask says.
    try:
        target = Path(os.path.realpath(path))  # a link is written through, not replaced
        temporary = target.with_name(f".{target.name}.{secrets.token_hex(8)}.tmp")
        if target.is_dir():
            raise IsADirectoryError(f"{target} is a folder")
        stream = open(temporary, "xb")  # noqa: SIM115  (closed below; an error here is the caller's path)
    except (OSError, ValueError) as error:
        raise InputError(
            f"path {str(path)!r} ({error})", "a file in a folder that can be written", "correct it"
        ) from error
    try:
        with stream:
            for chunk in chunks:
                stream.write(chunk)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if hasattr(os, "O_DIRECTORY"):  # make the new name itself survive a power cut, where folders can be flushed
        folder = os.open(target.parent, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(folder)
        except OSError:
            pass  # some network file systems refuse; the file itself is safe
        finally:
            os.close(folder)
