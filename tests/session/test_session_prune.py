"""`thresher.prune` on a user's own loop: what it accepts, what it counts, what it reports."""

import json
from pathlib import Path

import pytest
import torch
from small_run import CONV, FC, IMAGES, POSITIONS, begin, net, train
from torch import nn
from torch.optim import Optimizer

import thresher
from thresher.budget.report import Report
from thresher.errors import BudgetError, InputError, StateError


def test_the_four_line_loop() -> None:
    model, optimizer, pruner = begin()
    train(model, optimizer, 10)
    report = pruner.finish()
    assert report.zeros == int(0.9 * (CONV + FC)) == sum(int((model[i].weight == 0).sum()) for i in (0, 4))


def test_the_optimizer_may_be_made_after_the_model_is_wrapped_or_compiled() -> None:
    model = net()
    wrapper = torch.compile(nn.DataParallel(model), backend="eager")
    pruner = thresher.prune(wrapper, torch.optim.SGD(model.parameters(), lr=0.1), "gmp", "sparsity=50%", steps=1)
    assert pruner.model is model


def test_a_wrapped_optimizer_is_followed_to_the_one_that_steps() -> None:
    class Accelerated:
        def __init__(self, optimizer: Optimizer) -> None:
            self.optimizer = optimizer

    model = net()
    inner = torch.optim.SGD(model.parameters(), lr=0.01)
    pruner = thresher.prune(model, Accelerated(Accelerated(inner)), "gmp", "sparsity=90%", steps=5)  # type: ignore[arg-type]
    train(model, inner, 3)
    assert pruner.step == 3


def test_positions_are_noted_in_the_first_step_of_training() -> None:
    model, optimizer, pruner = begin()
    assert pruner.positions == {}
    train(model, optimizer, 1)
    assert pruner.positions == POSITIONS
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())


def test_an_example_makes_one_shot_flops_budgets_possible() -> None:
    model = net()
    report = thresher.prune(model, None, "magnitude", "flops=50%", example=IMAGES).finish()
    whole = 36 * CONV + FC
    assert report.total_macs == whole
    assert report.macs == sum(share * int(model[i].weight.count_nonzero()) for i, share in ((0, 36), (4, 1)))
    assert whole // 2 - 36 < report.macs <= whole // 2
    with pytest.raises(StateError, match="pass example="):
        thresher.prune(net(), None, "magnitude", "flops=50%").finish()


def test_unprunable_parameters_count_whole_against_a_params_budget() -> None:
    model = net()
    report = thresher.prune(model, None, "magnitude", "params=1000").finish()
    assert report.got["params"] == 1000
    # The report itself counts what is not zero; eight batch norm biases still are.
    assert report.params == sum(int(p.count_nonzero()) for p in model.parameters()) == 992


@pytest.mark.parametrize(
    ("budget", "tight"),
    [
        ("params=30%,flops=90%,bytes=90%", "params"),
        ("params=60%,flops=20%,bytes=90%", "flops"),
        ("sparsity=30%,params=90%,bytes=30%", "bytes"),
    ],
)
def test_several_limits_hold_at_once_and_the_tightest_is_met(budget: str, tight: str, tmp_path: Path) -> None:
    dense = {
        "params": sum(p.numel() for p in net().parameters()),
        "flops": 36 * CONV + FC,
        "bytes": thresher.save(net(), tmp_path / "dense.safetensors").bytes,
    }
    step = {"params": 1, "flops": 36, "bytes": 16}
    report = thresher.prune(net(), None, "magnitude", budget, example=IMAGES).finish()
    asked = thresher.Budget.parse(budget)
    slack = {
        name: getattr(asked, name).limit(whole) - report.got[name]
        for name, whole in dense.items()
        if getattr(asked, name) is not None
    }
    assert min(slack.values()) >= 0
    assert slack[tight] < step[tight]


