"""`thresher.shrink`: budgets held, the original untouched, the choice better than chance, the record true."""

from __future__ import annotations

import copy
import json

import pytest
import torch
from torch import Tensor, nn

import thresher
from thresher.errors import BudgetError, InputError
from thresher.shrinking import SELECTIONS, Forward, Scored
from thresher.shrinking.allocation.costs import Costs
from thresher.shrinking.allocation.greedy import Option, allocate, lower_hull, uniform
from thresher.shrinking.bounds.norms import operator_norm
from thresher.structure import coupled_groups


class Block(nn.Module):
    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, hidden, 3, padding=1, bias=False), nn.BatchNorm2d(hidden)
        self.conv2 = nn.Conv2d(hidden, width, 3, padding=1)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv2(self.bn1(self.conv1(x)).relu())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.one, self.two, self.head = nn.Conv2d(1, 6, 3), Block(6, 8), Block(6, 8), nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.two(self.one(self.stem(x).relu())).mean((2, 3)))


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 5))


def points(seed: int = 0, count: int = 200) -> Tensor:
    return torch.randn(count, 10, generator=torch.Generator().manual_seed(seed))


def macs(model: nn.Module) -> int:
    return sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))


@pytest.mark.parametrize("name", sorted(SELECTIONS))
def test_every_selection_holds_the_budget_and_leaves_the_model(name: str) -> None:
    model = mlp()
    if name == "bn-scale":
        model = nn.Sequential(model[0], nn.BatchNorm1d(32), model[1], model[2], nn.BatchNorm1d(24), *model[3:])
    before = copy.deepcopy(model.state_dict())
    labelled = [(points(), torch.arange(200) % 5)]  # for those that follow a loss
    small = thresher.shrink(model, name, "flops=50%", calibration=labelled)
    assert macs(small) <= macs(model) // 2
    assert macs(small) > 0.4 * macs(model)
    assert small(points()).shape == (200, 5)
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("budget", ["params=50%", "flops=40%", "bytes=60%", "params=600", "flops=60%,params=50%"])
def test_each_limit_is_held(budget: str) -> None:
    result = thresher.shrink_plan(mlp(), "ispasp", budget, calibration=[points()])
    report, asked = result.report, thresher.Budget.parse(budget)
    got = {"flops": report.macs, "params": report.params, "bytes": report.bytes}
    whole = {"flops": report.total_macs, "params": report.total_params, "bytes": report.total_bytes}
    for name, value in got.items():
        amount = getattr(asked, name)
        assert amount is None or value <= amount.limit(whole[name])


def test_the_cost_model_counts_what_is_there() -> None:
    model = Net().eval()
    example = torch.randn(2, 1, 6, 6)
    groups, _ = coupled_groups(model, example)
    costs = Costs(model, example, groups)
    plan = thresher.ShrinkPlan(model="Net", groups=tuple(group.plan(range(3)) for group in groups))
    small = plan.apply(model)
    again = Costs(small, example, ())
    found = costs.of({group.name: 3 for group in groups})
    assert found["params"] == sum(parameter.numel() for parameter in small.parameters())
    assert found["flops"] == again.of({})["flops"]
    # Names and offsets in the header have fewer digits in the smaller file: never more bytes than predicted.
    assert 0 <= found["bytes"] - again.of({})["bytes"] < 64


def test_keep_alone_sets_widths_and_all_is_the_network_itself() -> None:
    model, x = mlp(), points()
    small = thresher.shrink(model, "ispasp", keep={"0": 5, "2": 0.5}, calibration=[x])
    assert (small[0].out_features, small[2].out_features) == (5, 12)
    whole = thresher.shrink(model, "ispasp", keep={"*": 1.0}, calibration=[x])
    assert torch.equal(whole(x), model(x))
    assert torch.equal(thresher.shrink(model, "ispasp", "flops=100%", calibration=[x])(x), model(x))


def test_units_that_nobody_reads_go_first_and_the_output_stays() -> None:
    # Not i-SpaSP: with 2s >= units it keeps the largest hidden values, read or not.
    model, x = mlp(), points()
    with torch.no_grad():
        model[2].weight[:, :16] = 0
    small = thresher.shrink(model, "greedy", keep={"0": 16, "2": 24}, calibration=[x])
    assert torch.allclose(small(x), model(x), atol=1e-4)


