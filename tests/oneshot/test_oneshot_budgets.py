"""Any network, any budget: counts are exact, what is excluded stays, and what cannot be is refused."""

from __future__ import annotations

import copy
import json
import math
from collections.abc import Iterator

import pytest
import torch
from torch import Tensor, nn

import thresher
from thresher.errors import BudgetError, InputError, NumericsError, StateError
from thresher.oneshot.layers import layer_of
from thresher.oneshot.layerwise import relative_error
from thresher.oneshot.statistics import Statistics
from thresher.targets import select

METHODS = ["magnitude", "wanda", "sparsegpt"]


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def mlp() -> nn.Sequential:
    return nn.Sequential(nn.Linear(12, 33), nn.ReLU(), nn.Linear(33, 20), nn.ReLU(), nn.Linear(20, 5))


def convnet() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(3, 8, 3, padding="same", padding_mode="reflect"),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.Conv2d(8, 8, 3, groups=8, padding=1, stride=2),
        nn.Conv2d(8, 12, 1, groups=2),
        nn.Conv2d(12, 8, (3, 1), dilation=(2, 1)),
        nn.Flatten(),
        nn.LazyLinear(4),
    )


def zeros(model: nn.Module) -> int:
    return sum(int((p == 0).sum()) for name, p in model.named_parameters() if p.ndim > 1)


@pytest.mark.parametrize("allocation", ["uniform", "global"])
@pytest.mark.parametrize("share", [0.0, 0.123, 0.5, 0.77, 0.95])
@pytest.mark.parametrize("method", METHODS)
def test_sparsity_is_met_to_one_weight(method: str, share: float, allocation: str) -> None:
    model, batches = mlp(), [torch.randn(40, 12) for _ in range(2)]
    budget = {"sparsity": share}
    report = thresher.prune_oneshot(model, method, budget, calibration=batches, allocation=allocation)
    assert report.zeros == zeros(model) == int(share * report.entries + 1e-9)


@pytest.mark.parametrize("method", METHODS)
def test_uniform_gives_every_layer_the_same_share(method: str) -> None:
    report = thresher.prune_oneshot(mlp(), method, "sparsity=60%", calibration=[torch.randn(50, 12)])
    assert all(abs(layer.zeros - 0.6 * layer.entries) <= 1 for layer in report.budget.layers)


def test_magnitude_by_layer_is_what_thresher_prune_does() -> None:
    one, two = (copy.deepcopy(net) for net in [mlp()] * 2)
    thresher.prune_oneshot(one, thresher.Magnitude(scope="global"), "sparsity=50%", calibration=[torch.randn(9, 12)])
    thresher.prune(two, None, thresher.Magnitude(scope="global"), "sparsity=50%").finish()
    assert all(torch.equal(a, b) for a, b in zip(one.parameters(), two.parameters(), strict=True))


@pytest.mark.parametrize("method", METHODS)
def test_convolutions_of_every_kind(method: str) -> None:
    model, x = convnet(), torch.randn(16, 3, 12, 12)
    model(x)
    report = thresher.prune_oneshot(model, method, "sparsity=50%", calibration=[x])
    assert report.zeros == zeros(model) == report.entries // 2
    assert bool((model[3].weight != 0).flatten(1).any(1).all())  # every depthwise filter lives
    assert all(error.columns for error in report.errors)
    again = thresher.prune_oneshot(convnet_like(model), method, groups="2:4", calibration=[x])
    for layer in again.budget.layers:
        assert layer.zeros == layer.entries // 2
    assert any("0.weight" in name for name, _ in again.budget.skipped)


def convnet_like(model: nn.Module) -> nn.Module:
    torch.manual_seed(1)
    fresh = convnet()
    fresh(torch.randn(2, 3, 12, 12))
    return fresh


