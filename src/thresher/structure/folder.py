"""A shrunk network as a folder without pickle: config.json, shrink-plan.json, model.safetensors."""

from __future__ import annotations

import copy
import os
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from thresher.errors import InputError
from thresher.structure.checkpoint import WEIGHTS, Checkpoint, from_config
from thresher.structure.plan import ShrinkPlan

PLAN = "shrink-plan.json"


def save_folder(model: nn.Module, plan: ShrinkPlan, folder: str | os.PathLike[str]) -> None:
    """Write a shrunk `model` and the `plan` that made it; a transformers model gets the config.json of the dense one.

    Tied tensors are written once. Errors: InputError when the model is not as small as the plan says.

    >>> import tempfile
    >>> from thresher.structure.cuts import Cut, GroupPlan
    >>> cuts = (Cut(module="0", axis="out", size=3, keep=(0, 2)), Cut(module="1", axis="in", size=3, keep=(0, 2)))
    >>> plan = ShrinkPlan(model="Sequential", groups=(GroupPlan(name="0", units=3, keep=(0, 2), cuts=cuts),))
    >>> dense = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     save_folder(plan.apply(dense), plan, folder)
    ...     load_folder(folder, dense)[1].in_features
    2
    """
    plan.check_cut(model)
    place = Path(folder)
    place.mkdir(parents=True, exist_ok=True)
    save_file(_stored(model), place / WEIGHTS, metadata={"format": "pt"})
    (place / PLAN).write_text(plan.to_json(), encoding="utf-8")
    write_config(model, place)


def load_folder(folder: str | os.PathLike[str], dense: nn.Module | None = None) -> nn.Module:
    """The shrunk network that `save_folder` wrote, in eval mode.

    Args:
        dense: a dense network of the class and configuration that was shrunk; it is left as it is. Not needed for
            transformers models, whose class and sizes config.json names.

    Errors: InputError for files that are missing or do not fit together; MissingExtraError without transformers.
    """
    place = Path(folder)
    if not (place / PLAN).is_file():
        raise InputError(f"{place} without {PLAN}", "a folder that save_folder wrote", "correct the path")
    plan = ShrinkPlan.from_json((place / PLAN).read_text(encoding="utf-8"))
    files = Checkpoint(place)
    if dense is None:
        model = from_config(place)
        plan.cut(model)
    else:
        model = plan.apply(dense)
    strange = sorted(set(files.files) - set(model.state_dict()))
    if strange:
        raise InputError(f"{place} with {strange[:3]}", "the tensors of the network after the plan", "take another")
    files.fill(model)
    return model.eval()


def write_config(model: nn.Module, place: Path) -> None:
    """config.json and generation settings of a model of transformers; nothing for others."""
    config: Any = getattr(model, "config", None)
    if not hasattr(config, "save_pretrained"):
        return
    config = copy.deepcopy(config)
    config.architectures = [type(model).__name__]
    config.save_pretrained(place)
    if getattr(model, "generation_config", None) is not None:
        model.generation_config.save_pretrained(place)  # type: ignore[operator, union-attr]


def _stored(model: nn.Module) -> dict[str, Tensor]:
    seen: set[int] = set()
    state = {}
    for name, tensor in model.state_dict(keep_vars=True).items():
        if id(tensor) not in seen:
            seen.add(id(tensor))
            state[name] = tensor.detach().to("cpu").clone(memory_format=torch.contiguous_format)
    return state
