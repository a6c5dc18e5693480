"""A folder of the transformers library, loaded again and compared bit for bit before it appears."""

from __future__ import annotations

import importlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from thresher.deploy.export.outcome import Exported, appearing, real, size_of
from thresher.deploy.storage.encoding import raw
from thresher.deploy.storage.state import refuse_parametrized
from thresher.errors import InputError


def export_huggingface(model: nn.Module, folder: str | os.PathLike[str]) -> Exported:
    """Write `model` with its own `save_pretrained` (config.json and dense safetensors), for `from_pretrained`.

    Zeros are stored as zeros; `thresher.save` writes the small file. Channels that were cut out are not in the
    configuration, so a shrunk model cannot be written this way.

    Errors: InputError for a model of another library, and for one that does not come back with equal tensors.
    """
    network: Any = model
    if not callable(getattr(network, "save_pretrained", None)) or not hasattr(network, "config"):
        raise InputError(
            f"a {type(model).__name__}, which has no save_pretrained",
            "a model of the transformers library",
            "export it as onnx or torch, or write it with thresher.save",
        )
    refuse_parametrized(network)
    with appearing(folder, folder=True) as place:
        with _no_bars():
            network.save_pretrained(place)
            _compare(network, _again(network, place))
        size = size_of(place)
    return Exported(path=real(folder), format="hf", bytes=size, difference=0.0, checked=())


@contextmanager
def _no_bars() -> Iterator[None]:
    """The library draws progress bars on stderr unless it is told not to."""
    logging: Any = importlib.import_module("transformers.utils.logging")
    shown = logging.is_progress_bar_enabled()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        if shown:
            logging.enable_progress_bar()


def _again(network: Any, place: Path) -> Any:
    try:
        return type(network).from_pretrained(place, local_files_only=True, use_safetensors=True)
    except Exception as error:  # sizes that differ raise errors of several kinds
        reason = next((line for line in str(error).splitlines() if line.strip()), "")
        raise InputError(
            f"a {type(network).__name__} that its folder does not give back ({type(error).__name__}: {reason[:200]})",
            "the layers that its configuration describes",
            "write a shrunk model with thresher.save(model, path, plan=...), or export it as onnx",
        ) from error


def _compare(network: Any, again: Any) -> None:
    ours, theirs = network.state_dict(), again.state_dict()
    wrong = [
        name
        for name, tensor in ours.items()
        if name not in theirs
        or theirs[name].shape != tensor.shape
        or not torch.equal(raw(theirs[name].to(tensor.dtype).cpu()), raw(tensor.detach().cpu()))
    ]
    if wrong:
        raise InputError(
            f"a folder that gives back other tensors for {', '.join(wrong[:3])}",
            "equal tensors",
            "save it with thresher.save, whose files hold any tensor",
        )
