"""Saved networks with whole zero channels, made smaller without a change of what they compute."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from thresher.apps.train.ending.evaluate import accuracy
from thresher.apps.train.ending.measuring import Saved
from thresher.deploy.storage import save
from thresher.shrinking import channel_rules, compact
from thresher.shrinking.composing import composed

_EXAMPLE = 8


def example_of(saved: Saved) -> torch.Tensor:
    """A few test images."""
    return next(iter(saved.test))[0][:_EXAMPLE]


def compact_saved(saved: Saved, out: Path) -> dict[str, Any]:
    """Cut the zero channels of a saved network and write what is left, with its plan, to `out`.

    Returns: widths cut, layers folded into, groups left whole, accuracy before and after, parameters, bytes.
    """
    found = compact(saved.model, example_of(saved))
    before, after = accuracy(saved.model, saved.test), accuracy(found.model, saved.test)
    earlier = saved.network.plan
    plan = found.plan if earlier is None else composed(earlier, found.plan)
    network = replace(saved.network, model=found.model, plan=plan)
    file = save(found.model, out, record=network.record(saved.normalisation))
    return {
        "out": str(out),
        "cut": dict(found.cut),
        "folded": list(found.folded),
        "left": [[each.name, each.reason] for each in found.left],
        "output_error": found.output_error,
        "accuracy_before": before,
        "accuracy_after": after,
        "params": sum(parameter.numel() for parameter in found.model.parameters()),
        "total_params": sum(parameter.numel() for parameter in saved.model.parameters()),
        "bytes": file.bytes,
    }


def rules_of(saved: Saved) -> tuple[str, ...]:
    """Rules for `thresher prune --groups row`: only layers whose channels can be cut afterwards."""
    return channel_rules(saved.model, example_of(saved))