@pytest.mark.parametrize(
    "layer",
    [
        nn.Linear(6, 4),
        nn.Conv2d(6, 4, 3, padding=1, stride=2),
        nn.Conv2d(6, 4, 3, padding="same", padding_mode="circular"),
        nn.Conv2d(6, 4, 3, groups=2, dilation=2, padding=2),
        nn.Conv1d(6, 4, 2, padding="same"),
    ],
    ids=repr,
)
def test_the_error_from_second_moments_is_that_of_the_outputs(layer: nn.Module) -> None:
    layer = layer.double()
    layer.bias = None
    shapes = {nn.Linear: (7, 6), nn.Conv1d: (7, 6, 9), nn.Conv2d: (7, 6, 9, 9)}
    x = torch.randn(*shapes[type(layer)], dtype=torch.float64)
    target = layer_of(select(layer).targets[0], ("",))
    with Statistics([target]) as seen:
        for part in x.split(3):
            seen.begin(part)
            layer(part)
    moments, columns = seen.take(target)
    before, dense = layer(x).detach(), target.weight()
    with torch.no_grad():
        layer.weight[:, 1] = 0
    after = layer(x).detach()
    expected = float((before - after).square().sum() / before.square().sum())
    assert relative_error(dense, target.weight(), moments) == pytest.approx(expected, rel=1e-9)
    assert columns == before.numel() // 4


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("budget", ["params=60%", "params=500", "flops=40%", "bytes=60%", "sparsity=30%,flops=50%"])
def test_the_other_limits_hold_as_closely_as_one_weight_allows(method: str, budget: str) -> None:
    model, batches = mlp(), [torch.randn(40, 12)]
    whole = thresher.prune_oneshot(copy.deepcopy(model), method, "sparsity=0%,flops=100%", calibration=batches).budget
    report = thresher.prune_oneshot(model, method, budget, calibration=batches).budget
    if budget.startswith("params"):
        limit = 500 if "500" in budget else math.floor(0.6 * report.total_params)
        assert report.got["params"] == limit
    elif "bytes" in budget:
        assert report.got["bytes"] <= math.floor(0.6 * whole.bytes + 1e-9)
        assert report.got["bytes"] > 0.55 * whole.bytes
    else:
        share = 0.4 if budget == "flops=40%" else 0.5
        assert share * whole.macs - 1 < report.got["flops"] <= share * whole.macs


def test_rules_bound_exclude_and_keep_dense() -> None:
    model, x = mlp(), torch.randn(40, 12)
    before = {name: p.clone() for name, p in model.named_parameters()}
    rules = ["exclude:4", thresher.dense("0"), thresher.bound("2", max=0.9)]
    report = thresher.prune_oneshot(model, "sparsegpt", "sparsity=50%", calibration=[x], rules=rules)
    assert torch.equal(model[4].weight, before["4.weight"])
    assert torch.equal(model[0].weight, before["0.weight"])
    assert report.zeros == int((model[2].weight == 0).sum()) == (12 * 33 + 33 * 20) // 2
    assert ("4.weight", "excluded by rule '4'") in report.budget.skipped


def test_frozen_layers_stay_unless_asked_for() -> None:
    model, x = mlp(), torch.randn(40, 12)
    model[0].weight.requires_grad_(False)
    before = model[0].weight.clone()
    report = thresher.prune_oneshot(model, "wanda", "sparsity=50%", calibration=[x])
    assert torch.equal(model[0].weight, before)
    assert report.budget.skipped[0][0] == "0.weight"
    assert thresher.prune_oneshot(model, "wanda", "sparsity=50%", calibration=[x], frozen=True).entries == 1156


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(8, 8), nn.Linear(8, 8)
        self.second.weight = self.first.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.second(self.first(x).relu())


@pytest.mark.parametrize("method", METHODS)
def test_tied_weights_are_pruned_once_on_the_inputs_of_both(method: str) -> None:
    model, x = Tied(), torch.randn(30, 8)
    report = thresher.prune_oneshot(model, method, "sparsity=50%", calibration=[x])
    assert model.second.weight is model.first.weight
    assert (report.entries, report.zeros, report.errors[0].columns) == (64, 32, 60)


def test_any_iterable_of_batches_gives_the_same_network() -> None:
    x = torch.randn(40, 12)
    start = mlp()

    def pruned(batches: object, **more: object) -> Tensor:
        model = copy.deepcopy(start)
        thresher.prune_oneshot(model, "sparsegpt", "sparsity=50%", calibration=batches, **more)  # type: ignore[arg-type]
        return model[2].weight.detach()

    def stream() -> Iterator[Tensor]:
        yield from x.split(10)

    with torch.inference_mode():
        frozen = x * 1
    reference = pruned([x])
    for batches in (x, x.split(7), frozen, stream(), [(part, torch.zeros(len(part))) for part in x.split(20)]):
        torch.testing.assert_close(pruned(batches), reference)
    assert torch.equal(pruned(stream(), order="layer"), pruned(list(stream()), order="layer"))
    assert torch.equal(pruned(x.split(10), limit=2), pruned(x[:20].split(10)))


