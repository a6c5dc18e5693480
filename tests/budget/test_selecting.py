"""Neighbours in the order of a list are those of the sorted list, however the list misleads a sample."""

from __future__ import annotations

import pytest
import torch

from thresher.budget.selecting import neighbours

LENGTH = 100_000


def lists() -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    random = torch.rand(LENGTH, generator=generator)
    periodic = torch.zeros(LENGTH)
    periodic[:: LENGTH // (1 << 14)] = 1.0  # a sample at this stride sees nothing but ones
    return {
        "random": random,
        "sorted": random.sort().values,
        "periodic": periodic,
        "equal": torch.ones(LENGTH),
        "ties": (random * 4).round(),
        "infinite": torch.where(random > 0.9, torch.inf, random),
        "short": random[:10],
    }


@pytest.mark.parametrize("name", list(lists()))
@pytest.mark.parametrize("share", [0.0, 1e-4, 0.3, 0.5, 0.95, 0.9999, 1.0])
def test_neighbours_are_those_of_the_sorted_list(name: str, share: float) -> None:
    flat = lists()[name]
    rank = min(max(int(share * len(flat)), 1), len(flat) - 1)
    ordered = flat.sort().values
    assert neighbours(flat, rank) == (float(ordered[rank - 1]), float(ordered[rank]))
