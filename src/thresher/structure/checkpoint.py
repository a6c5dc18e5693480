"""A checkpoint folder read tensor by tensor, and its model of transformers built without memory for weights."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor, nn

from thresher.errors import InputError, require

WEIGHTS, INDEX, CONFIG = "model.safetensors", "model.safetensors.index.json", "config.json"


class Checkpoint:
    """The tensors of a folder, in one safetensors file or in several with an index; read when asked for.

    Errors: InputError for a folder without weights, a damaged file or an index that leads out of the folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        if (folder / INDEX).is_file():
            try:
                files: Any = json.loads((folder / INDEX).read_text(encoding="utf-8"))["weight_map"]
                sound = all(Path(file).name == file and (folder / file).is_file() for file in files.values())
            except (ValueError, KeyError, TypeError, AttributeError):
                sound = False
            if not sound:
                raise InputError(f"{folder / INDEX}", "tensor names and files beside it", "write the folder again")
            self.files: Mapping[str, str] = files
        elif (folder / WEIGHTS).is_file():
            self.files = dict.fromkeys(self._open(WEIGHTS), WEIGHTS)
        else:
            raise InputError(f"{folder} without {WEIGHTS}", "a folder with safetensors weights", "correct the path")

    def _open(self, file: str, wanted: set[str] | None = None) -> dict[str, Tensor | None]:
        try:
            with safe_open(self.folder / file, "pt") as stored:  # type: ignore[no-untyped-call]
                names = [name for name in stored.keys() if wanted is None or name in wanted]  # noqa: SIM118
                return {name: None if wanted is None else stored.get_tensor(name) for name in names}
        except SafetensorError as error:
            raise InputError(f"{self.folder / file}: {error}", "a sound safetensors file", "write it again") from error

    def read(self, names: set[str]) -> dict[str, Tensor]:
        """The tensors of `names` that are there."""
        found: dict[str, Tensor] = {}
        for file in sorted({self.files[name] for name in names if name in self.files}):
            for name, tensor in self._open(file, names).items():
                if tensor is not None:
                    found[name] = tensor
        return found

    def fill(self, module: nn.Module, *, prefix: str = "", but: str = "") -> None:
        """Put the stored tensors under `prefix` into `module`, in their own dtype; those under `but` stay as they are.

        Errors: InputError naming parameters that are neither stored nor tied to stored ones, and other shapes.
        """
        own = {
            name: tensor
            for name, tensor in module.state_dict(keep_vars=True).items()
            if not but or not name.startswith(f"{but}.")
        }
        found = {name[len(prefix) :]: tensor for name, tensor in self.read({prefix + name for name in own}).items()}
        wrong = [name for name, tensor in found.items() if tensor.shape != own[name].shape]
        holders: dict[int, list[str]] = {}
        for name, tensor in own.items():
            holders.setdefault(id(tensor), []).append(name)
        missing = [names[0] for names in holders.values() if not any(name in found for name in names)]
        if missing or wrong:
            raise InputError(
                f"{self.folder} without {missing[:3]}, and with {wrong[:3]} in other shapes",
                f"the tensors of this {type(module).__name__}",
                "take weights and config.json from one model",
            )
        for names in holders.values():
            tensor = next(found[name] for name in names if name in found)
            new = nn.Parameter(tensor, requires_grad=False) if isinstance(own[names[0]], nn.Parameter) else tensor
            if isinstance(new, nn.Parameter):
                new.requires_grad_(own[names[0]].requires_grad)
            for name in names:  # ties stay ties
                holder, _, last = name.rpartition(".")
                setattr(module.get_submodule(holder), last, new)


def from_config(folder: Path) -> nn.Module:
    """The model of transformers that config.json in `folder` names, with fresh weights.

    Errors: InputError for another architecture or no config; MissingExtraError without transformers.
    """
    if not (folder / CONFIG).is_file():
        raise InputError(
            f"{folder} without {CONFIG}", "a dense network to cut", "pass load_folder(folder, dense=Network(...))"
        )
    library = require("transformers", extra="hf", why="building the network that config.json describes")
    config = library.AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    name = (config.architectures or [""])[0]
    kind = getattr(library, name, None) if name.isidentifier() else None
    if not (isinstance(kind, type) and issubclass(kind, library.PreTrainedModel)):
        raise InputError(f"architecture {name!r} in {folder / CONFIG}", "a model of transformers", "pass dense=")
    return kind(config)  # type: ignore[no-any-return]


@contextmanager
def parameters_on_meta() -> Iterator[None]:
    """Inside the block new parameters have shapes but no memory; buffers, which configs work out, are real."""
    register = nn.Module.register_parameter

    def bare(module: nn.Module, name: str, parameter: nn.Parameter | None) -> None:
        if parameter is not None and parameter.device.type != "meta":
            parameter = nn.Parameter(parameter.to("meta"), requires_grad=parameter.requires_grad)
        register(module, name, parameter)

    nn.Module.register_parameter = bare  # type: ignore[method-assign, assignment]
    try:
        with torch.no_grad():
            yield
    finally:
        nn.Module.register_parameter = register  # type: ignore[method-assign]