def test_twins_are_merged_by_the_refit() -> None:
    model, x = mlp(), points()
    with torch.no_grad():
        for tensor in (model[0].weight, model[0].bias):
            tensor[16:] = tensor[:16]
    small = thresher.shrink(model, "omp", keep={"0": 16, "2": 24}, calibration=[x])
    assert (small(x) - model(x)).norm() < 1e-3 * model(x).norm()


def test_recovery_beats_norms_and_chance_and_the_refit_helps() -> None:
    model, x, fresh = mlp(), points(), points(7)
    wanted = model(fresh)

    def error(method: object) -> float:
        small = thresher.shrink(model, method, "flops=50%", calibration=[x], allocation="uniform")
        return float(((small(fresh) - wanted).norm() / wanted.norm()).detach())

    refitted, plain = error(thresher.ISpaSP()), error(thresher.ISpaSP(debias=False))
    assert refitted < plain
    assert refitted < min(error("l2"), error("random"))
    assert error(Scored(score="l2", debias=True)) < error("l2")


def test_later_layers_see_inputs_of_the_pruned_prefix() -> None:
    model, x = mlp(), points()
    again = thresher.shrink_plan(model, "ispasp", keep={"0": 8, "2": 8}, calibration=[x])
    assert again.report.notes == ()
    once = thresher.shrink_plan(model, "ispasp", keep={"0": 8, "2": 8}, calibration=iter([x]), memory=0)
    assert again.report.groups[1].energy != pytest.approx(once.report.groups[1].energy)
    assert "only once" in once.report.notes[0]
    hidden = again.model[:2](x) @ again.model[2].weight.T + again.model[2].bias
    assert hidden.shape == (200, 8)


def test_the_bound_holds_on_a_chain_and_the_record_says_so() -> None:
    for method in ("ispasp", "l2", "random"):
        report = thresher.shrink_plan(mlp(), method, "flops=40%", calibration=[points()]).report
        assert report.bound_proven
        assert 0 < report.error_per_sample <= report.bound
    norm = operator_norm(mlp()[0])
    assert norm == pytest.approx(float(torch.linalg.svdvals(mlp()[0].weight.detach().double())[0]))


def test_the_norm_of_a_convolution_is_an_upper_bound() -> None:
    module = nn.Conv2d(2, 3, 3, padding=1, bias=False)
    x = torch.randn(20, 2, 8, 8)
    assert (module(x).flatten(1).norm(dim=1) <= operator_norm(module) * x.flatten(1).norm(dim=1)).all()


def test_report_and_plan_are_data() -> None:
    model, x = mlp(), points()
    result = thresher.shrink_plan(model, thresher.ISpaSP(debias=False), "params=50%", calibration=[x])
    record = json.loads(result.report.to_json())
    assert record["version"] == 1
    assert [row["kept"] for row in record["groups"]] == [len(group.keep) for group in result.plan.groups]
    assert "relative output error" in str(result.report)
    replayed = result.plan.apply(mlp())
    assert torch.allclose(replayed(x), result.model(x), atol=1e-6)


def test_residual_blocks_keep_their_ends_unless_asked() -> None:
    model, x = Net().eval(), torch.randn(16, 1, 6, 6)
    inside = thresher.shrink(model, "ispasp", keep={"*.conv1": 4}, calibration=[x])
    assert (inside.one.conv1.out_channels, inside.one.conv2.out_channels, inside.stem.out_channels) == (4, 6, 6)
    across = thresher.shrink(model, "ispasp", "flops=40%", calibration=[x], scope="across")
    assert across.stem.out_channels == across.one.conv2.out_channels == across.two.conv2.out_channels
    taken = thresher.shrink(model, "ispasp", keep={"stem": 4}, calibration=[x], rules=["include:stem"])
    assert (taken.stem.out_channels, taken.one.conv1.out_channels) == (4, 8)


