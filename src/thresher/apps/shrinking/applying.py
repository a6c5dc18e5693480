"""A plan applied to saved dense weights."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from thresher.apps.data import load_data
from thresher.apps.train.network import load_network
from thresher.deploy.storage import save
from thresher.shrinking.composing import composed
from thresher.structure import ShrinkPlan


def apply_plan(
    plan: ShrinkPlan,
    weights: str,
    out: Path,
    *,
    model: str | None = None,
    data: str | None = None,
    data_root: Path | None = None,
) -> dict[str, Any]:
    """Cut the network in `weights` by `plan` and write it, with its plan, to `out`.

    Errors: InputError for weights that cannot be read, and for a network that the plan was not made for.
    """
    split = None if data is None else load_data(data, root=data_root, limit=1)
    network = load_network(
        model,
        weights,
        num_classes=None if split is None else len(split.classes),
        input_shape=None if split is None else split.input_shape,
    )
    small = plan.apply(network.model)
    whole = plan if network.plan is None else composed(network.plan, plan)
    normalisation = network.normalisation or ((split.mean, split.std) if split is not None else ((0.0,), (1.0,)))
    record = replace(network, model=small, plan=whole).record(normalisation)
    file = save(small, out, record=record)
    return {
        "out": str(out),
        "bytes": file.bytes,
        "params": sum(parameter.numel() for parameter in small.parameters()),
        "total_params": sum(parameter.numel() for parameter in network.model.parameters()),
        "plan": whole.to_dict(),
    }
