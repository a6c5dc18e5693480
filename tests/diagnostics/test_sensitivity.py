"""Sensitivity: one layer at a time, what one-shot pruning would do, and a network that comes back bit for bit."""

import copy
import json
import math

import pytest
import torch
from torch import Tensor, nn

import thresher
from thresher.diagnostics import CurvePoint, LayerCurve, Sensitivity, sensitivity
from thresher.errors import InputError, NumericsError, StateError
from thresher.targets import dense, exclude


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 8, 3, padding=1)
        self.bn = nn.BatchNorm2d(8)
        self.depthwise = nn.Conv2d(8, 8, 3, padding=1, groups=8, bias=False)
        self.linear = nn.Linear(8 * 16, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(self.depthwise(self.bn(self.conv(x))).flatten(1))


def net() -> Net:
    torch.manual_seed(0)
    model = Net()
    model(torch.randn(16, 1, 4, 4))  # running statistics of their own
    return model


def bits(model: nn.Module) -> dict[str, bytes]:
    return {name: tensor.detach().numpy().tobytes() for name, tensor in model.state_dict().items()}


def nonzeros(model: nn.Module) -> float:
    return float(sum((parameter != 0).sum() for parameter in model.parameters() if parameter.ndim > 1))


def names(found: Sensitivity) -> list[str]:
    return [layer.name for layer in found.layers]


@pytest.mark.parametrize("groups", ["weight", "row", "2:4"])
def test_each_layer_is_seen_as_one_shot_pruning_of_it_alone_would_leave_it(groups: str) -> None:
    model = net()
    everything = [name for name, module in model.named_modules() if isinstance(module, (nn.Conv2d, nn.Linear))]
    seen: list[dict[str, Tensor]] = []

    def look(one: nn.Module) -> float:
        seen.append({name: tensor.clone() for name, tensor in one.state_dict().items()})
        return 0.0

    found = sensitivity(model, look, (0.25, 0.5), groups=groups)
    number = 1
    for layer in found.layers:
        for share in (0.25, 0.5):
            twin = copy.deepcopy(model)
            others = [f"exclude:{name}" for name in everything if name != layer.name.removesuffix(".weight")]
            if groups == "2:4":  # tensors that do not divide are left out anyway; 2:4 cannot go beyond a half
                others = [rule for rule in others if rule.removeprefix("exclude:") + ".weight" in names(found)]
            thresher.prune(twin, None, "magnitude", f"sparsity={share:%}", rules=others, groups=groups).finish()
            for name, tensor in twin.state_dict().items():
                assert torch.equal(tensor, seen[number][name]), (layer.name, share, name)
            number += 1
    assert number == len(seen)


def test_the_network_comes_back_bit_for_bit_even_from_an_evaluate_that_trains_its_statistics() -> None:
    model = net()
    with torch.no_grad():
        model.linear.weight[0, 0], model.linear.weight[0, 1] = -0.0, 1e-45
    model.bn.eval()
    before, kept = bits(model), dict(model.named_parameters())

    def careless(one: nn.Module) -> float:
        one.train()
        return float(one(torch.randn(8, 1, 4, 4)).sum().detach())

    sensitivity(model, careless)
    assert bits(model) == before
    assert all(parameter is kept[name] for name, parameter in model.named_parameters())
    assert (model.training, model.bn.training, model.conv.training) == (True, False, True)


@pytest.mark.parametrize("call", [1, 2, 7])
def test_the_network_comes_back_bit_for_bit_when_evaluate_raises(call: int) -> None:
    model, calls = net(), []
    before = bits(model)

    def fails(one: nn.Module) -> float:
        calls.append(one.training)
        if len(calls) == call:
            raise RuntimeError("the disk is full")
        return 1.0

    with pytest.raises(RuntimeError, match="disk"):
        sensitivity(model, fails)
    assert bits(model) == before
    assert model.training
    assert not any(calls)  # measured in eval mode


def test_every_measurement_starts_from_the_same_network() -> None:
    model = net()
    inputs = torch.randn(8, 1, 4, 4)

    def careless(one: nn.Module) -> float:
        value = float(one(inputs).sum().detach())
        one.train()
        one(inputs)
        return value

    found = sensitivity(model, careless, (0.5,))
    again = sensitivity(model, lambda one: float(one(inputs).sum().detach()), (0.5,))
    assert found.layers == again.layers


def test_a_tied_weight_is_one_layer_and_falls_in_all_its_places() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[1].weight = model[0].weight
    found = sensitivity(model, lambda one: float(min((layer.weight == 0).sum() for layer in one)), (0.5,))
    assert [(layer.name, layer.points[0].value) for layer in found.layers] == [("0.weight", 8.0)]
    assert model[1].weight is model[0].weight


def test_guards_hold_so_that_what_is_measured_can_be_reached() -> None:
    model = net()
    most: list[int] = []

    def fewest_per_filter(one: Net) -> float:
        most.append(int((one.depthwise.weight != 0).flatten(1).sum(1).min()))
        return nonzeros(one)

    found = sensitivity(model, fewest_per_filter, (0.5, 0.95, 0.99))  # type: ignore[arg-type]
    half, many, more = found.layer("depthwise.weight").points
    assert (half.sparsity, many.sparsity) == (0.5, 64 / 72)
    assert more == CurvePoint(asked=0.99, sparsity=64 / 72, value=many.value)
    assert min(most) == 1
    assert "* depthwise.weight: at most 88.89%" in found.table()
    # 99 % of the 72 entries of `conv` would leave one, which the tensor may keep: nothing holds it back.
    assert not found.layer("conv.weight").held_back(found.layer("conv.weight").points[-1])


def test_all_of_a_layer_may_go_at_one_hundred_percent() -> None:
    found = sensitivity(net(), nonzeros, (1.0,))
    assert [layer.points[0].sparsity for layer in found.layers] == [1.0, 1.0, 1.0]


def test_rules_exclude_keep_dense_and_bound() -> None:
    rules = [exclude("conv"), dense("depthwise"), "linear:min=20%,max=60%"]
    found = sensitivity(net(), nonzeros, (0.1, 0.5, 0.9, 1.0), rules=rules)
    assert names(found) == ["linear.weight"]
    assert found.skipped == (("conv.weight", "excluded by rule 'conv'"), ("depthwise.weight", "kept dense by a rule"))
    reached = [point.sparsity for point in found.layers[0].points]
    assert reached == pytest.approx([0.2, 0.5, 0.6, 0.6], abs=1 / 512)


def test_zeros_that_are_there_already_count_and_cost_nothing() -> None:
    model = net()
    thresher.prune(model, None, "magnitude", "sparsity=80%", rules=["exclude:*conv", "exclude:depthwise"]).finish()
    found = sensitivity(model, nonzeros, (0.5, 0.9), rules=["exclude:conv", "exclude:depthwise"])
    (layer,) = found.layers
    assert layer.zeros == int(0.8 * layer.entries)
    assert layer.points[0].value == found.dense
    assert layer.points[0].sparsity == layer.zeros / layer.entries
    assert found.safe_sparsity(layer.name, 0.0) == layer.zeros / layer.entries


def test_ties_leave_in_order_of_the_lowest_index() -> None:
    model = nn.Linear(4, 1, bias=False)
    nn.init.constant_(model.weight, 1.0)
    first = torch.tensor([8.0, 4.0, 2.0, 1.0])
    found = sensitivity(model, lambda one: float(one(first).detach()), (0.25, 0.5, 0.75))
    # The guard keeps the first of the largest; of the others the lowest index leaves first.
    assert [point.value for point in found.layers[0].points] == [11.0, 9.0, 8.0]


def test_frozen_weights_are_measured_too() -> None:
    model = nn.Linear(4, 4).requires_grad_(False)
    assert names(sensitivity(model, nonzeros)) == ["weight"]


def test_half_precision_comes_back_too() -> None:
    model = nn.Linear(8, 8).to(torch.bfloat16)
    before = model.weight.detach().clone()
    found = sensitivity(model, nonzeros, (0.5,))
    assert found.layers[0].points[0].value == 32
    assert torch.equal(model.weight, before)


def test_progress_counts_every_evaluation() -> None:
    heard: list[tuple[int, int, str]] = []
    sensitivity(
        nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4)), nonzeros, (0.5, 0.9), progress=lambda *a: heard.append(a)
    )
    assert [done for done, _, _ in heard] == [0, 1, 2, 3, 4, 5]
    assert {total for _, total, _ in heard} == {5}
    assert [name for _, _, name in heard] == ["the whole network", *["0.weight"] * 2, *["1.weight"] * 2, ""]