def test_a_bytes_budget_is_met_by_the_saved_file(tmp_path: Path) -> None:
    model = net()
    record = {"note": "x" * 500}
    pruner = thresher.prune(model, None, "magnitude", "bytes=5KB", record=record)
    report = pruner.finish()
    written = thresher.save(model, tmp_path / "a.safetensors", record=record).bytes
    assert report.bytes == written <= 5000
    assert written > 5000 - 16
    with pytest.raises(BudgetError, match="cannot reach"):
        thresher.prune(net(), None, "magnitude", "bytes=1KB", record=record)


def test_tied_weights_count_once_in_entries_and_at_each_place_in_flops() -> None:
    model = nn.Sequential(nn.Linear(6, 6, bias=False), nn.Linear(6, 6, bias=False))
    model[1].weight = model[0].weight
    report = thresher.prune(model, None, "magnitude", "sparsity=50%", example=torch.zeros(1, 6)).finish()
    assert (report.entries, report.total_macs, report.macs) == (36, 72, 36)
    assert report.total_params == 36


def test_a_prunable_bias_leaves_its_layers_matrix_in_the_fixed_cost() -> None:
    model = net()
    rules = ["exclude:4.weight", "include:4.bias"]
    pruner = thresher.prune(model, None, "magnitude", "sparsity=50%", rules=rules, example=IMAGES)
    assert pruner.fixed_macs == FC
    assert pruner.costs == {"0.weight": 36.0, "4.bias": 0.0}


def test_one_shot_may_prune_frozen_weights_and_training_may_not() -> None:
    model = net().requires_grad_(False)
    assert thresher.prune(model, None, "magnitude", "sparsity=50%").finish().sparsity == 0.5
    model = net()
    model[0].weight.requires_grad_(False)
    pruner = thresher.prune(model, torch.optim.SGD(model.parameters(), lr=0.1), "gmp", "sparsity=50%", steps=1)
    assert [skip.name for skip in pruner.skipped] == ["0.weight"]


def test_the_present_sparsity_can_be_read_at_any_time() -> None:
    model, optimizer, pruner = begin(method="magnitude")
    assert pruner.sparsity == int(0.9 * (CONV + FC)) / (CONV + FC)
    train(model, optimizer, 2)
    pruner.finish()
    assert pruner.sparsity == int(0.9 * (CONV + FC)) / (CONV + FC)


def test_closing_leaves_the_thresholds_where_they_are() -> None:
    model, optimizer, pruner = begin(method="lats")
    train(model, optimizer, 3)
    thresholds = pruner.process.thresholds()
    pruner.close()
    train(model, optimizer, 3)
    assert pruner.process.thresholds() == thresholds
    assert pruner.step == 3


def test_an_unfinished_run_says_so_in_its_report() -> None:
    model, optimizer, pruner = begin()
    train(model, optimizer, 4)
    assert "finished at step 4 of 10" in pruner.finish().notes


def test_the_report_is_written_and_read_back(tmp_path: Path) -> None:
    model, optimizer, pruner = begin(rules=["exclude:0"])
    train(model, optimizer, 10)
    report = pruner.finish(tmp_path / "report.json")
    assert Report.from_dict(json.loads((tmp_path / "report.json").read_text())) == report
    text = str(report)
    assert "4.weight" in text
    assert "asked sparsity=90%; got sparsity=0.9" in text
    assert "left dense: 0.weight (excluded by rule '0')" in text
    with pytest.raises(InputError, match="another version"):
        Report.from_dict({**report.to_dict(), "version": 2})
    with pytest.raises(InputError, match="cannot be written"):
        report.save(tmp_path / "missing" / "report.json")


def test_the_trace_holds_every_step_of_a_short_run() -> None:
    model, optimizer, pruner = begin(method="lats")
    train(model, optimizer, 10)
    trace = pruner.trace
    assert trace.steps == list(range(11))
    assert trace.clock == pytest.approx([0.01 * step for step in range(11)])
    assert trace.thresholds[-1] == pruner.process.thresholds()
    assert thresher.Trace.from_state(trace.state_dict()) == trace
