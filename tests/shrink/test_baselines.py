"""Claims about the baselines: Taylor follows the loss, torch-pruning's pruners choose as they do and land in a plan."""

from __future__ import annotations

import copy
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import thresher
from thresher.errors import BudgetError, InputError, NumericsError
from thresher.shrinking import Taylor, torch_pruned
from thresher.shrinking.composing import composed
from thresher.shrinking.selections.given import Given
from thresher.shrinking.selections.taylor import accumulate_gradients, filter_scores, unit_scores
from thresher.shrinking.selections.torch_pruners import KINDS
from thresher.structure import coupled_groups


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.stem, self.bn = nn.Conv2d(1, 6, 3), nn.BatchNorm2d(6)
        self.conv1, self.bn1, self.conv2 = (
            nn.Conv2d(6, 8, 3, padding=1),
            nn.BatchNorm2d(8),
            nn.Conv2d(8, 6, 3, padding=1),
        )
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.bn(self.stem(x)).relu()
        return self.head((x + self.conv2(self.bn1(self.conv1(x)).relu())).mean((2, 3)))


def net() -> Net:
    torch.manual_seed(0)
    made = Net().eval()
    for norm in (made.bn, made.bn1):
        nn.init.uniform_(norm.weight, 0.5, 2.0)
    return made


def batches(count: int = 3) -> list[tuple[Tensor, Tensor]]:
    draw = torch.Generator().manual_seed(1)
    return [(torch.randn(16, 1, 8, 8, generator=draw), torch.randint(3, (16,), generator=draw)) for _ in range(count)]


def macs(model: nn.Module) -> float:
    from thresher.shrinking.allocation.costs import Costs

    return Costs(model, batches(1)[0][0], ()).of({})["flops"]


def test_taylor_scores_are_those_of_a_slow_reference() -> None:
    model = net()
    found = filter_scores(model, batches())
    slow = copy.deepcopy(model)
    total = sum(F.cross_entropy(slow(x), y) for x, y in batches()) / 3
    (grad,) = torch.autograd.grad(total, [slow.conv1.weight])
    expected = [(slow.conv1.weight[row] * grad[row]).abs().sum().item() for row in range(8)]
    assert found["conv1"].tolist() == pytest.approx(expected, rel=1e-4)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_a_unit_that_the_loss_does_not_feel_goes_first() -> None:
    model = net()
    with torch.no_grad():
        model.conv2.weight[:, [1, 4]] = 0
    result = thresher.shrink_plan(model, Taylor(), keep={"conv1": 6}, calibration=batches())
    assert result.plan.groups[0].keep == (0, 2, 3, 5, 6, 7)


def test_the_loss_decides() -> None:
    model = net()

    def first_class_only(output: Tensor, labels: Tensor) -> Tensor:
        return output[:, 0].square().mean()

    assert not torch.allclose(
        filter_scores(model, batches(), first_class_only)["conv1"], filter_scores(model, batches())["conv1"]
    )


def test_the_by_name_form_and_the_batches_limit() -> None:
    model = net()
    named = thresher.shrink_plan(model, "taylor", "flops=60%", calibration=batches(), limit=2)
    same = thresher.shrink_plan(model, Taylor(), "flops=60%", calibration=batches(2))
    assert named.plan == same.plan
    assert named.report.method == "Taylor(debias=False)"


def test_frozen_weights_and_embeddings_are_scored_too() -> None:
    model = nn.Sequential(nn.Embedding(5, 4), nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2))
    model[1].weight.requires_grad_(False)

    def loss(output: Tensor, labels: Tensor) -> Tensor:
        return F.cross_entropy(output.flatten(0, 1), labels.flatten())

    found = filter_scores(model, [(torch.randint(5, (3, 7)), torch.randint(2, (3, 7)))], loss)
    assert {name: len(score) for name, score in found.items()} == {"0": 4, "1": 6, "3": 2}
    assert (found["1"] > 0).any()
    assert not model[1].weight.requires_grad


