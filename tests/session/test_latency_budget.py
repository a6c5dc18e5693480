"""`latency=` for `thresher.prune`, with clocks that only count: no test waits for real time."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

import thresher
from thresher.budget.language import Budget
from thresher.budget.latency import LatencyCurve, LatencyTable
from thresher.budget.report import Report
from thresher.deploy.times import LayerCase
from thresher.deploy.times.cache import VARIABLE, TimesFile, cache_folder
from thresher.errors import BudgetError, InputError

MS = 1e-3


class Counting:
    """A layer takes 1 us for each nonzero weight and position; the network 1 ms more than its layers."""

    name, threads = "counting", 1

    def __init__(self) -> None:
        self.asked: list[LayerCase] = []

    def layer(self, case: LayerCase) -> Mapping[float, float]:
        self.asked.append(case)
        positions = torch.Size(case.inputs[:-1]).numel() if case.kind == "linear" else 1
        whole = 1e-6 * torch.Size(case.shape).numel() * positions
        return {zeros: whole * (1 - zeros) for zeros in (0.0, 0.5, 0.99)}

    def network(self, model: nn.Module, example: Any) -> float:
        return MS + sum(1e-6 * int((m.weight != 0).sum()) for m in model.modules() if isinstance(m, nn.Linear))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(40, 50, bias=False), nn.ReLU(), nn.Linear(50, 20, bias=False))


X = torch.randn(1, 40)


@pytest.mark.parametrize(("asked", "limit"), [("latency=2ms", 2 * MS), ("latency=60%", 2.4 * MS)])
def test_the_projection_meets_the_limit_by_the_table_as_closely_as_one_weight_allows(asked: str, limit: float) -> None:
    clock, model = Counting(), network()
    report = thresher.prune(model, None, "magnitude", asked, example=X, engine=clock).finish()
    assert report.latency is not None
    assert report.latency["dense"] == pytest.approx(4 * MS)
    assert report.latency["limit"] == pytest.approx(limit)
    assert report.latency["predicted"] <= limit < report.latency["predicted"] + 1.001e-6
    assert report.latency["measured"] == pytest.approx(report.latency["predicted"])
    assert report.got["latency"] == report.latency["measured"]
    assert (report.latency["engine"], report.latency["threads"]) == ("counting", 1)
    assert "latency: " in str(report)
    assert {case.shape for case in clock.asked} == {(50, 40), (20, 50)}
    assert Report.from_dict(json.loads(json.dumps(report.to_dict()))) == report


def test_time_is_taken_where_a_weight_costs_most_and_other_limits_hold_too() -> None:
    class Uneven(Counting):
        def layer(self, case: LayerCase) -> Mapping[float, float]:
            if case.shape == (20, 50):
                return {0.0: 1 * MS}  # takes no notice of zeros
            return super().layer(case)

    model = network()
    report = thresher.prune(model, None, "magnitude", "latency=3ms,sparsity=70%", example=X, engine=Uneven()).finish()
    assert report.sparsity >= 0.7
    assert report.latency is not None
    assert report.latency["predicted"] <= 3 * MS


@pytest.mark.parametrize("method", ["gmp", "lats", "asl", "ltp", "power", "str"])
def test_trained_methods_end_within_the_limit(method: str) -> None:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    pruner = thresher.prune(model, optimizer, method, "latency=50%", steps=12, example=X, engine=Counting())
    for _ in range(12):
        model(torch.randn(8, 40)).square().mean().backward()
        optimizer.step()
        optimizer.zero_grad()
    report = pruner.finish()
    assert report.latency is not None
    assert report.latency["predicted"] <= 2 * MS < report.latency["predicted"] + 5e-6


def test_a_resumed_run_keeps_the_table_that_it_began_with() -> None:
    class Slower(Counting):
        def network(self, model: nn.Module, example: Any) -> float:
            return 0.5 * MS + super().network(model, example)

    def begin(clock: Counting) -> tuple[Any, torch.optim.Optimizer]:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
        return thresher.prune(model, optimizer, "gmp", "latency=2ms", steps=5, example=X, engine=clock), optimizer

    first, _ = begin(Counting())
    state = first.state_dict()
    second, _ = begin(Slower())
    assert second.planner.table != first.planner.table
    second.load_state_dict(state)
    assert second.planner.table == first.planner.table


def test_a_network_that_is_slower_than_predicted_is_noted() -> None:
    class Wrong(Counting):
        def network(self, model: nn.Module, example: Any) -> float:
            return 4 * MS

    report = thresher.prune(network(), None, "magnitude", "latency=3ms", example=X, engine=Wrong()).finish()
    assert report.latency is not None
    assert report.latency["predicted"] <= 3 * MS < report.latency["measured"]
    assert any("over the limit" in note for note in report.notes)


@pytest.mark.parametrize(
    ("more", "what"),
    [
        ({"example": X}, "without engine"),
        ({"engine": "thresher"}, "without example"),
        ({}, "without engine and example"),
        ({"example": X, "engine": "torch"}, "same time whatever the zeros"),
    ],
)
def test_what_is_missing_is_named(more: dict[str, Any], what: str) -> None:
    with pytest.raises(InputError, match=what):
        thresher.prune(network(), None, "magnitude", "latency=2ms", **more)


def test_an_engine_without_the_limit_and_a_limit_out_of_reach_are_refused() -> None:
    with pytest.raises(InputError, match="without latency="):
        thresher.prune(network(), None, "magnitude", "sparsity=90%", example=X, engine=Counting())
    with pytest.raises(BudgetError, match="cannot reach"):
        thresher.prune(network(), None, "magnitude", "latency=0.9ms", example=X, engine=Counting())
    calibration = [torch.randn(4, 40)]
    with pytest.raises(BudgetError, match="with engine="):
        thresher.prune_oneshot(network(), "wanda", "latency=2ms", calibration=calibration)
    with pytest.raises(BudgetError, match="without an engine"):
        thresher.budget.planner.Planner(Budget.parse("latency=2ms"), (), None)  # type: ignore[arg-type]


def test_convolutions_tied_layers_and_blocks_are_described_to_the_clock() -> None:
    class Tied(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, groups=1)
            self.one, self.two = nn.Linear(8, 8), nn.Linear(8, 8)
            self.two.weight = self.one.weight

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x).mean((2, 3))
            return self.two(self.one(self.one(y)))

    clock = Counting()
    model = Tied()
    pruner = thresher.prune(
        model, None, "magnitude", "latency=100%", groups="block:4x1", example=torch.randn(2, 3, 8, 8), engine=clock
    )
    conv = next(case for case in clock.asked if case.kind == "conv2d")
    assert (conv.shape, conv.inputs, conv.stride, conv.padding) == ((8, 3, 3, 3), (2, 3, 8, 8), (2, 2), (1, 1))
    assert {case.block for case in clock.asked} == {(4, 1)}
    assert sum(case.kind == "linear" for case in clock.asked) == 3, "once for each call"
    assert pruner.planner is not None
    assert pruner.planner.table.entries == (8 * 27, 64)


def test_a_curve_is_straight_between_points_never_rises_and_is_flat_beyond() -> None:
    curve = LatencyCurve((0.0, 0.5, 0.9), (4.0, 5.0, 1.0))
    assert [curve.at(zeros) for zeros in (0.0, 0.3, 0.5, 0.7, 0.9, 1.0)] == pytest.approx([4, 4, 4, 2.5, 1, 1])
    for wrong in (((), ()), ((0.1,), (1.0,)), ((0.0, 0.0), (1.0, 1.0)), ((0.0, 0.5), (1.0,))):
        with pytest.raises(InputError):
            LatencyCurve(*wrong)


def test_the_table_adds_up_and_survives_json() -> None:
    table = LatencyTable(3.0, 1.0, (10, 20), (LatencyCurve((0.0, 1.0), (2.0, 0.0)), None))
    assert table.seconds([10, 20]) == 3.0
    assert table.seconds([5, 0]) == 2.0
    assert table.slopes() == [0.2, 0.0]
    assert LatencyTable.from_dict(json.loads(json.dumps(table.to_dict()))) == table


def test_times_are_kept_by_machine_and_shared_between_processes(tmp_path: Path) -> None:
    here, there = {"processor": "a"}, {"processor": "b"}
    one, other = TimesFile(tmp_path, here), TimesFile(tmp_path, here)
    one.put("x", {0.0: 2.0, 0.5: 1.0})
    other.put("y", {0.0: 3.0})
    assert TimesFile(tmp_path, here).get("x") == {0.0: 2.0, 0.5: 1.0}
    assert TimesFile(tmp_path, here).get("y") == {0.0: 3.0}
    assert TimesFile(tmp_path, there).get("x") is None
    one.path.write_text(one.path.read_text()[:-20])
    assert TimesFile(tmp_path, here).get("x") is None, "a broken file is measured anew"
    assert [path.suffix for path in tmp_path.iterdir()] == [".json"]


def test_a_folder_that_cannot_be_written_costs_only_the_memory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    times = TimesFile(tmp_path / "file", {})
    times.put("x", {0.0: 1.0})
    assert times.get("x") == {0.0: 1.0}


def test_the_cache_folder_can_be_named(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv(VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv(VARIABLE)
    assert cache_folder().name == "thresher"


def test_the_network_itself_says_how_much_more_its_layers_cost_among_others() -> None:
    class Colder(Counting):
        def network(self, model: nn.Module, example: Any) -> float:
            return MS + 2 * (super().network(model, example) - MS)  # each layer twice as long as alone

    model = network()
    before = [parameter.detach().clone() for parameter in model.parameters()]
    pruner = thresher.prune(model, None, "magnitude", "latency=60%", example=X, engine=Colder())
    assert pruner.planner is not None
    table = pruner.planner.table
    assert table.dense == pytest.approx(7 * MS)
    assert table.rest == pytest.approx(MS)
    assert table.seconds([1000, 500]) == pytest.approx(4 * MS)
    report = pruner.finish()
    assert report.latency is not None
    assert report.latency["measured"] == pytest.approx(report.latency["predicted"])
    stay = [parameter.detach() != 0 for parameter in model.parameters()]
    assert all(
        torch.equal(new[kept], old[kept]) for new, old, kept in zip(model.parameters(), before, stay, strict=True)
    )