@pytest.mark.parametrize("sparsities", [(), (0.0,), (0.5, 1.5), (math.nan,), (-0.1,)])
def test_shares_outside_0_to_1_are_refused(sparsities: tuple[float, ...]) -> None:
    with pytest.raises(InputError):
        sensitivity(net(), nonzeros, sparsities)


def test_shares_are_sorted_and_each_is_asked_once() -> None:
    assert sensitivity(net(), nonzeros, (0.9, 0.5, 0.9)).sparsities == (0.5, 0.9)


def test_a_network_that_is_being_pruned_or_has_nothing_to_prune_is_refused() -> None:
    model = net()
    thresher.prune(model, None, "magnitude", "sparsity=50%")
    with pytest.raises(StateError):
        sensitivity(model, nonzeros)
    with pytest.raises(InputError):
        sensitivity(nn.ReLU(), nonzeros)
    with pytest.raises(InputError, match="keep every tensor dense"):
        sensitivity(nn.Linear(2, 2), nonzeros, rules=[dense("*")])


def test_a_metric_that_is_no_number_is_the_worst_of_a_pruned_network_and_refused_of_the_whole_one() -> None:
    def metric(one: nn.Module) -> float:
        return math.nan if (one.weight == 0).any() else 3.0  # type: ignore[union-attr]

    found = sensitivity(nn.Linear(4, 4), metric, (0.5,))
    assert found.layers[0].points[0].value == -math.inf
    assert found.fragile(1e9) == ("weight",)
    assert found.safe_sparsity("weight", 1.0) == 0.0
    text = json.dumps(found.to_dict(), allow_nan=False)
    assert Sensitivity.from_dict(json.loads(text)) == found
    with pytest.raises(NumericsError):
        sensitivity(nn.Linear(4, 4), lambda one: math.nan)