def test_channels_alone_when_taps_are_too_many() -> None:
    model, x = Net().eval(), torch.randn(16, 1, 6, 6)
    report = thresher.shrink_plan(model, "ispasp", keep={"one.conv1": 4}, calibration=[x], most_rows=20).report
    assert (report.groups[0].moments, report.groups[0].refitted) == ("channels only", False)


def test_rules_bounds_and_rounding() -> None:
    model, x = mlp(), points()
    kept = thresher.shrink(model, "ispasp", "flops=70%", calibration=[x], rules=["exclude:0"])
    assert kept[0].out_features == 32
    bounded = thresher.shrink(model, "ispasp", "flops=60%", calibration=[x], rules=["0:max=25%"])
    assert bounded[0].out_features >= 24
    round_ = thresher.shrink(model, "ispasp", "flops=50%", calibration=[x], round_to=8)
    assert round_[0].out_features % 8 == round_[2].out_features % 8 == 0
    assert thresher.shrink(model, "ispasp", "flops=60%", calibration=[x], rules=["dense:2"])[2].out_features == 24


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({}, BudgetError, "no budget"),
        ({"budget": "sparsity=50%"}, BudgetError, "use params="),
        ({"budget": "flops=0.1%"}, BudgetError, "at least"),
        ({"budget": "flops=0.1%", "allocation": "uniform"}, BudgetError, "at least"),
        ({"budget": "flops=50%", "rules": ["exclude:nothing"]}, InputError, "matches no group"),
        ({"budget": "flops=50%", "rules": ["exclude:*"]}, InputError, "no group of units to cut"),
        ({"keep": {"0": 0}}, InputError, "1 to 32 units"),
        ({"keep": {"0": 33}}, InputError, "1 to 32 units"),
        ({"keep": {"zero": 3}}, InputError, "matches no group"),
        ({"budget": "flops=50%", "calibration": []}, InputError, "no batches"),
        ({"budget": "flops=50%", "scope": "all"}, InputError, "inside"),
        ({"budget": "flops=50%", "round_to": 0}, InputError, "round_to"),
        ({"budget": "flops=50%", "allocation": "best"}, InputError, "allocation"),
        ({"budget": "flops=50%", "method": "lats"}, InputError, "one of ispasp"),
        ({"budget": "flops=50%", "method": thresher.Lats()}, InputError, r"thresher\.prune"),
    ],
)
def test_what_cannot_be_is_refused(options: dict[str, object], error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        thresher.shrink(mlp(), **{"calibration": [points()], **options})  # type: ignore[arg-type]


def test_configurations_are_checked() -> None:
    for wrong in (lambda: thresher.ISpaSP(iterations=0), lambda: Forward(kind="best"), lambda: Scored(score="l3")):
        with pytest.raises(InputError):
            wrong()
    with pytest.raises(InputError, match="no batch norm"):
        thresher.shrink(mlp(), "bn-scale", keep={"0": 3}, calibration=[points()])


def test_allocation_takes_the_cheap_errors_first_and_spends_what_is_left() -> None:
    sizes = (1, 2, 3, 4)
    options = [
        Option(name="matters", sizes=sizes, errors=(9.0, 6.0, 3.0, 0.0)),
        Option(name="idle", sizes=sizes, errors=(0.3, 0.2, 0.1, 0.0)),
    ]

    def cost(kept: dict[str, int]) -> dict[str, float]:
        return {"flops": float(sum(kept.values()))}

    assert allocate(options, {"flops": 6.0}, cost) == {"matters": 4, "idle": 2}
    assert allocate(options, {"flops": 3.0}, cost) == {"matters": 2, "idle": 1}
    assert allocate(options, {}, cost) == {"matters": 4, "idle": 4}
    assert uniform(options, {"flops": 5.0}, cost) == {"matters": 2, "idle": 2}
    assert lower_hull([1, 2], [0.0, 0.0]) == [1, 0]


def test_the_result_trains_and_saves() -> None:
    small = thresher.shrink(mlp(), "ispasp", "flops=50%", calibration=[points()])
    optimizer = torch.optim.SGD(small.parameters(), lr=0.1)
    before = small[0].weight.clone()
    small(points()).square().mean().backward()
    optimizer.step()
    assert not torch.equal(small[0].weight, before)
