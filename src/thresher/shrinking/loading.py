"""`thresher.load`: the tensors of a file into a model; a file that was shrunk cuts a dense model first."""

from __future__ import annotations

import os
from typing import TypeVar, cast

from torch import nn

from thresher.deploy.storage import load as load_tensors
from thresher.deploy.storage import load_state
from thresher.errors import InputError
from thresher.structure import ShrinkPlan

M = TypeVar("M", bound=nn.Module)


def load(path: str | os.PathLike[str], model: M) -> M:
    """`model` with the tensors of a file that `thresher.save` wrote.

    A plain file, or one whose shapes `model` has already: they are copied into `model`, which is returned. A file with
    a plan (`save(..., plan=...)`) and a dense `model`: a new, smaller model, cut by the plan, with the tensors of the
    file; `model` is left as it is. Reading never runs anything that the file says.

    >>> import tempfile
    >>> from thresher.deploy.storage import save
    >>> from thresher.structure import Cut, GroupPlan
    >>> cuts = (Cut(module="0", axis="out", size=3, keep=(0, 2)), Cut(module="1", axis="in", size=3, keep=(0, 2)))
    >>> plan = ShrinkPlan(model="Sequential", groups=(GroupPlan(name="0", units=3, keep=(0, 2), cuts=cuts),))
    >>> dense = nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 1))
    >>> folder = tempfile.TemporaryDirectory()
    >>> _ = save(plan.apply(dense), folder.name + "/small.safetensors", plan=plan)
    >>> load(folder.name + "/small.safetensors", dense)[1].in_features
    2

    Errors: InputError for a file that is damaged or does not fit, and for a plan that is none or fits another model.
    """
    state, record = load_state(path)
    own = model.state_dict()
    if "plan" not in record or all(name in own and own[name].shape == state[name].shape for name in state):
        return load_tensors(path, model)
    try:
        small = ShrinkPlan.from_dict(record["plan"]).apply(model)
    except InputError as error:
        raise InputError(f"the plan in {str(path)!r}: {error.given}", error.expected, error.do) from error
    return load_tensors(path, cast(M, small))
