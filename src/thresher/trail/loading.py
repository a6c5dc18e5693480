"""A stored network into a model of its plain class, all of it or nothing."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TypeVar

from torch import Tensor, nn

from thresher.deploy.storage.state import tensors_of
from thresher.errors import InputError

M = TypeVar("M", bound=nn.Module)


def put(state: Mapping[str, Tensor], model: M) -> M:
    """`model` with the tensors of `state` copied into it.

    Errors: InputError for a model that is being pruned, or whose names, shapes or types differ.
    """
    # Types too: a model in fewer bits would be another network than the one that was measured.
    mine, theirs = (
        {name: (tuple(tensor.shape), tensor.dtype) for name, tensor in each.items()}
        for each in (tensors_of(model), state)
    )
    if mine != theirs:
        wrong = [name for name in {**mine, **theirs} if mine.get(name) != theirs.get(name)]
        first = [f"{name}: {theirs.get(name)} for {mine.get(name)}" for name in wrong[:3]]
        raise InputError(
            f"a {type(model).__name__} in which {len(wrong)} tensors differ ({'; '.join(first)})",
            "the plain model class, shapes and types of the run",
            "build it as for the run, before thresher.prune or after finish()",
        )
    model.load_state_dict(state)
    return model
