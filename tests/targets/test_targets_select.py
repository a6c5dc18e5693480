"""Ties, frozen weights, depthwise layers and shapes: what becomes a target, and what is left out and why."""

import pytest
import torch
from torch import nn

from thresher.errors import InputError
from thresher.operators import parse_groups
from thresher.targets import exclude, include, select


class Tied(nn.Module):
    """A small language model head: the output layer shares the embedding's weight."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(7, 4)
        self.body = nn.Linear(4, 4)
        self.head = nn.Linear(4, 7, bias=False)
        self.head.weight = self.words.weight


def twins() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    return model


def test_a_tied_weight_is_one_target_with_all_its_places() -> None:
    model = twins()
    (target,) = select(model).targets
    assert target.name == "0.weight"
    assert target.sites == ((model[0], "weight"), (model[2], "weight"))
    assert target.numel == 16


def test_a_module_used_twice_is_one_place() -> None:
    layer = nn.Linear(4, 4)
    (target,) = select(nn.Sequential(layer, nn.ReLU(), layer)).targets
    assert target.sites == ((layer, "weight"),)


def test_a_weight_tied_to_an_embedding_is_left_and_says_so() -> None:
    selection = select(Tied())
    assert [target.name for target in selection.targets] == ["body.weight"]
    (skip,) = selection.skipped
    assert skip.name == "words.weight"
    assert skip.reason == "tied to words (Embedding); include it to prune both"


def test_including_the_embedding_prunes_both_sides_of_the_tie() -> None:
    model = Tied()
    target = select(model, [include("words")]).targets[0]
    assert target.name == "words.weight"
    assert [module for module, _ in target.sites] == [model.words, model.head]


def test_excluding_one_side_of_a_tie_keeps_both_dense() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4), nn.Linear(4, 4))
    model[2].weight = model[0].weight
    selection = select(model, [exclude("2")])
    assert [target.name for target in selection.targets] == ["1.weight"]
    assert selection.skipped[0].reason == "excluded by rule '2'"


def test_frozen_weights_are_left_unless_asked() -> None:
    model = nn.Sequential(nn.Linear(4, 4), nn.Linear(4, 4))
    model[0].weight.requires_grad_(False)
    selection = select(model)
    assert [target.name for target in selection.targets] == ["1.weight"]
    assert selection.skipped[0].reason == "frozen (requires_grad=False)"
    assert len(select(model, frozen=True).targets) == 2


@pytest.mark.parametrize(
    ("layer", "depthwise"),
    [
        (nn.Conv2d(4, 4, 3, groups=4), True),
        (nn.Conv2d(4, 8, 3, groups=4), True),
        (nn.Conv2d(4, 4, 3, groups=2), False),
        (nn.Conv2d(1, 4, 3), False),
        (nn.Linear(4, 4), False),
    ],
)
def test_filters_that_see_one_of_several_channels_are_depthwise(layer: nn.Module, depthwise: bool) -> None:
    assert select(nn.Sequential(layer)).targets[0].depthwise is depthwise


def test_shapes_that_do_not_divide_into_the_groups_are_left() -> None:
    model = nn.Sequential(nn.Conv2d(3, 8, 3), nn.Conv2d(8, 8, 3))
    selection = select(model, groups=parse_groups("2:4"))
    assert [target.name for target in selection.targets] == ["1.weight"]
    assert selection.skipped[0].reason == "shape (8, 3, 3, 3) does not divide into 2:4"


def test_vectors_have_no_groups() -> None:
    model = nn.Sequential(nn.Linear(4, 4))
    selection = select(model, [include("0.bias")], groups=parse_groups("row"))
    assert selection.skipped[0].reason == "one-dimensional, has no row groups"


def test_empty_weights_are_left() -> None:
    with pytest.warns(UserWarning, match="zero-element"):
        model = nn.Sequential(nn.Linear(0, 4), nn.Linear(4, 4))
    assert select(model).skipped[0].reason == "empty"


def test_weights_inside_attention_and_recurrent_layers_can_be_included() -> None:
    attention = nn.ModuleDict({"att": nn.MultiheadAttention(8, 2)})
    names = [target.name for target in select(attention, [include(nn.MultiheadAttention)]).targets]
    assert names == ["att.in_proj_weight", "att.out_proj.weight"]
    recurrent = nn.ModuleDict({"rnn": nn.LSTM(4, 5)})
    names = [target.name for target in select(recurrent, [include("rnn")]).targets]
    assert names == ["rnn.weight_ih_l0", "rnn.weight_hh_l0"]


def test_a_model_without_prunable_tensors_says_why() -> None:
    model = nn.Sequential(nn.Linear(2, 2)).requires_grad_(False)
    with pytest.raises(InputError, match=r"0\.weight: frozen"):
        select(model)
    with pytest.raises(InputError, match="no prunable tensor"):
        select(nn.BatchNorm1d(3))


def test_selecting_changes_nothing() -> None:
    model = twins()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    select(model)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert type(model[0]) is nn.Linear
