"""What a report says about errors: decay beside its prediction, a bound that holds, or none and why."""

from __future__ import annotations

import json

import pytest
import torch
from torch import Tensor, nn

import thresher
from thresher.errors import InputError
from thresher.shrinking.allocation.curves import between, falling, losses_of
from thresher.shrinking.bounds.norms import operator_norm
from thresher.shrinking.bounds.propagation import output_bound


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(1, 6, 3, padding=1)
        self.conv1, self.bn1 = nn.Conv2d(6, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12)
        self.conv2, self.pool, self.head = nn.Conv2d(12, 6, 3, padding=1), nn.MaxPool2d(3, 2, 1), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.stem(x).relu()
        x = self.pool(x + self.conv2(torch.relu(self.bn1(self.conv1(x)))))
        return self.head(x.mean((2, 3)))


class Gated(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.one, self.two, self.gate = nn.Linear(4, 8), nn.Linear(8, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = self.two(self.one(x).relu())
        return x * self.gate(x)


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 64), nn.ReLU(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 5))


def points(seed: int = 0) -> Tensor:
    return torch.randn(150, 10, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("method", ["ispasp", "gfs", "l2", "random"])
@pytest.mark.parametrize("share", ["30%", "70%"])
def test_the_bound_of_a_residual_network_holds(method: str, share: str) -> None:
    torch.manual_seed(1)
    model, data = Residual().eval(), [torch.randn(8, 1, 6, 6) for _ in range(2)]
    report = thresher.shrink_plan(model, method, f"flops={share}", calibration=data).report
    assert report.bound_proven
    assert report.bound is not None
    assert 0 < report.error_per_sample <= report.bound
    assert "traced graph" in str(report)


def test_the_bound_holds_on_the_first_of_several_batches() -> None:
    report = thresher.shrink_plan(
        mlp(), "random", "flops=30%", calibration=[100 * points(), points(1), points(2)]
    ).report
    assert report.bound is not None
    assert report.error_per_sample <= report.bound


def test_on_a_chain_it_is_the_sum_of_products() -> None:
    model = mlp()
    norms = [operator_norm(model[place]) for place in (2, 4)]
    found = output_bound(model, {"2": 0.5, "4": 0.25}).value
    assert found == pytest.approx(0.5 * norms[1] + 0.25)
    assert output_bound(model, {"0": 1.0}).value == pytest.approx(norms[0] * norms[1])
    assert output_bound(model, {}).value == 0.0


def test_there_is_none_where_no_factor_is_known_and_the_reason_is_told() -> None:
    report = thresher.shrink_plan(Gated(), "ispasp", keep={"one": 4}, calibration=[torch.randn(9, 4)]).report
    assert (report.bound, report.bound_proven) == (None, False)
    assert "mul" in report.bound_note
    assert "no factor is known" in str(report)
    assert "over channels only" in output_bound(mlp(), {"2": None}).note


def test_what_a_module_of_torch_hides_from_the_graph_is_no_zero() -> None:
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0, batch_first=True)
    model = nn.Sequential(layer, nn.Linear(8, 2)).eval()
    report = thresher.shrink_plan(model, "ispasp", keep={"0.linear1": 4}, calibration=[torch.randn(4, 5, 8)]).report
    assert report.output_error > 0
    assert report.bound is None
    assert "not looked into" in report.bound_note


def test_a_network_that_cannot_be_traced_has_no_bound() -> None:
    class Branch(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return x if x.sum() > 0 else -x

    assert "cannot be traced" in output_bound(nn.Sequential(Branch()), {"0": 1.0}).note


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_overlapping_maxima_can_lengthen_and_the_factor_covers_it(stride: int) -> None:
    model = nn.Sequential(nn.Conv2d(1, 1, 1, bias=False), nn.MaxPool2d(3, stride, 1))
    nn.init.ones_(model[0].weight)
    x = torch.zeros(1, 1, 9, 9)
    x[0, 0, 4, 4] = 1.0
    bound = output_bound(model, {"0": 1.0}).value
    assert bound is not None
    assert float(model(x).norm()) <= bound + 1e-9


def test_decay_is_recorded_beside_its_prediction() -> None:
    report = thresher.shrink_plan(mlp(), thresher.ISpaSP(), "flops=40%", calibration=[points()]).report
    record = json.loads(report.to_json())
    for group, row in zip(report.groups, record["groups"], strict=True):
        assert [list(entry) for entry in group.decay] == row["decay"]
        sizes = [size for size, _, _ in group.decay]
        assert sizes == sorted(sizes)
        assert sizes[-1] < group.units
        anchor = min(group.decay, key=lambda entry: abs(entry[0] - group.units / 8))
        assert anchor[1] == pytest.approx(anchor[2])
        first, last = group.decay[0], group.decay[-1]
        assert group.exponent is not None
        assert last[2] / first[2] == pytest.approx((last[0] / first[0]) ** group.exponent)
        assert group.losses[0] <= group.energy * 4
        # The refit lowers the curve at every size.
        assert all(dict(group.curve)[size] <= value + 1e-9 for size, value, _ in group.decay)


def test_without_a_budget_nothing_is_predicted() -> None:
    report = thresher.shrink_plan(mlp(), "ispasp", keep={"0": 9}, calibration=[points()]).report
    assert report.groups[0].decay == report.groups[0].curve == ()
    with pytest.raises(InputError, match="without residual curves"):
        report.plot()


def test_curves_are_drawn() -> None:
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("agg")
    report = thresher.shrink_plan(mlp(), "ispasp", "flops=40%", calibration=[points()]).report
    axes = report.plot()
    drawn = [axis for axis in axes if axis.get_visible()]
    assert [axis.get_title() for axis in drawn] == [group.name for group in report.groups]
    assert all(len(axis.lines) >= 3 for axis in drawn)


def test_between_sizes_and_never_rising() -> None:
    curve = {1: 1.0, 4: 0.25, 8: 0.5, 16: 0.0}
    assert between(curve, 2) == pytest.approx(0.25 ** (1 / 3))
    assert (between(curve, 0), between(curve, 99), between(curve, 12)) == (1.0, 0.0, 0.25)
    assert falling(curve) == {1: 1.0, 4: 0.25, 8: 0.25, 16: 0.0}


def test_nested_supports_share_a_factorisation_and_others_do_not() -> None:
    from thresher.recovery import Problem, greedy, ispasp, refit_loss

    noise = torch.Generator().manual_seed(0)
    hidden = torch.randn(20, 60, generator=noise, dtype=torch.float64)
    problem = Problem.of(hidden @ hidden.T, torch.randn(6, 20, generator=noise, dtype=torch.float64))
    for method in (greedy, ispasp):
        found = {size: method(problem, size) for size in (1, 2, 5, 9, 12, 20)}
        for size, loss in losses_of(problem, found, refits=True).items():
            assert loss == pytest.approx(refit_loss(problem, found[size].support), rel=1e-4, abs=1e-3 * problem.energy)
        assert losses_of(problem, found, refits=False)[5] == found[5].loss
