"""Experts behind a router: each loses neurons of its own, the router and the stream stay."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional

import thresher
from thresher.structure import coupled_groups, proven


class Expert(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.up, self.down = nn.Linear(width, hidden), nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.down(functional.gelu(self.up(x)))


class Experts(nn.Module):
    """Each token goes to the two experts that the router likes best."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.enter, self.norm, self.head = nn.Linear(6, 16), nn.LayerNorm(16), nn.Linear(16, 3)
        self.router, self.experts = nn.Linear(16, 4, bias=False), nn.ModuleList(Expert(16, 24) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        x = self.enter(x)
        flat = self.norm(x).flatten(0, 1)
        shares, chosen = self.router(flat).softmax(-1).topk(2)
        mixed = torch.zeros_like(flat)
        for number, expert in enumerate(self.experts):
            rows, place = (chosen == number).nonzero(as_tuple=True)
            mixed = mixed.index_add(0, rows, expert(flat[rows]) * shares[rows, place, None])
        return self.head(x + mixed.reshape(x.shape))


BATCHES = [torch.randn(16, 5, 6, generator=torch.Generator().manual_seed(seed)) for seed in range(2)]


@pytest.mark.parametrize("scope", ["inside", "across"])
@pytest.mark.parametrize("memory", [0, 1 << 30])
def test_each_expert_loses_neurons_of_its_own(scope: str, memory: int) -> None:
    model = Experts().eval()
    result = thresher.shrink_plan(
        model, "ispasp", "flops=60%", calibration=BATCHES, scope=scope, memory=memory, allocation="uniform"
    )
    widths = [expert.up.out_features for expert in result.model.experts]
    assert widths == [expert.down.in_features for expert in result.model.experts]
    assert all(width < 24 for width in widths)
    assert (result.model.router.out_features, result.model.enter.out_features) == (4, 16)
    kept = {group.name: list(group.keep) for group in result.plan.groups}
    twin = copy.deepcopy(model)
    for number, expert in enumerate(twin.experts):
        gone = sorted(set(range(24)) - set(kept[f"experts.{number}.up"]))
        expert.down.weight.data[:, gone] = 0
        expert.down.weight.data[:, kept[f"experts.{number}.up"]] = result.model.experts[number].down.weight
    assert torch.allclose(twin(BATCHES[0]), result.model(BATCHES[0]), atol=1e-5)


def test_what_a_router_mixes_up_is_left_whole_with_the_reason() -> None:
    model = Experts().eval()
    # The trace takes the router's four outputs for channels of the stream: that group fails its trial.
    good, bad = proven(model, BATCHES[0], coupled_groups(model, BATCHES[0])[0])
    assert {group.name for group in good} == {f"experts.{number}.up" for number in range(4)}
    assert {each.name for each in bad} == {"router"}
    assert "other values" in bad[0].reason
