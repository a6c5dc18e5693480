"""Magnitude, gradual magnitude and random: which entries leave, when, and what they owe to the paper's curve."""

from itertools import pairwise

import pytest
import torch
from torch import Tensor, nn

import thresher
from thresher.attach import effective
from thresher.errors import BudgetError, InputError
from thresher.methods import Gmp, Magnitude, Random, parse_method


def two_layers() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(10, 10), nn.Linear(10, 10))
    with torch.no_grad():
        model[1].weight.mul_(0.01)
    return model


def pruned(method: object, budget: str = "sparsity=40%") -> tuple[nn.Sequential, Tensor, Tensor]:
    model = two_layers()
    thresher.prune(model, None, method, budget).finish()  # type: ignore[arg-type]
    return model, model[0].weight == 0, model[1].weight == 0


def test_global_ranking_takes_the_smallest_wherever_they_are() -> None:
    before = two_layers()
    _, first, second = pruned(Magnitude())
    everything = torch.cat([before[0].weight.flatten(), before[1].weight.flatten()]).abs()
    expected = torch.zeros(200, dtype=torch.bool)
    expected[everything.argsort()[:80]] = True
    assert torch.equal(torch.cat([first.flatten(), second.flatten()]), expected)
    assert int(second.sum()) > 70


def test_layer_ranking_takes_the_same_share_of_each() -> None:
    _, first, second = pruned(Magnitude(scope="layer"))
    assert (int(first.sum()), int(second.sum())) == (40, 40)


def test_survivors_keep_their_bits() -> None:
    before = two_layers()
    model, first, _ = pruned(Magnitude())
    assert torch.equal(model[0].weight[~first], before[0].weight[~first])


def test_random_draws_by_its_seed_alone() -> None:
    _, first, second = pruned(Random(seed=5))
    _, again, _ = pruned(Random(seed=5))
    _, other, _ = pruned(Random(seed=6))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)
    assert int(second.sum()) < 60  # a hundredth the magnitude is no reason to leave


def test_gradual_pruning_follows_the_cubic_curve_and_then_stands_still() -> None:
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    pruner = thresher.prune(model, optimizer, Gmp(start=0.2, end=0.8), "sparsity=80%", steps=100)
    found = {}
    for step in range(1, 101):
        optimizer.zero_grad()
        model(torch.ones(2, 10)).square().mean().backward()
        optimizer.step()
        found[step] = pruner.sparsity
    wanted = {20: 0.0, 35: 0.4625, 50: 0.7, 65: 0.7875, 80: 0.8, 100: 0.8}
    for step, sparsity in wanted.items():
        assert abs(found[step] - sparsity) <= 1 / 200 + 1e-9, step
    assert list(found.values()) == sorted(found.values())
    assert len({found[step] for step in range(80, 101)}) == 1


def sawtooth(method: Gmp) -> list[Tensor]:
    """Supports along a run in which a strong gradient pulls pruned entries back, were they to receive it."""
    model = nn.Linear(4, 4, bias=False)
    with torch.no_grad():
        model.weight.copy_(torch.arange(1.0, 17.0).reshape(4, 4) / 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.2, momentum=0.9)
    pruner = thresher.prune(model, optimizer, method, "sparsity=50%", steps=20)
    supports = []
    for _ in range(20):
        optimizer.zero_grad()
        (-model.weight.sum()).backward()
        optimizer.step()
        supports.append(effective(pruner.targets[0]) != 0)
    pruner.finish()
    assert torch.equal(model.weight != 0, supports[-1])
    return supports


def test_pruned_entries_stay_pruned_unless_they_may_regrow() -> None:
    supports = sawtooth(Gmp())
    assert all(not (new & ~old).any() for old, new in pairwise(supports))
    assert int(supports[0].sum()) > int(supports[-1].sum()) == 8


def test_the_support_is_fixed_after_the_last_update_even_if_entries_may_regrow() -> None:
    supports = sawtooth(Gmp(allow_regrow=True))
    assert all(torch.equal(support, supports[-1]) for support in supports[10:])


def test_the_threshold_is_the_largest_magnitude_that_left() -> None:
    model = two_layers()
    pruner = thresher.prune(model, None, "magnitude", "sparsity=40%")
    before = two_layers()
    for target, level in zip(pruner.targets, pruner.process.thresholds(), strict=True):
        weight = before.get_parameter(target.name).detach()
        assert level == float(weight[effective(target) == 0].abs().max()) > 0


def test_one_shot_masks_wait_for_the_positions_that_a_flops_budget_needs() -> None:
    model = two_layers()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    pruner = thresher.prune(model, optimizer, "magnitude", "flops=50%", steps=4)
    assert pruner.sparsity == 0.0
    model(torch.ones(2, 10)).sum().backward()
    optimizer.step()
    assert pruner.sparsity == 0.5


@pytest.mark.parametrize(
    "wrong",
    [{"start": 0.5, "end": 0.5}, {"start": -0.1}, {"end": 1.1}, {"updates": 0}, {"scope": "row"}],
)
def test_an_impossible_curve_is_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InputError):
        Gmp(**wrong)  # type: ignore[arg-type]


@pytest.mark.parametrize("method", ["magnitude", "gmp", "random"])
def test_masks_need_a_budget(method: str) -> None:
    with pytest.raises(BudgetError, match="no budget"):
        thresher.prune(two_layers(), None, method)


@pytest.mark.parametrize(
    ("text", "method"),
    [
        ("gmp:end=0.75,scope=layer", Gmp(end=0.75, scope="layer")),
        ("gmp:allow_regrow=true", Gmp(allow_regrow=True)),
        ("random:seed=3", Random(seed=3)),
        ("magnitude", Magnitude()),
        (" slats ", thresher.Lats(schedule="slats")),
        ("pgh:mode=early", thresher.Lats(schedule="pgh:beta=0.01", mode="early")),
        ("lats:schedule=pgh:beta=0.05,threshold=0.1", thresher.Lats(schedule="pgh:beta=0.05", threshold=0.1)),
    ],
)
def test_methods_are_read_from_text(text: str, method: object) -> None:
    assert parse_method(text) == method


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("lots", "one of magnitude"),
        ("gmp:speed=2", "one of start, end"),
        ("gmp:updates=often", "correct the value"),
        ("gmp:end", "correct the value"),
        ("random:seed=1.5", "correct the value"),
        ("lats:mode=late", "'during', 'early' or 'init'"),
        (Gmp, "write e.g. thresher.Lats"),
        (7, "a configured method"),
    ],
)
def test_text_that_is_no_method_is_refused(text: object, said: str) -> None:
    with pytest.raises(InputError, match=said):
        parse_method(text)  # type: ignore[arg-type]
