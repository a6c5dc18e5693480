"""Budgets of `thresher.shrink`: latency by a table and a check, several limits at once, rounding, bounds of rules."""

from __future__ import annotations

import json
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import thresher
from thresher.budget.language import Amount
from thresher.deploy.latency import Ratio, Timing
from thresher.errors import BudgetError
from thresher.shrinking.allocation import latency, timing
from thresher.structure import coupled_groups


def mlp() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(10, 32), nn.ReLU(), nn.Linear(32, 24), nn.ReLU(), nn.Linear(24, 5))


def points(count: int = 200) -> Tensor:
    return torch.randn(count, 10, generator=torch.Generator().manual_seed(0))


def weights(model: nn.Module) -> int:
    return sum(module.weight.numel() for module in model.modules() if isinstance(module, nn.Linear))


@pytest.fixture
def clockwork(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """A machine on which a weight takes a microsecond, and every layer `overhead` microseconds that tables miss."""
    overhead = [0.0]

    def seconds(model: nn.Module) -> float:
        layers = sum(isinstance(module, nn.Linear) for module in model.modules())
        return (weights(model) + overhead[0] * layers) * 1e-6

    def clocked(value: float) -> Timing:
        return Timing(seconds=value, low=value, high=value, rounds=5, calls=1)

    def compared(dense: nn.Module, small: nn.Module, example: object) -> Ratio:
        a, b = seconds(dense), seconds(small)
        return Ratio(ratio=a / b, low=0.9 * a / b, high=1.1 * a / b, a=clocked(a), b=clocked(b))

    monkeypatch.setattr(latency, "compared", compared)
    monkeypatch.setattr(timing, "seconds_of", lambda run: seconds(run.func))

    def set_overhead(value: float) -> None:
        overhead[0] = value

    return set_overhead


@pytest.mark.parametrize("overhead", [0.0, 100.0])
@pytest.mark.parametrize("budget", ["latency=60%", "latency=0.8ms"])
@pytest.mark.parametrize("allocation", ["residual", "uniform"])
def test_latency_is_met_as_measured(
    clockwork: Callable[[float], None], budget: str, overhead: float, allocation: str
) -> None:
    clockwork(overhead)
    model = mlp()
    result = thresher.shrink_plan(model, "ispasp", budget, calibration=[points()], allocation=allocation)
    found = result.report.latency
    assert found is not None
    dense = (weights(model) + 3 * overhead) * 1e-6
    assert found.dense == pytest.approx(dense)
    assert found.limit == pytest.approx(0.6 * dense if "%" in budget else 0.8e-3)
    assert found.got <= found.limit
    assert found.got > 0.7 * found.limit  # not far below, either
    assert found.speedup == pytest.approx(dense / found.got)
    assert found.low < found.speedup < found.high
    assert found.asked == budget.removeprefix("latency=")
    assert json.loads(result.report.to_json())["latency"]["rounds"] == 5
    assert "times as fast" in str(result.report)


def test_a_latency_that_cannot_be_is_refused_with_what_can(clockwork: Callable[[float], None]) -> None:
    clockwork(10_000.0)
    with pytest.raises(BudgetError, match="latency"):
        thresher.shrink(mlp(), "ispasp", "latency=50%", calibration=[points()])


def test_the_table_times_each_layer_once_and_never_rises(monkeypatch: pytest.MonkeyPatch) -> None:
    timed: list[nn.Module] = []

    def noisy(run: object) -> float:
        timed.append(run.func)  # type: ignore[attr-defined]
        return 1.0 + 0.1 * (len(timed) % 3)

    monkeypatch.setattr(timing, "seconds_of", noisy)
    model = nn.Sequential(*(layer for _ in range(3) for layer in (nn.Linear(8, 8), nn.ReLU())), nn.Linear(8, 2))
    example = torch.randn(1, 8)
    groups, _ = coupled_groups(model, example)
    table = timing.LatencyTable(model, example, groups)
    # Whole, three widths out and three in for Linear(8, 8), which is there three times; whole and in for the last.
    assert len(timed) == 7 + 4
    saved = [table.saved({group.name: size for group in groups}) for size in range(1, 9)]
    assert saved == sorted(saved, reverse=True)
    assert saved[-1] == 0.0
    assert all(parameter.shape[-1] in (8, 2) for parameter in model.parameters())


def test_convolutions_and_norms_can_really_be_timed() -> None:
    model = nn.Sequential(
        nn.Conv2d(1, 8, 3), nn.BatchNorm2d(8), nn.ReLU(), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 2, 1)
    )
    example = torch.randn(1, 1, 8, 8)
    groups, _ = coupled_groups(model.eval(), example)
    table = timing.LatencyTable(model, example, groups)
    assert table.saved({}) == 0.0
    ratio = latency.compared(model, model, example)
    assert ratio.low <= ratio.ratio <= ratio.high
    assert latency.report_of(Amount(share=0.5), 1.0, 1.0, model, model, example).on.startswith("cpu")