def test_an_activation_in_place_between_two_readers_of_a_tensor_is_noticed() -> None:
    class Forked(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.before, self.after = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = x * 1
            return self.before(x) + self.after(x.relu_())

    x = -torch.rand(20, 8)  # nothing is left behind the activation
    for inside in (torch.enable_grad, torch.inference_mode):
        with inside():
            report = thresher.prune_oneshot(Forked(), "wanda", "sparsity=50%", calibration=[x])
        assert [error.columns for error in report.errors] == [20, 0]


def test_in_layer_order_a_layer_sees_what_the_pruned_ones_give() -> None:
    model, x = mlp(), torch.randn(60, 12)
    dense = model[2].weight.detach().clone()
    report = thresher.prune_oneshot(model, "wanda", "sparsity=50%", calibration=[x], order="layer")
    with torch.no_grad():
        hidden = model[1](model[0](x)).double()
        change = hidden @ (dense - model[2].weight).double().T
    expected = float(change.square().sum() / (hidden @ dense.double().T).square().sum())
    assert report.errors[1].after == pytest.approx(expected, rel=1e-6)


def test_a_layer_that_no_input_reaches_goes_by_magnitude_and_the_report_says_so() -> None:
    class Idle(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(8, 4), nn.Linear(8, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.used(x)

    for order in ("block", "layer"):
        model = Idle()
        weight = model.idle.weight.detach().clone()
        report = thresher.prune_oneshot(
            model, thresher.Wanda(scope="layer"), "sparsity=50%", calibration=[torch.randn(9, 8)], order=order
        )
        assert torch.equal(model.idle.weight != 0, weight.abs() > weight.abs().flatten().sort().values[15])
        assert any("idle.weight" in note for note in report.budget.notes)


def test_the_model_keeps_its_modules_parameters_modes_and_hooks() -> None:
    model = mlp()
    model[1].eval()
    kinds, held = [type(m) for m in model.modules()], [id(p) for p in model.parameters()]
    modes = [m.training for m in model.modules()]
    thresher.prune_oneshot(model, "sparsegpt", "sparsity=50%", calibration=[torch.randn(9, 12)])
    assert [type(m) for m in model.modules()] == kinds
    assert [id(p) for p in model.parameters()] == held
    assert [m.training for m in model.modules()] == modes
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in model.modules())
    assert not any(bool(torch.signbit(p[p == 0]).any()) for p in model.parameters())


class Compiled(nn.Module):
    """As torch.compile wraps, without its imports."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self._orig_mod = inner


@pytest.mark.parametrize("wrap", [Compiled, nn.DataParallel])
def test_wrappers_are_looked_through(wrap: type) -> None:
    model = mlp()
    report = thresher.prune_oneshot(wrap(model), "wanda", "sparsity=50%", calibration=[torch.randn(9, 12)])
    assert [layer.name for layer in report.budget.layers] == ["0.weight", "2.weight", "4.weight"]
    assert zeros(model) == report.zeros == report.entries // 2


@pytest.mark.parametrize("groups", ["row", "column", "block:2x2"])
@pytest.mark.parametrize("method", ["magnitude", "wanda"])
def test_scores_also_rank_whole_groups(method: str, groups: str) -> None:
    model = nn.Sequential(nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 4))
    report = thresher.prune_oneshot(model, method, "sparsity=50%", calibration=[torch.randn(30, 8)], groups=groups)
    assert report.zeros >= 48
    with pytest.raises(InputError, match="sparsegpt"):
        thresher.prune_oneshot(model, "sparsegpt", "sparsity=50%", calibration=[torch.randn(3, 8)], groups=groups)


def test_bfloat16_weights_are_pruned_in_double_precision() -> None:
    model = mlp().bfloat16()
    report = thresher.prune_oneshot(
        model, "sparsegpt", groups="2:4", calibration=[torch.randn(64, 12).bfloat16()], rules=["exclude:2"]
    )
    assert model[0].weight.dtype == torch.bfloat16
    assert report.sparsity == 0.5


def test_the_report_is_data_and_text(tmp_path) -> None:  # type: ignore[no-untyped-def]
    report = thresher.prune_oneshot(mlp(), "wanda", "sparsity=50%", calibration=[torch.randn(20, 12)])
    report.save(tmp_path / "report.json")
    record = json.loads((tmp_path / "report.json").read_text())
    assert record["errors"][0]["name"] == "0.weight"
    assert record["budget"]["zeros"] == report.zeros
    assert "error, masked" in str(report)
    assert "asked sparsity=50%" in str(report)


@pytest.mark.parametrize("method", ["wanda", "magnitude"])
def test_without_updates_both_errors_agree(method: str) -> None:
    report = thresher.prune_oneshot(mlp(), method, "sparsity=50%", calibration=[torch.randn(20, 12)])
    assert all(error.masked == error.after > 0 for error in report.errors)


def test_nan_is_refused_and_says_where() -> None:
    x = torch.randn(10, 12)
    with pytest.raises(NumericsError, match="batch 2"):
        thresher.prune_oneshot(mlp(), "wanda", "sparsity=50%", calibration=[x, x * torch.nan])
    model = mlp()
    with torch.no_grad():
        model[2].weight[0, 0] = torch.nan
    with pytest.raises(NumericsError, match=r"2\.weight"):
        thresher.prune_oneshot(model, "wanda", "sparsity=50%", calibration=[x])
    before = mlp()
    after = copy.deepcopy(before)
    with pytest.raises(NumericsError, match=r"inputs of 0\.weight"):
        thresher.prune_oneshot(after, "wanda", "sparsity=50%", calibration=[x, x * torch.inf])
    assert torch.equal(before[0].weight, after[0].weight)


@pytest.mark.parametrize(
    ("change", "error", "says"),
    [
        ({"calibration": []}, InputError, "no batches"),
        ({"calibration": [torch.randn(2, 5)]}, InputError, "batch 1, on which the model fails"),
        ({"budget": None}, BudgetError, "no budget"),
        ({"budget": "sparsity=60%", "groups": "2:4", "rules": ["exclude:2"]}, BudgetError, "cannot reach"),
        ({"budget": "flops=0.1%"}, BudgetError, "cannot reach"),
        ({"method": "lats"}, InputError, "thresher.prune"),
        ({"method": "wanda:scop=row"}, InputError, "scope"),
        ({"method": "sparsegpt:block=x"}, InputError, "block=x"),
        ({"method": "sparsegpt:block=-1"}, InputError, "block=-1"),
        ({"method": "sparsegpt:quota=odd"}, InputError, "quota='odd'"),
        ({"method": "sparsegpt:damping=-1"}, InputError, "damping"),
        ({"method": "wanda:scope=all"}, InputError, "'row' or 'layer'"),
        ({"method": thresher.Wanda}, InputError, "configured"),
        ({"order": "up"}, InputError, "order='up'"),
        ({"allocation": "best"}, InputError, "allocation='best'"),
        ({"limit": 0}, InputError, "limit=0"),
        ({"blocks": "layers"}, InputError, "blocks='layers'"),
        ({"rules": ["exclude:nowhere"]}, InputError, "nowhere"),
        ({"rules": ["exclude:*"]}, InputError, "no prunable"),
        ({"groups": "5:7"}, InputError, "does not divide into 5:7"),
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, object], error: type[Exception], says: str) -> None:
    options: dict[str, object] = {"method": "wanda", "budget": "sparsity=50%", "calibration": [torch.randn(4, 12)]}
    with pytest.raises(error, match=says):
        thresher.prune_oneshot(mlp(), **{**options, **change})  # type: ignore[arg-type]


def test_a_model_that_is_being_pruned_is_refused() -> None:
    model = mlp()
    thresher.prune(model, None, "magnitude", "sparsity=50%")
    with pytest.raises(StateError, match="being pruned"):
        thresher.prune_oneshot(model, "wanda", "sparsity=50%", calibration=[torch.randn(4, 12)])
