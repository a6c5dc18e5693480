"""A state of plain containers and tensors as one tensor of bytes, the same bytes for the same state."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

import safetensors.torch
import torch
from torch import Tensor

_TEXT = "text"


def pack(state: Mapping[str, Any]) -> Tensor:
    """The bytes of a state, uint8, on the CPU; no pickle.

    Trainers move what they save and load to their device, where not every type exists: bytes exist everywhere.

    >>> unpack(pack({"moved": [0.5, None], "mask": torch.tensor([True, False])}))
    {'moved': [0.5, None], 'mask': tensor([ True, False])}
    """
    tensors: dict[str, Tensor] = {}

    def plain(value: Any) -> Any:
        if isinstance(value, Tensor):
            name = str(len(tensors))
            tensors[name] = value.detach().cpu().clone(memory_format=torch.contiguous_format)
            return {"tensor": name}
        if isinstance(value, Mapping):
            return {"items": [[key, plain(each)] for key, each in value.items()]}
        if isinstance(value, (list, tuple)):
            return {type(value).__name__: [plain(each) for each in value]}
        return value

    text = json.dumps(plain(state)).encode()
    tensors[_TEXT] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    return torch.frombuffer(bytearray(safetensors.torch.save(tensors)), dtype=torch.uint8)


def unpack(packed: Tensor) -> dict[str, Any]:
    """What `pack` took, its tensors on the CPU."""
    tensors = safetensors.torch.load(packed.cpu().numpy().tobytes())

    def whole(value: Any) -> Any:
        if not isinstance(value, dict):
            return value
        ((kind, inner),) = value.items()
        if kind == "tensor":
            return tensors[inner]
        if kind == "items":
            return {key: whole(each) for key, each in inner}
        found = [whole(each) for each in inner]
        return tuple(found) if kind == "tuple" else found

    state: dict[str, Any] = whole(json.loads(tensors[_TEXT].numpy().tobytes()))
    return state
