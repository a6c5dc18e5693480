"""A plan is plain data: it goes through JSON, is refused when it does not fit, and needs no graph to be replayed."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest
import torch
from coupled_nets import IMAGES, Concat, settled
from torch import nn

from thresher.errors import InputError
from thresher.structure import Cut, GroupPlan, ShrinkPlan, coupled_groups


def plan() -> ShrinkPlan:
    groups, _ = coupled_groups(Concat(), IMAGES)
    return ShrinkPlan(model="Concat", groups=tuple(group.plan(range(1, group.units)) for group in groups))


def test_json_brings_the_plan_back() -> None:
    assert ShrinkPlan.from_json(plan().to_json()) == plan()
    assert json.loads(plan().to_json())["version"] == 1


def test_replayed_on_a_fresh_model_without_torch_pruning(monkeypatch: pytest.MonkeyPatch) -> None:
    text, dense, fresh = plan().to_json(), settled(Concat()), Concat()
    small = ShrinkPlan.from_json(text).apply(dense)
    monkeypatch.setitem(sys.modules, "torch_pruning", None)
    again = ShrinkPlan.from_json(text).apply(fresh)
    again.load_state_dict(small.state_dict())
    assert torch.equal(again.eval()(IMAGES), small(IMAGES))


def test_groups_that_meet_at_a_concatenation_cut_their_own_part() -> None:
    assert plan().widths()["both"] == {"in": 10, "out": 3}


def test_the_table_says_what_will_be_cut() -> None:
    lines = plan().table().splitlines()
    assert lines[0].split() == ["group", "units", "kept", "share", "cuts"]
    assert lines[2].split()[:4] == ["left", "5", "4", "80%"]
    assert "both in" in lines[2]


@pytest.mark.parametrize(
    "change",
    [
        {"version": 2},
        {"kind": "report"},
        {"extra": 1},
        {"groups": None},
        {"groups": [{"name": "a"}]},
        {"groups": [{"name": "a", "units": 2, "keep": [], "cuts": []}]},
        {"groups": [{"name": "a", "units": 2, "keep": [2], "cuts": []}]},
        {"groups": [{"name": "a", "units": "2", "keep": [1], "cuts": []}]},
        {"groups": [{"name": "a", "units": 2, "keep": [1], "cuts": [{"module": "a", "axis": "out", "size": 2}]}]},
        {"model": 3},
    ],
)
def test_what_is_no_plan_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        ShrinkPlan.from_dict({**plan().to_dict(), **change})


@pytest.mark.parametrize("text", ["", "[]", "3", "{}"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(InputError):
        ShrinkPlan.from_json(text)


@pytest.mark.parametrize(
    ("axis", "keep"), [("side", (0,)), ("in", ()), ("in", (1, 0)), ("in", (0, 0)), ("in", (0, 4)), ("in", (-1, 1))]
)
def test_cuts_that_cannot_be(axis: str, keep: tuple[int, ...]) -> None:
    with pytest.raises(InputError):
        Cut(module="a", axis=axis, size=4, keep=keep)


def one(module: str, axis: str, size: int, keep: tuple[int, ...]) -> ShrinkPlan:
    cut = Cut(module=module, axis=axis, size=size, keep=keep)
    return ShrinkPlan(model="Net", groups=(GroupPlan(name="g", units=1, keep=(0,), cuts=(cut,)),))


@pytest.mark.parametrize(
    ("module", "axis", "size", "words"),
    [
        ("absent", "out", 4, "without 'absent'"),
        ("0", "out", 9, "0, a Linear whose out is 4 wide"),
        ("1", "width", 4, "1, a ReLU whose width is None wide"),
    ],
)
def test_a_plan_for_another_network_names_the_place(module: str, axis: str, size: int, words: str) -> None:
    with pytest.raises(InputError, match=words):
        one(module, axis, size, (0,)).apply(nn.Sequential(nn.Linear(3, 4), nn.ReLU()))


def test_a_grouped_layer_must_lose_as_much_in_each_group() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2))
    with pytest.raises(InputError, match=r"keeps \[2, 1\] channels of its 2 groups"):
        one("0", "out", 4, (0, 1, 2)).apply(model)
    assert one("0", "out", 4, (0, 3)).apply(model)[0].weight.shape == (2, 2, 1, 1)


def test_each_group_of_a_grouped_layer_keeps_its_own_inputs() -> None:
    model = nn.Sequential(nn.Conv2d(4, 4, 1, groups=2, bias=False))
    small = one("0", "in", 4, (1, 2)).apply(model)
    x = torch.randn(1, 4, 2, 2)
    masked = x * torch.tensor([0.0, 1, 1, 0]).reshape(1, 4, 1, 1)
    assert torch.allclose(small(x[:, [1, 2]]), model(masked))


def test_ties_stay_ties_and_frozen_stays_frozen() -> None:
    model = nn.Sequential(nn.Linear(3, 4), nn.Linear(3, 4))
    model[1].weight = model[0].weight.requires_grad_(False)
    cuts = tuple(Cut(module=name, axis="out", size=4, keep=(0, 2)) for name in "01")
    small = ShrinkPlan(model="Net", groups=(GroupPlan(name="g", units=1, keep=(0,), cuts=cuts),)).apply(model)
    assert small[0].weight is small[1].weight
    assert not small[0].weight.requires_grad
    assert small[0].bias.requires_grad


@pytest.mark.parametrize(
    ("module", "axis", "shapes"),
    [
        (nn.ConvTranspose2d(4, 6, 3), "in", {"weight": (2, 6, 3, 3), "bias": (6,)}),
        (nn.ConvTranspose2d(6, 4, 3), "out", {"weight": (6, 2, 3, 3), "bias": (2,)}),
        (nn.LayerNorm(4), "width", {"weight": (2,), "bias": (2,)}),
        (nn.GroupNorm(2, 4), "width", {"weight": (2,), "bias": (2,)}),
        (nn.InstanceNorm2d(4), "width", {}),
        (nn.PReLU(4), "width", {"weight": (2,)}),
        (nn.Embedding(7, 4), "width", {"weight": (7, 2)}),
        (nn.Conv2d(4, 4, 3, groups=4), "width", {"weight": (2, 1, 3, 3), "bias": (2,)}),
    ],
    ids=lambda value: str(value)[:40],
)
def test_every_kind_of_layer_is_cut(module: nn.Module, axis: str, shapes: dict[str, tuple[int, ...]]) -> None:
    small = one("0", axis, 4, (1, 3)).apply(nn.Sequential(module))[0]
    assert {name: tuple(tensor.shape) for name, tensor in small.state_dict().items()} == shapes
    repr(small)


def test_keeping_nothing_of_a_layer_is_refused() -> None:
    model = nn.Sequential(nn.Linear(3, 4))
    cuts = (Cut(module="0", axis="out", size=4, keep=(0,)), Cut(module="0", axis="out", size=4, keep=(1,)))
    with pytest.raises(InputError, match="keeps nothing"):
        ShrinkPlan(model="Net", groups=(GroupPlan(name="g", units=1, keep=(0,), cuts=cuts),)).apply(model)


def test_layers_that_lose_the_same_do_not_take_each_others_weights() -> None:
    # What lies between the cuts of both sides of a grouped layer is freed at once; its identity may come back.
    torch.manual_seed(0)
    model = nn.Sequential(*(nn.Conv2d(8, 8, 1, bias=False, groups=(2, 2, 1)[place % 3]) for place in range(60)))
    keep = (1, 2, 5, 6)
    cuts = tuple(Cut(module=str(place), axis=axis, size=8, keep=keep) for place in range(60) for axis in ("in", "out"))
    small = ShrinkPlan(model="Net", groups=(GroupPlan(name="g", units=1, keep=(0,), cuts=cuts),)).apply(model)
    for whole, cut in zip(model, small, strict=True):
        wanted = whole.weight[list(keep)]
        if whole.groups == 1:
            assert torch.equal(cut.weight, wanted[:, list(keep)])
        else:
            assert torch.equal(cut.weight, torch.cat([wanted[:2, [1, 2]], wanted[2:, [1, 2]]]))
    assert len({id(layer.weight) for layer in small}) == 60
