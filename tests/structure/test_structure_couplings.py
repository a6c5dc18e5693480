"""Couplings of known architectures: squeeze-excite, layer scale, response norm, streams with norms over channels."""

from __future__ import annotations

import pytest
import torch
import torch_pruning
from torch import Tensor, nn
from torch.nn import functional

from thresher.errors import InputError
from thresher.structure import CoupledGroup, LeftWhole, ShrinkPlan, coupled_groups, proven, silenced

IMAGES = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(1))


class SqueezeExcite(nn.Module):
    """expand, depthwise, gate from the pooled channels, project, as in EfficientNet."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.expand = nn.Conv2d(3, 6, 1), nn.Conv2d(6, 12, 1)
        self.depth = nn.Conv2d(12, 12, 3, padding=1, groups=12)
        self.squeeze, self.excite = nn.Conv2d(12, 3, 1), nn.Conv2d(3, 12, 1)
        self.project, self.head = nn.Conv2d(12, 6, 1), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = functional.silu(self.depth(functional.silu(self.expand(x))))
        gate = self.excite(functional.silu(self.squeeze(y.mean((2, 3), keepdim=True)))).sigmoid()
        return self.head((x + self.project(y * gate)).mean((2, 3)))


class Scaled(nn.Module):
    """depthwise, layer norm, two linear layers with a response norm between, layer scale, skip, as in ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 6, 2, 2)
        self.depth, self.norm = nn.Conv2d(6, 6, 3, padding=1, groups=6), nn.LayerNorm(6)
        self.up, self.response, self.down = nn.Linear(6, 10), ResponseNorm(10), nn.Linear(10, 6)
        self.scale, self.head = nn.Parameter(torch.randn(6)), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x)
        y = self.norm(self.depth(x).permute(0, 2, 3, 1))
        y = self.scale * self.down(self.response(functional.gelu(self.up(y))))
        return self.head((x + y.permute(0, 3, 1, 2)).mean((2, 3)))


class ResponseNorm(nn.Module):
    def __init__(self, width: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(torch.randn(1, 1, 1, width)), nn.Parameter(torch.randn(1, 1, 1, width))

    def forward(self, x: Tensor) -> Tensor:
        size = x.square().sum((1, 2), keepdim=True).sqrt()
        return self.weight * x * (size / size.mean(-1, keepdim=True)) + self.bias + x


def found(model: nn.Module, example: Tensor = IMAGES) -> tuple[dict[str, CoupledGroup], list[LeftWhole]]:
    good, bad = proven(model, example, coupled_groups(model, example)[0])
    return {group.name: group for group in good}, bad


def test_a_gate_from_pooled_channels_is_cut_with_them_and_stays_inside_the_block() -> None:
    torch.manual_seed(0)
    model = SqueezeExcite().eval()
    groups, bad = found(model)
    assert not bad
    group = groups["expand"]
    assert {member.module for member in group.members} == {"expand", "depth", "squeeze", "excite", "project"}
    assert not group.across
    assert groups["stem"].across
    with torch.no_grad(), silenced(model, group, [1, 5, 7]):
        masked = model(IMAGES)
    small = ShrinkPlan(model="Net", groups=(group.plan([1, 5, 7]),)).apply(model)
    assert torch.allclose(small(IMAGES), masked, atol=1e-5)


def test_layer_scale_and_response_norm_go_along_as_bare_parameters() -> None:
    torch.manual_seed(0)
    model = Scaled().eval()
    groups, bad = found(model)
    assert not bad
    stream, hidden = groups["stem"], groups["up"]
    assert stream.across
    assert not stream.exact
    assert (".scale", "scale:0") in {(f".{member.axis[:5]}", member.axis) for member in stream.members}
    assert {member.axis for member in hidden.members if member.module == "response"} == {"weight:3", "bias:3"}
    plan = ShrinkPlan(model="Net", groups=(stream.plan([0, 2, 5]), hidden.plan([1, 8])))
    small = ShrinkPlan.from_json(plan.to_json()).apply(model)
    assert (small.scale.shape, small.response.weight.shape, small.norm.normalized_shape) == ((3,), (1, 1, 1, 2), (3,))
    small(IMAGES).sum().backward()
    assert all(parameter.grad is not None for parameter in small.parameters())


def test_a_wrong_coupling_behind_a_norm_is_found_by_changing_places() -> None:
    class Shifted(Scaled):
        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x)
            y = self.norm(self.depth(x).permute(0, 2, 3, 1))
            y = self.scale * self.down(self.response(functional.gelu(self.up(y))))
            return self.head((x + y.permute(0, 3, 1, 2).roll(1, 1)).mean((2, 3)))

    groups, bad = found(Shifted().eval())
    assert "stem" not in groups
    assert any("change" in each.reason or "other values" in each.reason for each in bad if each.name == "stem")


def test_a_channel_shuffle_is_noticed_though_both_ends_stay_in_place() -> None:
    class Shuffle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two, self.head = nn.Conv2d(3, 12, 1), nn.Conv2d(12, 4, 1), nn.Linear(4, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.one(x).unflatten(1, (3, 4)).transpose(1, 2).flatten(1, 2)
            return self.head(self.two(x).mean((2, 3)))

    groups, _ = found(Shuffle().eval())
    assert "one" not in groups
    assert "two" in groups


def test_a_module_that_cannot_be_traced_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Sequential(nn.Linear(6, 6))

        def forward(self, x: Tensor) -> Tensor:
            return self.inner(x)

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.body, self.head = nn.Conv2d(3, 6, 1), nn.Sequential(Odd()), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.head(self.body(self.stem(x).mean((2, 3))))

    def build(graph: object, model: nn.Module, *args: object, **kwargs: object) -> None:
        if any(isinstance(module, Odd) for module in model.modules()):
            raise TypeError("no such operation")

    monkeypatch.setattr(torch_pruning.DependencyGraph, "build_dependency", build)
    with pytest.raises(InputError, match=r"body\.0 \(Odd\) cannot be traced .*no such operation") as caught:
        coupled_groups(Net().eval(), IMAGES)
    assert "replace that module" in caught.value.do


@pytest.mark.parametrize("batch", [1, 2, 5])
def test_trials_take_few_samples_and_batches_of_fixed_size_as_they_are(batch: int) -> None:
    class Fixed(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(4, 6), nn.Linear(6, 2)

        def forward(self, x: Tensor) -> Tensor:
            if len(x) != batch:
                raise ValueError("another batch")
            return self.two(self.one(x))

    groups, _ = found(Fixed(), torch.randn(batch, 4))
    assert list(groups) == ["one"]