def test_training_for_a_latency_budget_needs_an_engine_and_names_shrink() -> None:
    model = mlp()
    with pytest.raises(BudgetError, match=r"without engine and example(.|\n)*or shrink"):
        thresher.prune(model, torch.optim.SGD(model.parameters(), 0.1), thresher.Lats(), "latency=50%", steps=3)


def test_of_several_budgets_each_is_held_and_the_tightest_is_used_up(clockwork: Callable[[float], None]) -> None:
    model = mlp()
    loose, tight = "flops=90%,bytes=95%", "params=45%"
    report = thresher.shrink_plan(model, "ispasp", f"{loose},{tight},latency=95%", calibration=[points()]).report
    assert report.macs <= 0.9 * report.total_macs
    assert report.bytes <= 0.95 * report.total_bytes
    assert 0.4 * report.total_params < report.params <= 0.45 * report.total_params
    assert report.latency is not None
    assert report.latency.got <= report.latency.limit
    assert report.asked == "params=45%,flops=90%,bytes=95%,latency=95%"


@pytest.mark.parametrize("round_to", [1, 4, 8])
@pytest.mark.parametrize("allocation", ["residual", "uniform"])
def test_widths_are_multiples_or_whole(round_to: int, allocation: str) -> None:
    small = thresher.shrink(
        mlp(), "ispasp", "flops=60%", calibration=[points()], round_to=round_to, allocation=allocation
    )
    for layer, whole in ((small[0], 32), (small[2], 24)):
        assert layer.out_features % round_to == 0 or layer.out_features == whole


def test_a_width_without_a_multiple_stays_whole() -> None:
    small = thresher.shrink(mlp(), "ispasp", "flops=100%", calibration=[points()], round_to=32, rules=["2:max=50%"])
    assert small[2].out_features == 24
    with pytest.raises(BudgetError, match="round_to"):
        thresher.shrink(mlp(), "ispasp", "flops=10%", calibration=[points()], round_to=32)


def test_least_and_most_shares_of_rules_are_kept() -> None:
    both = thresher.shrink(
        mlp(), "ispasp", "flops=70%", calibration=[points()], rules=["0:min=50%,max=75%", "2:max=25%"]
    )
    assert 8 <= both[0].out_features <= 16
    assert 18 <= both[2].out_features <= 24
    with pytest.raises(BudgetError, match="at least"):
        thresher.shrink(mlp(), "ispasp", "flops=20%", calibration=[points()], rules=["0:max=10%", "2:max=10%"])


def test_a_budget_and_fixed_widths_together() -> None:
    small = thresher.shrink(mlp(), "ispasp", "flops=50%", keep={"0": 20}, calibration=[points()])
    assert small[0].out_features == 20
    assert weights(small) <= weights(mlp()) / 2
