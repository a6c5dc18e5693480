"""histograms.json: how large the weights of each tensor were before and are now, and where its threshold lay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

BINS = 60


def histograms(dense: nn.Module, finished: nn.Module, trace: Mapping[str, Any]) -> dict[str, Any]:
    """{"bins": 60, "layers": [...]}: per pruned tensor `reach`, the counts `before` and `after`, and `threshold`.

    The bins are equal parts of [-reach, reach], where reach is the largest magnitude of both networks. `after` counts
    weights that are not zero; their number is `entries` less `zeros`. threshold: the last that acted, in weight units
    (None where none ever did).
    """
    before, after = (dict(network.named_parameters()) for network in (dense, finished))
    layers = []
    for column, name in enumerate(trace["names"]):
        if name not in before or name not in after:
            continue
        old, new = (network[name].detach().float().flatten().cpu() for network in (before, after))
        if not old.numel() or not new.numel():
            continue
        reach = max(float(old.abs().max()), float(new.abs().max()))
        acted = [row[column] for row in trace["thresholds"] if row[column] > 0]
        layers.append(
            {
                "name": name,
                "entries": new.numel(),
                "zeros": int((new == 0).sum()),
                "reach": reach,
                "before": counts(old, reach),
                "after": counts(new[new != 0], reach),
                "threshold": float(acted[-1]) if acted else None,
            }
        )
    return {"bins": BINS, "layers": layers}


def counts(values: Tensor, reach: float, bins: int = BINS) -> list[int]:
    """How many of `values` lie in each of `bins` equal parts of [-reach, reach]; the ends belong to the outer parts.

    >>> counts(torch.tensor([-1.0, -0.2, 0.1, 1.0]), 1.0, 4)
    [1, 1, 1, 1]
    """
    if reach <= 0:  # all weights are zero
        return [0] * bins
    return [int(count) for count in torch.histc(values, bins, -reach, reach).tolist()]
