"""What `thresher.prune` refuses, what it says, and that the model stays as it was."""

import pytest
import torch
from small_run import CONV, FC, begin, net, train

import thresher
from thresher.errors import InputError, NumericsError, StateError


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"steps": 0}, "len\\(loader\\) \\* epochs"),
        ({"steps": -3}, "steps=-3"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"start": 10}, "start=10 of 10 steps"),
        ({"start": -1}, "start=-1"),
        ({"rules": ["exclude:nothing"]}, "matches no tensor"),
        ({"groups": "3:2"}, "groups='3:2'"),
        ({"example": torch.zeros(2, 2)}, "on which the model fails"),
        ({"budget": "sparsity=99.99%"}, "cannot reach"),
        ({"budget": None}, "no budget"),
        ({"method": "magic"}, "one of magnitude"),
        ({"lr_schedule": [0.1] * 9}, "9 rates"),
        ({"lr_schedule": [-0.1] * 10}, "negative"),
    ],
)
def test_a_mistake_is_named_and_leaves_the_model_plain(more: dict[str, object], said: str) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    options = {"method": "gmp", "budget": "sparsity=90%", "steps": 10, **more}
    with pytest.raises(InputError, match=said):
        thresher.prune(model, optimizer, **options)  # type: ignore[arg-type]
    assert [type(module) for module in model] == [type(module) for module in net()]
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert not optimizer._optimizer_step_post_hooks


def test_an_optimizer_of_another_model_is_refused() -> None:
    other = torch.optim.SGD(net().parameters(), lr=0.1)
    with pytest.raises(InputError, match=r"does not hold 0\.weight, 4\.weight"):
        thresher.prune(net(), other, "gmp", "sparsity=90%", steps=3)
    with pytest.raises(InputError, match="an optimizer of type str"):
        thresher.prune(net(), "sgd", "gmp", "sparsity=90%", steps=3)  # type: ignore[arg-type]


def test_two_pruners_on_one_model_are_refused_and_the_first_goes_on() -> None:
    model, optimizer, pruner = begin()
    with pytest.raises(StateError, match=r"0\.weight is being pruned already"):
        thresher.prune(model, optimizer, "lats", "sparsity=50%", steps=5)
    train(model, optimizer, 10)
    assert pruner.step == 10
    assert pruner.finish().zeros == int(0.9 * (CONV + FC))


def test_a_model_can_be_pruned_again_after_it_is_finished() -> None:
    model, optimizer, pruner = begin("sparsity=50%")
    train(model, optimizer, 10)
    pruner.finish()
    again = thresher.prune(model, optimizer, "gmp", "sparsity=90%", steps=5)
    train(model, optimizer, 5)
    assert again.finish().zeros == int(0.9 * (CONV + FC))
    assert pruner.step == 10


def test_nan_weights_are_named_when_a_mask_is_due() -> None:
    model = net()
    with torch.no_grad():
        model[4].weight[0, 0] = torch.nan
    with pytest.raises(NumericsError, match="NaN among the weights"):
        thresher.prune(model, None, "magnitude", "sparsity=50%")
