"""What hangs together, and that cutting it is silencing it."""

from __future__ import annotations

import copy
import sys

import pytest
import torch
from coupled_nets import IMAGES, Concat, Gated, Inverted, Residual, settled
from torch import nn

import thresher
from thresher.errors import InputError, MissingExtraError, StateError
from thresher.structure import CoupledGroup, ShrinkPlan, coupled_groups, proven, silenced

NETWORKS = [Residual, Inverted, Concat]


def groups_of(model: nn.Module, example: object = IMAGES) -> dict[str, CoupledGroup]:
    return {group.name: group for group in coupled_groups(model, example)[0]}


def plan_of(*parts: tuple[CoupledGroup, range | list[int]]) -> ShrinkPlan:
    return ShrinkPlan(model="Net", groups=tuple(group.plan(keep) for group, keep in parts))


def test_groups_name_makers_and_readers_in_running_order() -> None:
    groups = groups_of(Residual())
    assert list(groups) == ["stem", "first.conv1", "second.conv1"]
    assert groups["stem"].across
    assert set(groups["stem"].producers) == {"stem", "first.conv2", "second.conv2"}
    assert [(member.module, member.axis) for member in groups["first.conv1"].members] == [
        ("first.conv1", "out"),
        ("first.bn1", "width"),
        ("first.conv2", "in"),
    ]


def test_depthwise_goes_along_and_grouped_layers_make_bundles() -> None:
    groups = groups_of(Inverted())
    assert {member.module for member in groups["expand"].members} == {"expand", "norm", "depth", "norm2", "project"}
    assert groups["project"].units == 4
    assert groups["project"].members[0].index[1] == (1, 5)
    assert groups["grouped"].units == 3


def test_offsets_of_a_concatenation_and_positions_of_a_flatten() -> None:
    groups = groups_of(Concat())
    assert groups["right"].readers[0].index[0] == (5,)
    assert groups["both"].readers[0].index[1] == tuple(range(16, 32))


@pytest.mark.parametrize("kind", NETWORKS)
def test_cutting_equals_silencing(kind: type[nn.Module]) -> None:
    torch.manual_seed(0)
    model = settled(kind())
    for group in groups_of(model).values():
        keep = list(range(0, group.units, 2))
        with torch.no_grad(), silenced(model, group, keep):
            masked = model(IMAGES)
        small = plan_of((group, keep)).apply(model)
        assert torch.allclose(small(IMAGES), masked, atol=1e-5), group.name
        assert not torch.allclose(model(IMAGES), masked, atol=1e-5), group.name


@pytest.mark.parametrize("kind", NETWORKS)
def test_keeping_everything_is_bit_for_bit_the_network(kind: type[nn.Module]) -> None:
    model = settled(kind())
    whole = plan_of(*((group, range(group.units)) for group in groups_of(model).values())).apply(model)
    assert torch.equal(whole(IMAGES), model(IMAGES))
    assert all(torch.equal(a, b) for a, b in zip(whole.state_dict().values(), model.state_dict().values(), strict=True))


@pytest.mark.parametrize("kind", NETWORKS)
def test_everything_cut_at_once_runs_trains_and_leaves_the_original(kind: type[nn.Module]) -> None:
    model = settled(kind()).train()
    before = copy.deepcopy(model.state_dict())
    groups = groups_of(model).values()
    small = plan_of(*((group, [0, group.units - 1]) for group in groups)).apply(model)
    assert small.training
    small(IMAGES).sum().backward()
    assert all(parameter.grad is not None and parameter.is_leaf for parameter in small.parameters())
    assert not {id(p) for p in small.parameters()} & {id(p) for p in model.parameters()}
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert sum(p.numel() for p in small.parameters()) < sum(p.numel() for p in model.parameters())


def test_batch_norm_statistics_move_with_their_channels() -> None:
    model = settled(Residual())
    small = plan_of((groups_of(model)["first.conv1"], [1, 4])).apply(model)
    for name in ("weight", "bias", "running_mean", "running_var"):
        assert torch.equal(getattr(small.first.bn1, name), getattr(model.first.bn1, name)[[1, 4]])
    assert small.first.bn1.num_batches_tracked == model.first.bn1.num_batches_tracked


def test_what_the_graph_gets_wrong_is_found_by_trying() -> None:
    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first, self.out = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.out(self.first(x).reshape(-1, 2, 3).flip(1).reshape(-1, 6))

    model, x = Heads(), torch.randn(5, 4)
    good, bad = proven(model, x, coupled_groups(model, x)[0])
    assert not good
    assert "reshape" in bad[0].reason or "does not" in bad[0].reason


def test_halves_that_gate_each_other_are_left_whole_with_the_reason() -> None:
    model, x = Gated(), torch.randn(3, 4)
    groups, left = coupled_groups(model, x)
    good, bad = proven(model, x, groups)
    assert [group.name for group in good] == ["out"]
    assert {each.name for each in (*left, *bad)} == {"both", "head"}


def test_outputs_are_never_cut() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    groups, left = coupled_groups(model, torch.randn(1, 3))
    assert [group.name for group in groups] == ["0"]
    assert [each.name for each in left] == ["1"]


def test_tracing_leaves_the_model_alone_and_works_without_gradients() -> None:
    model = settled(Residual())
    model.stem.weight.requires_grad_(False)
    model.train()
    model.first.eval()
    before = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        assert len(groups_of(model)) == 3
    assert model.training
    assert not model.first.training
    assert not model.stem.weight.requires_grad
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())


def test_a_model_at_work_a_bad_example_and_a_missing_library_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(4, 2))
    with pytest.raises(InputError, match="on which Sequential fails"):
        coupled_groups(model, torch.randn(1, 9))
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    with pytest.raises(MissingExtraError, match=r"thresher\[structured\]"):
        coupled_groups(model, torch.randn(1, 3))
    monkeypatch.undo()
    thresher.prune(model, None, "magnitude", "sparsity=50%")
    with pytest.raises(StateError, match="parametrized"):
        coupled_groups(model, torch.randn(1, 3))
