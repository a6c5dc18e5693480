"""Optimizers that are named late, met when they first step, replaced, or never heard."""

import copy
import gc
import warnings
import weakref

import pytest
import torch
from trainer_bench import BUDGET, EVERY, STEPS, begin, check_same, decayed, net, outcome, plain_run, run, step

import thresher
from thresher.errors import InputError, StateError


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("how", ["followed", "met", "in place of another", "wrapped"])
def test_an_optimizer_named_late_is_as_good_as_one_named_at_once(method: str, how: str) -> None:
    pruner, optimizer = begin(method, named=how == "in place of another")
    if how == "in place of another":
        optimizer = decayed(pruner.model)
    if how == "wrapped":
        wrapper = type("Wrapper", (), {"optimizer": optimizer})()
        pruner.follow(wrapper)
    elif how != "met":
        pruner.follow(optimizer)
    check_same(outcome(run(pruner, optimizer)), plain_run(method, clip=None))


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("at", [1, 5, 10])
def test_what_was_learned_moves_along_to_a_new_optimizer(method: str, at: int) -> None:
    pruner, old = begin(method)
    run(pruner, old, last=at)
    new = decayed(pruner.model)
    new.load_state_dict({key: copy.deepcopy(value) for key, value in old.state_dict().items()})
    pruner.follow(new)
    check_same(outcome(run(pruner, new, first=at)), plain_run(method, clip=None))


def test_the_old_optimizer_is_no_longer_heard() -> None:
    pruner, old = begin()
    pruner.follow(decayed(pruner.model))
    step(pruner.model, old, 0)
    assert pruner.step == 0
    assert "thresher" not in old.state_dict()["param_groups"][0]


def test_each_threshold_travels_at_the_rate_of_its_new_group() -> None:
    pruner, _ = begin("lats:settle=1")
    first, last = pruner.model[0], pruner.model[2]
    groups = [{"params": [*first.parameters()], "lr": 0.02}, {"params": [*last.parameters()], "lr": 0.005}]
    optimizer = torch.optim.SGD(groups, lr=1.0)
    pruner.follow(optimizer)
    run(pruner, optimizer, last=6)
    high, low = pruner.process.thresholds()
    assert high == pytest.approx(4 * low)


def test_a_given_lr_schedule_is_that_of_the_new_optimizer() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, STEPS)
    expected = thresher.prune(net_like := net(), None, "lats", BUDGET, steps=STEPS)
    other = torch.optim.SGD(net_like.parameters(), lr=0.1)
    expected.follow(other, lr_schedule=torch.optim.lr_scheduler.CosineAnnealingLR(other, STEPS))
    pruner = thresher.prune(model, optimizer, "lats", BUDGET, steps=STEPS, lr_schedule=scheduler)
    run(pruner, optimizer)
    run(expected, other)
    assert pruner.trace.thresholds == expected.trace.thresholds


def test_what_cannot_be_followed_is_refused_and_the_run_goes_on() -> None:
    pruner, optimizer = begin()
    with pytest.raises(InputError, match=r"does not hold 0\.weight, 2\.weight"):
        pruner.follow(decayed(net()))
    with pytest.raises(InputError, match=r"follow\(None\)"):
        pruner.follow(None)  # type: ignore[arg-type]
    with pytest.raises(InputError, match="an optimizer of type str"):
        pruner.follow("sgd")  # type: ignore[arg-type]
    check_same(outcome(run(pruner, optimizer)), plain_run("asl:lr=1", clip=None))
    with pytest.raises(StateError, match="finished run"):
        pruner.follow(optimizer)
    with pytest.raises(StateError, match="without steps"):
        thresher.prune(net(), None, "magnitude", BUDGET).follow(optimizer)


def test_a_foreign_optimizer_is_not_met_and_half_a_one_is_refused() -> None:
    pruner, optimizer = begin(named=False)
    other = net()
    step(other, decayed(other), 0)
    assert pruner.step == 0
    half = torch.optim.SGD(pruner.model[0].parameters(), lr=0.1)
    with pytest.raises(InputError, match=r"does not hold 2\.weight"):
        step(pruner.model, half, 0)
    run(pruner, optimizer, last=1)
    assert pruner.step == 1


def test_two_pruners_that_wait_each_meet_their_own() -> None:
    first, one = begin(named=False)
    second, two = begin("power", named=False)
    run(second, two)
    run(first, one)
    check_same(outcome(first), plain_run("asl:lr=1", clip=None))
    check_same(outcome(second), plain_run("power", clip=None))


def test_a_pruner_that_waits_keeps_nothing_alive() -> None:
    pruner = begin(named=False)[0]
    gone = weakref.ref(pruner.model)
    del pruner
    gc.collect()
    assert gone() is None
    step(other := net(), torch.optim.SGD(other.parameters(), lr=0.1), 0)


@pytest.mark.parametrize(("named", "said"), [(True, "the AdamW that it follows"), (False, "any optimizer")])
def test_a_run_that_heard_no_step_says_so(named: bool, said: str) -> None:
    pruner, _ = begin(named=named)
    with pytest.warns(UserWarning, match=f"12 steps that heard none from {said}"):
        report = pruner.finish()
    assert "finished at step 0 of 12" in report.notes
    assert report.zeros == 332


def test_a_run_that_heard_one_and_a_one_shot_run_say_nothing() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        pruner, optimizer = begin()
        run(pruner, optimizer, last=1).finish()
        thresher.prune(net(), None, "magnitude", BUDGET).finish()


@pytest.mark.parametrize("steps", [-1, 2.5])
def test_an_impossible_number_of_steps_is_refused_without_an_optimizer_too(steps: float) -> None:
    with pytest.raises(InputError, match="len\\(loader\\) \\* epochs"):
        thresher.prune(net(), None, "lats", BUDGET, steps=steps)  # type: ignore[arg-type]
