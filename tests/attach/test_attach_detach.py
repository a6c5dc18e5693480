"""Attaching and taking off: same Parameter objects, ties, class, order, copies."""

import copy
from collections import OrderedDict

import pytest
import torch
from torch import Tensor, nn

from thresher.attach import Shell, attach, detach, effective, finalize_copy, latent
from thresher.errors import StateError
from thresher.targets import Rule, include, select


class Half(Shell):
    """w = theta / 2: an operator whose effect is easy to see."""

    def forward(self, theta: Tensor) -> Tensor:
        return theta / 2


class BiasFirst(nn.Module):
    """Registers its bias before its weight."""

    def __init__(self) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(3))
        self.weight = nn.Parameter(torch.ones(3, 3))

    def forward(self, x: Tensor) -> Tensor:
        return x @ self.weight + self.bias


def attached(model: nn.Module, *rules: Rule) -> tuple:
    targets = select(model, rules).targets
    for target in targets:
        attach(target, Half())
    return targets


def taken_off(targets: tuple) -> None:
    detach(targets, [effective(target) for target in targets])


def tied() -> nn.Sequential:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(3, 3), nn.Tanh(), nn.Linear(3, 3))
    model[2].weight = model[0].weight
    return model


def test_the_forward_pass_reads_through_the_operator() -> None:
    layer = nn.Linear(3, 2, bias=False)
    x = torch.randn(5, 3)
    before = layer(x)
    (target,) = attached(layer)
    assert torch.equal(layer(x), before / 2)
    assert torch.equal(effective(target), latent(target).detach() / 2)
    assert not effective(target).requires_grad


def test_parameters_keep_their_identity_all_the_way() -> None:
    model = tied()
    before = list(model.parameters())
    targets = attached(model)
    assert len(targets) == 1
    assert {id(p) for p in model.parameters()} == {id(p) for p in before}
    taken_off(targets)
    assert [id(p) for p in model.parameters()] == [id(p) for p in before]


def test_the_plain_class_comes_back_exactly() -> None:
    model = tied()
    targets = attached(model)
    assert type(model[0]) is not nn.Linear
    assert isinstance(model[0], nn.Linear)
    taken_off(targets)
    for layer in (model[0], model[2]):
        assert type(layer) is nn.Linear
        assert set(vars(layer)) == set(vars(nn.Linear(3, 3)))
        assert not layer._modules


def test_ties_are_kept() -> None:
    model = tied()
    targets = attached(model)
    assert model[0].parametrizations.weight[0] is model[2].parametrizations.weight[0]
    taken_off(targets)
    assert model[0].weight is model[2].weight


@pytest.mark.parametrize(
    ("model", "rules"),
    [
        (nn.Linear(3, 2), []),
        (BiasFirst(), [include("weight")]),
        (nn.LSTM(4, 5), [include(nn.LSTM)]),
        (nn.MultiheadAttention(8, 2), [include(nn.MultiheadAttention)]),
        (nn.Sequential(OrderedDict(a=nn.Conv2d(1, 2, 3), b=nn.BatchNorm2d(2), c=nn.Linear(2, 2))), [include("b.bias")]),
    ],
)
def test_the_state_dict_keeps_its_names_and_their_order(model: nn.Module, rules: list[Rule]) -> None:
    names = list(model.state_dict())
    targets = attached(model, *rules)
    assert list(model.state_dict()) != names
    assert list(finalize_copy(model).state_dict()) == names
    taken_off(targets)
    assert list(model.state_dict()) == names


def test_the_optimizer_still_holds_the_parameters_and_its_momentum() -> None:
    model = nn.Linear(3, 2)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    targets = attached(model)
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    buffer = optimizer.state[model.parametrizations.weight.original]["momentum_buffer"]
    taken_off(targets)
    assert optimizer.state[model.weight]["momentum_buffer"] is buffer


def test_assigning_the_weight_writes_the_stored_parameter() -> None:
    layer = nn.Linear(3, 2, bias=False)
    (target,) = attached(layer)
    with torch.no_grad():
        layer.weight = torch.ones(2, 3)
    assert torch.equal(latent(target).detach(), torch.ones(2, 3))
    assert torch.equal(layer.weight, torch.full((2, 3), 0.5))


