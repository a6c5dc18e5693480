"""What reaches thresholds through an optimizer and what does not: closures, clipping, decay, saved states."""

import copy
import math
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional as F
from trainer_bench import (
    BATCHES,
    BUDGET,
    EVERY,
    METHODS,
    STEPS,
    Outcome,
    begin,
    check_same,
    decayed,
    net,
    outcome,
    plain_run,
    run,
    step,
)

import thresher
from thresher.errors import StateError
from thresher.session.packing import pack, unpack


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("keyword", [True, False])
def test_gradients_of_a_closure_are_read_when_it_has_run(method: str, keyword: bool) -> None:
    pruner, optimizer = begin(method)
    for inputs, labels in BATCHES:

        def closure(inputs: Any = inputs, labels: Any = labels) -> Any:
            loss = F.cross_entropy(pruner.model(inputs), labels)
            optimizer.zero_grad()
            loss.backward()
            return loss

        loss = optimizer.step(closure=closure) if keyword else optimizer.step(closure)
        assert loss > 0
    check_same(outcome(pruner), plain_run(method, clip=None))


@pytest.mark.parametrize("method", METHODS)
def test_a_penalty_in_the_loss_gives_the_same_thresholds(method: str) -> None:
    found, expected = plain_run(method, explicit=True), plain_run(method)
    assert torch.tensor(found.thresholds) == pytest.approx(torch.tensor(expected.thresholds), abs=1e-12)


@pytest.mark.parametrize("method", METHODS)
def test_no_optimizer_decays_or_clips_a_threshold_whenever_it_was_made(method: str) -> None:
    pruner, optimizer = begin(method)
    run(pruner, optimizer, last=3)
    assert len([*pruner.model.parameters()]) == len([*net().parameters()])
    before = [pruner.process.shell(number).threshold.clone() for number in range(2)]
    weights = [p.detach().clone() for p in pruner.model.parameters()]
    pruner.close()
    for late in (optimizer, torch.optim.SGD(pruner.model.parameters(), lr=0.5, weight_decay=0.9)):
        step(pruner.model, late, 3, lambda model: nn.utils.clip_grad_norm_(model.parameters(), 1e-3))
    after = [pruner.process.shell(number).threshold for number in range(2)]
    assert all(torch.equal(mine, theirs) for mine, theirs in zip(after, before, strict=True))
    assert not any(torch.equal(p, old) for p, old in zip(pruner.model.parameters(), weights, strict=True))


def scaled(method: str, factor: float) -> Outcome:
    """Gradients times `factor` before each step of an AdamW that such a factor does not touch."""
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-2, eps=1e-30)
    pruner = thresher.prune(model, optimizer, method, BUDGET, steps=STEPS)

    def scale(model: nn.Module) -> None:
        for parameter in model.parameters():
            parameter.grad *= factor

    for number in range(STEPS):
        step(model, optimizer, number, scale)
    return outcome(pruner)


def test_a_clip_by_the_same_factor_all_along_does_not_reach_ltp_or_what_reads_no_gradients() -> None:
    for method in ("ltp", "lats", "power"):
        whole, clipped = scaled(method, 1.0), scaled(method, 1 / 16)
        assert torch.tensor(clipped.thresholds) == pytest.approx(torch.tensor(whole.thresholds), rel=1e-5)


@pytest.mark.parametrize("method", ["asl", "str"])
def test_a_clip_acts_on_asl_and_str_as_so_much_lower_an_lr(method: str) -> None:
    clipped, slow = scaled(f"{method}:lr=1", 1 / 16), scaled(f"{method}:lr={1 / 16}", 1.0)
    whole = scaled(f"{method}:lr=1", 1.0)
    assert clipped.zeros == slow.zeros == whole.zeros == 332
    rows = [torch.tensor(found.thresholds) for found in (clipped, slow, whole)]
    assert (rows[0] - rows[1]).abs().max() < 0.1 * (rows[0] - rows[2]).abs().max()


@pytest.mark.parametrize("method", EVERY)
@pytest.mark.parametrize("order", ["hooked first", "loaded first"])
def test_the_optimizers_state_brings_the_pruners_along(method: str, order: str) -> None:
    first, optimizer = begin(method)
    run(first, optimizer, last=7)
    saved = copy.deepcopy([first.model.state_dict(), optimizer.state_dict()])

    pruner, optimizer = begin(method, named=order == "hooked first")
    pruner.model.load_state_dict(saved[0])
    optimizer.load_state_dict(saved[1])
    if order == "loaded first":
        pruner.follow(optimizer)
    assert pruner.step == 7
    assert "thresher" not in optimizer.param_groups[0]
    check_same(outcome(run(pruner, optimizer, first=7)), plain_run(method, clip=None))


def test_a_finished_run_leaves_the_optimizers_state_as_it_was() -> None:
    pruner, optimizer = begin()
    run(pruner, optimizer).finish()
    assert set(optimizer.state_dict()["param_groups"][0]) == set(decayed(net()).state_dict()["param_groups"][0])


def test_the_state_of_a_dense_training_is_taken_as_it_is() -> None:
    model = net()
    dense = decayed(model)
    step(model, dense, 0)
    pruner, optimizer = begin()
    optimizer.load_state_dict(dense.state_dict())
    assert pruner.step == 0
    assert len(optimizer.state) == 4


def test_the_state_of_another_run_is_refused() -> None:
    _, optimizer = begin("power")
    with pytest.raises(StateError, match="as in this run"):
        begin("lats")[1].load_state_dict(optimizer.state_dict())


def test_a_state_loaded_back_at_once_changes_nothing() -> None:
    pruner, optimizer = begin("lats")
    run(pruner, optimizer, last=5)
    optimizer.load_state_dict(optimizer.state_dict())
    check_same(outcome(run(pruner, optimizer, first=5)), plain_run("lats", clip=None))


def test_weights_from_the_middle_of_a_run_need_its_state() -> None:
    first, optimizer = begin("lats")
    run(first, optimizer, last=5)
    pruner, optimizer = begin("lats")
    pruner.model.load_state_dict(first.model.state_dict())
    optimizer.load_state_dict(optimizer.state_dict())  # as Accelerate does when it wraps one
    with pytest.raises(StateError, match=r"a threshold at work in 0\.weight, and a pruner at its first step"):
        step(pruner.model, optimizer, 0)
    pruner.load_state_dict(first.state_dict())
    step(pruner.model, optimizer, 0)
    assert pruner.step == 6


def test_packed_states_are_equal_bytes_and_lose_nothing() -> None:
    state = {
        "none": None,
        "numbers": (1, 0.1 + 0.2, -0.0, float("inf")),
        3: [],
        "deep": {"": [{"empty": torch.zeros(0, 2), "wide": torch.tensor([1e-300], dtype=torch.float64)}]},
        "mask": torch.eye(3, dtype=torch.bool).T,
    }
    packed = pack(state)
    assert torch.equal(packed, pack(copy.deepcopy(state)))
    found = unpack(packed)
    assert repr(found) == repr(state)
    assert math.isnan(unpack(pack({"nan": math.nan}))["nan"])
