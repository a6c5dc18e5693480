"""Claims about runs that cannot go on, or should not begin, and about plans that say so beforehand."""

import pytest
import torch

from thresher import NumericsError
from thresher.apps.runs import Run
from thresher.apps.train import TrainConfig, fit, make_plan
from thresher.apps.train import engine as engine_module
from thresher.errors import BudgetError, InputError

SMALL = {"model": "small-cnn", "data": "digits", "limit": 256, "batch_size": 64, "epochs": 2, "threads": 1}
PRUNE = {**SMALL, "method": "lats", "budget": "sparsity=90%"}


def run_it(path, **asked):
    run = Run.create(path)
    return run, fit(TrainConfig(**asked), run)


def test_other_methods_need_an_epoch(tmp_path):
    with pytest.raises(InputError, match=r"epochs=0[\s\S]*magnitude, random"):
        run_it(tmp_path / "run", **{**PRUNE, "epochs": 0})


def test_a_loss_that_is_not_finite_stops_the_run_and_keeps_the_last_good_checkpoint(tmp_path, monkeypatch):
    true_step = engine_module.train_step

    def break_at_six(bench, inputs, labels):
        loss = true_step(bench, inputs, labels)
        return loss * float("nan") if bench.step == 5 else loss

    monkeypatch.setattr(engine_module, "train_step", break_at_six)
    with pytest.raises(NumericsError, match=r"step 6[\s\S]*lower the learning rate"):
        run_it(tmp_path / "run", **{**PRUNE, "checkpoint_every": 1})
    checkpoint = torch.load(tmp_path / "run" / "checkpoint.pt", weights_only=True)
    assert checkpoint["step"] == 5
    assert all(torch.isfinite(value).all() for value in checkpoint["model"].values() if value.is_floating_point())
    unwritten = ["trace.json", "report.json", "histograms.json", "result.json", "model.safetensors"]
    assert Run.open(tmp_path / "run").missing() == unwritten


def test_weights_that_ran_away_are_never_saved(tmp_path):
    with pytest.raises(NumericsError, match="step"):
        run_it(tmp_path / "run", **{**SMALL, "lr": 1e30, "checkpoint_every": 1})
    assert not (tmp_path / "run" / "model.safetensors").exists()


@pytest.mark.parametrize(
    ("budget", "words"),
    [("sparsity=99.9999%", "99.8"), ("flops=0.1%", "%"), ("bytes=100", "bytes"), ("params=100", "params=100")],
)
def test_an_impossible_budget_is_refused_before_training_with_what_is_reachable(tmp_path, budget, words):
    with pytest.raises(BudgetError, match=words):
        run_it(tmp_path / "run", **{**PRUNE, "budget": budget})
    assert not Run(tmp_path / "run").present()


def test_a_plan_lists_what_is_pruned_what_not_and_what_it_costs():
    plan = make_plan(TrainConfig(**{**PRUNE, "rules": ["exclude:stem.conv", "dense:linear"]}))
    assert "reduce.conv.weight" in [name for name, *_ in plan.targets]
    left = {name: reason for name, _, reason in plan.left_dense}
    assert "excluded by rule" in left["stem.conv.weight"]
    assert "dense by a rule" in left["linear.weight"]
    assert "BatchNorm2d" in left["stem.bn.weight"]
    assert plan.reachable is True
    assert (plan.steps, plan.steps_per_epoch) == (8, 4)
    assert plan.seconds_per_step > 0
    assert plan.total_macs == 536_192


def test_a_plan_says_when_the_budget_cannot_be_reached():
    plan = make_plan(TrainConfig(**{**PRUNE, "budget": "flops=0.01%"}))
    assert plan.reachable is False
    assert "flops" in plan.obstacle