def test_finishing_leaves_a_deep_copy_alive_and_the_other_way_round() -> None:
    model = tied()
    targets = attached(model)
    x = torch.randn(4, 3)
    model(x).sum().backward()
    twin = copy.deepcopy(model)
    expected = model(x)
    plain = finalize_copy(twin)
    assert torch.equal(model(x), expected)
    taken_off(targets)
    assert torch.equal(model(x), expected)
    assert torch.equal(twin(x), expected)
    assert torch.equal(plain(x), expected)
    assert type(plain[0]) is nn.Linear
    assert plain[0].weight is plain[2].weight
    assert torch.equal(finalize_copy(twin)(x), expected)


def test_a_plain_copy_shares_nothing_with_the_original() -> None:
    model = nn.Linear(3, 2)
    attached(model)
    plain = finalize_copy(model)
    with torch.no_grad():
        plain.weight.fill_(7)
        plain.bias.fill_(7)
    assert not torch.equal(model.weight, plain.weight)
    assert not torch.equal(model.bias, plain.bias)


def test_attention_works_attached_and_finished() -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, batch_first=True)
    x = torch.randn(2, 5, 8)
    targets = attached(layer, include(nn.MultiheadAttention))
    assert [target.name for target in targets] == ["in_proj_weight", "out_proj.weight"]
    expected = layer(x, x, x)[0]
    expected.sum().backward()
    assert latent(targets[0]).grad is not None
    plain = finalize_copy(layer)
    taken_off(targets)
    assert type(layer) is nn.MultiheadAttention
    assert torch.equal(layer(x, x, x)[0], expected)
    assert torch.equal(plain(x, x, x)[0], expected)


def test_a_recurrent_layer_works_attached_copied_and_finished() -> None:
    torch.manual_seed(0)
    layer = nn.LSTM(4, 5, batch_first=True)
    x = torch.randn(2, 6, 4)
    dense = layer(x)[0]
    targets = attached(layer, include(nn.LSTM))
    assert [target.name for target in targets] == ["weight_ih_l0", "weight_hh_l0"]
    expected = layer(x)[0]
    assert not torch.equal(expected, dense)
    expected.sum().backward()
    assert all(latent(target).grad is not None for target in targets)
    plain = finalize_copy(layer)
    taken_off(targets)
    assert type(layer) is nn.LSTM
    copy.deepcopy(layer)
    assert torch.equal(layer(x)[0], expected)
    assert torch.equal(plain(x)[0], expected)
    layer(x)[0].sum().backward()


def test_one_tensor_of_a_module_can_go_before_the_other() -> None:
    layer = nn.LSTM(4, 5)
    first, second = attached(layer, include(nn.LSTM))
    weight = effective(first)
    taken_off((first,))
    assert torch.equal(layer.weight_ih_l0, weight)
    assert isinstance(layer.weight_ih_l0, nn.Parameter)
    assert torch.equal(layer.weight_hh_l0, latent(second) / 2)
    taken_off((second,))
    assert type(layer) is nn.LSTM


def test_attaching_twice_is_refused_and_changes_nothing() -> None:
    model = nn.Linear(3, 2)
    (target,) = attached(model)
    with pytest.raises(StateError, match="parametrized already"):
        attach(target, Half())
    assert len(model.parametrizations.weight) == 1


def test_frozen_parameters_stay_frozen() -> None:
    model = nn.Linear(3, 2).requires_grad_(False)
    targets = select(model, frozen=True).targets
    attach(targets[0], Half())
    assert not finalize_copy(model).weight.requires_grad
    taken_off(targets)
    assert not model.weight.requires_grad


def test_hooks_on_a_parameters_gradient_survive_attaching_and_finishing() -> None:
    """DistributedDataParallel hangs its reduction on the gradient accumulators of the Parameters it was given."""
    model = nn.Linear(3, 2)
    accumulators = [p.expand_as(p).grad_fn.next_functions[0][0] for p in model.parameters()]
    fired: list[int] = []
    for number, accumulator in enumerate(accumulators):
        accumulator.register_hook(lambda *_, number=number: fired.append(number))
    targets = attached(model)
    model(torch.ones(1, 3)).sum().backward()
    assert sorted(fired) == [0, 1]
    taken_off(targets)
    model(torch.ones(1, 3)).sum().backward()
    assert sorted(fired) == [0, 0, 1, 1]