def test_a_mapping_with_labels_uses_the_loss_of_the_output() -> None:
    class Own(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.one = nn.Linear(2, 1)

        def forward(self, x: Tensor, labels: Tensor | None = None) -> SimpleNamespace:
            logits = self.one(x)
            return SimpleNamespace(logits=logits, loss=None if labels is None else (logits - labels).square().mean())

    model = Own()
    assert accumulate_gradients(model, [{"x": torch.ones(3, 2), "labels": torch.full((3, 1), 9.0)}]) == 1
    assert model.one.weight.grad is not None


@pytest.mark.parametrize(
    ("calibration", "error", "words"),
    [
        ([torch.randn(4, 1, 8, 8)], InputError, "without labels"),
        ([{"x": torch.randn(4, 1, 8, 8)}], InputError, "without labels"),
        (iter(batches()), InputError, "only once"),
        ([(torch.full((4, 1, 8, 8), 1e38), torch.zeros(4, dtype=torch.int64))], NumericsError, "NaN"),
    ],
)
def test_taylor_without_what_it_needs_is_refused(calibration: object, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        thresher.shrink(net(), "taylor", "flops=60%", calibration=calibration)


def test_a_loss_that_is_no_number_is_refused() -> None:
    with pytest.raises(InputError, match="one number"):
        filter_scores(net(), batches(), lambda output, labels: output)


@pytest.mark.parametrize("kind", KINDS)
def test_each_pruner_of_torch_pruning_meets_the_budget_in_a_plan(kind: str) -> None:
    model = net()
    before = copy.deepcopy(model.state_dict())
    result = torch_pruned(model, kind, "flops=50%", calibration=batches())
    assert 0.2 * macs(model) < macs(result.model) <= 0.5 * macs(model)
    assert (result.report.method, result.report.asked) == (kind, "flops=50%")
    x = batches()[0][0]
    assert torch.allclose(result.plan.apply(model)(x), result.model(x), atol=1e-5)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert result.model.head.out_features == 3


def test_the_choice_is_that_of_torch_pruning_itself() -> None:
    tp = pytest.importorskip("torch_pruning")
    model = net()
    result = torch_pruned(model, "tp-magnitude", "flops=50%", calibration=batches(), scope="inside")
    kept = {group.name: len(group.keep) for group in result.plan.groups}
    direct = copy.deepcopy(model)
    pruner = tp.pruner.MagnitudePruner(
        direct, batches()[0][0], importance=tp.importance.MagnitudeImportance(p=2),
        pruning_ratio_dict={direct.conv1: 1 - kept["conv1"] / 8 - 1e-3}, pruning_ratio=0.0,
        ignored_layers=[direct.head, direct.stem, direct.conv2],
    )  # fmt: skip
    pruner.step()
    assert direct.conv1.out_channels == kept["conv1"]
    assert torch.equal(direct.conv1.weight, result.model.conv1.weight)


def test_inside_leaves_the_stream_and_a_refit_helps() -> None:
    model, x = net(), batches()[0][0]
    plain = torch_pruned(model, "tp-taylor", "flops=70%", calibration=batches(), scope="inside")
    refitted = torch_pruned(model, "tp-taylor", "flops=70%", calibration=batches(), scope="inside", debias=True)
    assert plain.model.stem.out_channels == 6
    wanted = model(x)
    assert (refitted.model(x) - wanted).norm() < (plain.model(x) - wanted).norm()


@pytest.mark.parametrize(
    ("kind", "budget", "error", "words"),
    [
        ("tp-best", "flops=50%", InputError, "tp-magnitude"),
        ("tp-magnitude", "flops=0.01%", BudgetError, "pruning ratio"),
        ("tp-magnitude", "sparsity=50%", BudgetError, "params="),
        ("tp-magnitude", "latency=50%", BudgetError, "latency=50%"),
        ("tp-taylor", "flops=50%", InputError, "without labels"),
    ],
)
def test_what_torch_pruning_cannot_do_is_refused(kind: str, budget: str, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        torch_pruned(net(), kind, budget, calibration=[x for x, _ in batches()])


def test_no_batches_are_refused() -> None:
    with pytest.raises(InputError, match="no batches"):
        torch_pruned(net(), "tp-magnitude", "flops=50%", calibration=[])


def test_given_units_are_those_that_stay() -> None:
    method = Given(keep={"conv1": (1, 5)}, label="mine")
    result = thresher.shrink_plan(net(), method, keep={"conv1": 2}, calibration=batches())
    assert (result.plan.groups[0].keep, result.report.method) == ((1, 5), "mine")
    with pytest.raises(InputError, match="2, which were given"):
        thresher.shrink_plan(net(), method, keep={"conv1": 3}, calibration=batches())


def test_two_plans_compose_into_one() -> None:
    model, x = net(), batches()[0][0]
    one = thresher.shrink_plan(model, "l2", "flops=70%", calibration=batches(), scope="across")
    two = thresher.shrink_plan(one.model, "random", "flops=50%", calibration=batches(), scope="across")
    both = composed(one.plan, two.plan)
    assert torch.allclose(both.apply(model)(x), two.plan.apply(one.plan.apply(model))(x), atol=1e-6)
    inside = thresher.shrink_plan(one.model, "random", keep={"conv1": 2}, calibration=batches())
    partly = composed(one.plan, inside.plan).apply(model)
    assert (partly.conv1.out_channels, partly.stem.out_channels) == (2, one.model.stem.out_channels)
    with pytest.raises(InputError, match="first plan leaves"):
        composed(two.plan, two.plan)


def test_scores_of_a_unit_are_those_of_its_filters() -> None:
    model = net()
    groups = {group.name: group for group in coupled_groups(model, batches()[0][0])[0]}
    filters = {"stem": torch.arange(6.0).double(), "conv2": torch.full((6,), 10.0).double()}
    assert unit_scores(groups["stem"], filters).tolist() == [10.0, 11.0, 12.0, 13.0, 14.0, 15.0]
