"""Claims about zeros turned into smaller layers: equal outputs always, and as small as exactness allows."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thresher
from thresher.errors import InputError, StateError
from thresher.shrinking.compacting.folding import takes_constants
from thresher.shrinking.compacting.silence import constants, zero_filters

GONE = [0, 2, 5]


def same(one: nn.Module, other: nn.Module, *inputs: Tensor) -> bool:
    with torch.no_grad():
        wanted, got = one.eval()(*inputs), other.eval()(*inputs)
    return torch.allclose(wanted, got, rtol=1e-4, atol=1e-5 * float(wanted.abs().max()))


def settled(model: nn.Module) -> nn.Module:
    """Batch norms with statistics and weights that are not those of a new one."""
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm):
            nn.init.normal_(module.running_mean)
            nn.init.uniform_(module.running_var, 0.5, 2.0)
            nn.init.normal_(module.weight)
            nn.init.normal_(module.bias)
    return model.eval()


def mute(layer: nn.Module, rows: list[int] = GONE) -> None:
    with torch.no_grad():
        layer.weight[rows] = 0


def images(*shape: int) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(3))


def conv_net(
    *, padding: int = 0, mode: str = "zeros", bias: bool = True, between: nn.Module | None = None
) -> nn.Module:
    torch.manual_seed(0)
    return settled(
        nn.Sequential(
            nn.Conv2d(2, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), between or nn.Identity(),
            nn.Conv2d(8, 5, 3, padding=padding, padding_mode=mode, bias=bias),
            nn.ReLU(), nn.Flatten(), nn.LazyLinear(3),
        )
    )  # fmt: skip


@pytest.mark.parametrize("method", ["lats", "ltp", "asl", "gmp", "str"])
def test_from_training_on_rows_to_a_smaller_network_with_equal_outputs(method: str) -> None:
    torch.manual_seed(0)
    x = torch.randn(64, 2, 6, 6)
    y = (x.mean((1, 2, 3)) > 0).long()
    model = nn.Sequential(
        nn.Conv2d(2, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.ReLU(),
        nn.Conv2d(12, 10, 3, padding=1, bias=False), nn.BatchNorm2d(10), nn.ReLU(),
        nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(10, 2),
    )  # fmt: skip
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
    pruner = thresher.prune(
        model, optimizer, method, "sparsity=50%", steps=20, groups="row", rules=thresher.channel_rules(model, x[:2])
    )
    for _ in range(20):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    report = pruner.finish()
    assert report.zeros > 0
    before = copy.deepcopy(model.state_dict())
    found = thresher.compact(model, x[:4])
    masked = sum(int(zero_filters(model[place]).sum()) for place in (0, 3))
    # Of the constant channels in front of the padded convolution one may stay to carry the others.
    assert masked - 1 <= sum(found.cut.values()) <= masked
    assert found.model[0].out_channels + found.model[3].out_channels == 22 - sum(found.cut.values())
    assert same(model, found.model, torch.randn(16, 2, 6, 6))
    assert found.output_error < 1e-5
    assert found.left == ()
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    replayed = found.plan.apply(model)
    replayed.load_state_dict(found.model.state_dict())
    assert same(replayed, found.model, x)


def test_a_scale_of_zero_silences_its_channel() -> None:
    model = conv_net()
    mute(model[1])
    small = thresher.compact(model, images(2, 2, 9, 9))
    assert small.cut == {"0": len(GONE)}
    assert same(small.model, model, images(4, 2, 9, 9))
    assert not thresher.compact(conv_net(), images(2, 2, 9, 9)).cut


@pytest.mark.parametrize("method", ["lats", "ltp", "asl", "gmp"])
def test_training_on_scales_leads_to_a_smaller_network(method: str) -> None:
    model = conv_net()
    example = images(6, 2, 9, 9)
    model(example)
    rules = thresher.channel_rules(model, example, scales=True)
    assert rules == ("exclude:*", "include:1.weight")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.05)
    pruner = thresher.prune(model, optimizer, method, "sparsity=50%", steps=6, rules=rules)
    model.train()
    for _ in range(6):
        F.cross_entropy(model(example), torch.arange(6) % 3).backward()
        optimizer.step()
        optimizer.zero_grad()
    pruner.finish()
    assert int((model[1].weight == 0).sum()) == 4
    small = thresher.compact(model, example)
    assert small.cut == {"0": 4}
    assert same(small.model, model, images(4, 2, 9, 9))


@pytest.mark.parametrize("mode", ["zeros", "reflect", "circular", "replicate"])
@pytest.mark.parametrize("padding", [0, 1])
@pytest.mark.parametrize("bias", [True, False])
def test_constants_behind_a_batch_norm_are_kept_exactly(mode: str, padding: int, bias: bool) -> None:
    x = images(4, 2, 8, 8)
    model = conv_net(padding=padding, mode=mode, bias=bias)
    model(x)
    mute(model[0])
    with torch.no_grad():
        model[1].weight[GONE] = 0.1
        model[1].bias[GONE] = torch.tensor([2.0, 3.0, -9.0])
    found = thresher.compact(model, x)
    assert same(model, found.model, images(9, 2, 8, 8))
    exact_bias = bias and (padding == 0 or mode != "zeros")
    assert takes_constants(model[4]) == exact_bias
    # Folded into the bias all go; without one, or with zeros around the picture, one unit carries the others.
    assert found.cut == {"0": 3 if exact_bias else 2}
    assert found.folded == ("4",)


def test_one_constant_unit_alone_stays_and_zero_ones_go() -> None:
    x = images(4, 2, 8, 8)
    model = conv_net(padding=1)
    model(x)
    mute(model[0], [1, 6])
    with torch.no_grad():
        model[1].weight.fill_(1.0), model[1].bias.fill_(0.0)
        model[1].running_mean.copy_(model[0].bias)
        model[1].running_mean[6] -= 1.0  # 6 gives a number, 1 gives zero
        model[1].running_mean[1] += 1.0
    found = thresher.compact(model, x)
    assert found.cut == {"0": 1}
    assert found.folded == ()
    assert same(model, found.model, x)


def test_flattened_channels_fold_into_the_linear_layer() -> None:
    torch.manual_seed(1)
    model = settled(nn.Sequential(nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6), nn.GELU(), nn.Flatten(), nn.Linear(96, 4)))
    mute(model[0])
    found = thresher.compact(model, images(3, 1, 6, 6))
    assert (found.cut, found.model[4].in_features) == ({"0": 3}, 48)
    assert same(model, found.model, images(5, 1, 6, 6))


def test_units_that_nobody_reads_go_too() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 2))
    with torch.no_grad():
        model[2].weight[:, [3, 4]] = 0
    found = thresher.compact(model, torch.randn(3, 4))
    assert found.plan.groups[0].keep == (0, 1, 2, 5, 6, 7)
    assert same(model, found.model, torch.randn(6, 4))


def test_a_layer_that_read_only_what_is_gone_goes_as_well() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.ReLU(), nn.Linear(6, 2))
    with torch.no_grad():
        model[0].weight[:3] = 0
        model[0].bias[:3] = -1.0
        model[2].weight[1, 3:] = 0  # reads units that are always zero
    found = thresher.compact(model, torch.randn(3, 4))
    assert found.cut == {"0": 3, "2": 1}
    assert same(model, found.model, torch.randn(6, 4))
    assert same(found.plan.apply(model), found.plan.apply(model), torch.randn(2, 4))


def test_a_network_without_zeros_and_one_of_zeros_only() -> None:
    x = images(4, 2, 8, 8)
    model = conv_net()
    model(x)
    whole = thresher.compact(model, x)
    assert (whole.cut, whole.folded, whole.left) == ({}, (), ())
    assert torch.equal(whole.model(x), model(x))
    mute(model[0], list(range(8)))
    mute(model[4], list(range(5)))
    empty = thresher.compact(model, x)
    assert (empty.model[0].out_channels, empty.model[4].out_channels) == (1, 1)
    assert same(model, empty.model, x)


def test_a_dead_relu_is_no_zero_weight() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with torch.no_grad():
        model[0].bias[:4] = -100.0
    assert thresher.compact(model, torch.randn(3, 4)).cut == {}


def test_an_example_of_zeros_proves_nothing() -> None:
    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.two(x[:, :1] + self.one(x))

    model = Skip()
    mute(model.one)
    found = thresher.compact(model, torch.zeros(3, 8))
    assert found.cut == {}
    assert [each.name for each in found.left] == ["one"]
    assert "not constant" in found.left[0].reason


def test_streams_are_cut_only_where_every_layer_is_silent() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.one, self.head = nn.Linear(4, 8), nn.Linear(8, 8), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).relu()
            return self.head(x + self.one(x))

    model = Block()
    mute(model.stem, [1, 2])
    mute(model.one, [2, 3])
    found = thresher.compact(model, torch.randn(3, 4))
    assert found.plan.groups[0].keep == (0, 1, 3, 4, 5, 6, 7)
    assert same(model, found.model, torch.randn(5, 4))


def test_one_factor_without_weights_silences_a_product() -> None:
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.gate, self.up, self.down = nn.Linear(4, 8), nn.Linear(4, 8, bias=False), nn.Linear(8, 2)

        def forward(self, x: Tensor) -> Tensor:
            return self.down(self.gate(x).sigmoid() * self.up(x))

    torch.manual_seed(0)
    model = Gated()
    mute(model.up, [1, 2])
    mute(model.gate, [5, 6])  # a constant gate on something that moves
    found = thresher.compact(model, torch.randn(3, 4))
    assert found.plan.groups[0].keep == (0, 3, 4, 5, 6, 7)
    assert found.left == ()
    assert same(model, found.model, torch.randn(5, 4))


def test_a_muted_depthwise_filter_silences_its_channel() -> None:
    torch.manual_seed(0)
    depthwise = nn.Sequential(nn.Conv2d(8, 8, 3, groups=8), nn.BatchNorm2d(8), nn.ReLU6())
    model = conv_net(between=depthwise)
    x = images(4, 2, 10, 10)
    model(x)
    mute(model[3][0], [1, 4])
    found = thresher.compact(model, x)
    assert found.cut == {"0": 2}
    assert same(model, found.model, images(6, 2, 10, 10))


def test_two_readers_share_one_carrier() -> None:
    class Fork(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.left = nn.Conv2d(1, 8, 3), nn.Conv2d(8, 3, 3, padding=1)
            self.right = nn.Conv2d(8, 3, 1, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.stem(x).sigmoid()
            return self.left(x) * self.right(2 * x)

    torch.manual_seed(0)
    model = Fork()
    mute(model.stem)
    found = thresher.compact(model, images(2, 1, 7, 7))
    assert found.cut == {"stem": 2}
    assert sorted(found.folded) == ["left", "right"]
    assert same(model, found.model, images(4, 1, 7, 7))


def test_groups_that_cannot_be_cut_exactly_say_so() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 8), nn.LayerNorm(8), nn.Linear(8, 2))
    mute(model[0])
    found = thresher.compact(model, torch.randn(3, 4))
    assert found.cut == {}
    assert "norm over channels" in found.left[0].reason
    grouped = nn.Sequential(nn.Conv2d(2, 8, 1), nn.Sigmoid(), nn.Conv2d(8, 4, 3, padding=1, groups=2))
    mute(grouped[0], [0, 4])
    x = images(2, 2, 5, 5)
    found = thresher.compact(grouped, x)
    assert "grouped" in found.left[0].reason
    assert same(grouped, found.model, x)


def test_half_precision_and_training_mode_are_kept() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.Sigmoid(), nn.Linear(8, 2)).to(torch.bfloat16)
    mute(model[0])
    model.train()
    found = thresher.compact(model, torch.randn(3, 4, dtype=torch.bfloat16))
    assert found.model[0].weight.dtype == torch.bfloat16
    assert found.model.training
    assert found.cut == {"0": 3}
    assert found.output_error < 0.02


def test_a_hundred_layers_do_not_overflow() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(*(part for _ in range(100) for part in (nn.Linear(4, 4), nn.ReLU())), nn.Linear(4, 1))
    mute(model[100], [1])
    assert [name for name, value in constants(model, ["102"], torch.randn(2, 4)).items() if value[1].isfinite()] == [
        "102"
    ]


def test_rules_name_the_layers_that_can_be_cut_alone() -> None:
    model = conv_net()
    x = images(2, 2, 8, 8)
    model(x)
    assert thresher.channel_rules(model, x) == ("exclude:*", "include:0", "include:4")
    with pytest.raises(InputError, match="cut alone"):
        thresher.channel_rules(nn.Sequential(nn.Linear(4, 2)), torch.randn(2, 4))


def test_scales_need_a_batch_norm() -> None:
    bare = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    with pytest.raises(InputError, match="leave out scales"):
        thresher.channel_rules(bare, images(3, 4), scales=True)


def test_a_network_under_pruning_is_refused() -> None:
    model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
    thresher.prune(model, torch.optim.SGD(model.parameters(), 0.1), "lats", "sparsity=50%", steps=5)
    with pytest.raises(StateError, match="finish"):
        thresher.compact(model, torch.randn(3, 4))