def curve(*values: float, zeros: int = 0, shares: tuple[float, ...] = (0.5, 0.8, 0.9)) -> Sensitivity:
    points = tuple(CurvePoint(asked=s, sparsity=s, value=v) for s, v in zip(shares, values, strict=True))
    layer = LayerCurve(name="fc.weight", shape=(10, 10), entries=100, zeros=zeros, points=points)
    return Sensitivity(dense=90.0, sparsities=shares, layers=(layer,))


@pytest.mark.parametrize(
    ("values", "drop", "safe"),
    [
        ((90.0, 88.0, 80.0), 1.0, 0.65),  # half the way from 90 to 88
        ((88.0, 80.0, 70.0), 1.0, 0.25),  # below the first that was measured
        ((90.0, 89.0, 80.0), 1.0, 0.8),  # exactly the drop is still allowed
        ((90.0, 90.0, 90.0), 0.0, 0.9),  # never falls: as far as was measured
        ((88.0, 90.0, 90.0), 1.0, 0.25),  # the first fall counts, whatever comes later
        ((91.0, 89.0, 89.0), 0.0, 0.65),  # better than dense at first
    ],
)
def test_safe_sparsity_is_where_the_line_first_falls_by_the_drop(
    values: tuple[float, ...], drop: float, safe: float
) -> None:
    assert curve(*values).safe_sparsity("fc.weight", drop) == pytest.approx(safe)


def test_fragile_is_who_falls_at_the_smallest_sparsity() -> None:
    assert curve(88.9, 80.0, 70.0).fragile(1.0) == ("fc.weight",)
    assert curve(89.0, 10.0, 10.0).fragile(1.0) == ()
    for drop in (-1.0, math.nan, math.inf):
        with pytest.raises(InputError):
            curve(89.0, 10.0, 10.0).fragile(drop)
    with pytest.raises(InputError, match=r"fc\.weight"):
        curve(89.0, 10.0, 10.0).safe_sparsity("fc", 1.0)


def test_the_table_says_how_far_and_marks_what_was_never_reached() -> None:
    lines = curve(90.0, 89.5, 80.0).table(drop=1.0).splitlines()
    assert lines[0].split() == ["layer", "entries", "50%", "80%", "90%", "safe", "sparsity"]
    assert lines[2].split() == ["fc.weight", "100", "90.00", "89.50", "80.00", "80.5%"]
    assert curve(90.0, 90.0, 90.0).table(drop=1.0).splitlines()[2].split()[-1] == ">=90.0%"
    assert "safe" not in curve(90.0, 90.0, 90.0).table()


def test_the_record_survives_json_and_a_file(tmp_path) -> None:  # type: ignore[no-untyped-def]
    found = sensitivity(net(), nonzeros, rules=[exclude("conv")], about={"model": "net", "images": 3})
    found.save(tmp_path / "sensitivity.json")
    assert [path.name for path in tmp_path.iterdir()] == ["sensitivity.json"]
    record = json.loads((tmp_path / "sensitivity.json").read_text())
    assert record["version"] == 1
    assert Sensitivity.from_dict(record) == found


@pytest.mark.parametrize(
    "change",
    [{"version": 2}, {"kind": "report"}, {"more": 1}, {"layers": None}, {"layers": [{"name": "x"}]}, {"sparsities": 3}],
)
def test_other_records_are_refused(change: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Sensitivity.from_dict({**curve(1.0, 2.0, 3.0).to_dict(), **change})


def test_an_unwritable_path_is_an_input_error(tmp_path) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError):
        curve(1.0, 2.0, 3.0).save(tmp_path / "nowhere" / "x.json")
