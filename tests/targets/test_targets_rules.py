"""Rules by pattern, type and predicate; the text form; what cannot be read."""

import pytest
from torch import nn

from thresher.errors import InputError
from thresher.targets import Rule, bound, dense, exclude, include, parse_rule, select


def net() -> nn.Sequential:
    return nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 6), nn.BatchNorm1d(6), nn.Linear(6, 2))


def chosen(model: nn.Module, *rules: Rule) -> list[str]:
    return [target.name for target in select(model, rules).targets]


def test_convolutions_and_linear_weights_are_the_default() -> None:
    model = nn.ModuleDict(
        {
            "conv1": nn.Conv1d(2, 3, 3),
            "conv2": nn.Conv2d(2, 3, 3),
            "conv3": nn.Conv3d(2, 3, 3),
            "fc": nn.Linear(3, 3),
            "up": nn.ConvTranspose2d(2, 2, 2),
            "norm": nn.LayerNorm(3),
            "words": nn.Embedding(5, 3),
        }
    )
    assert chosen(model) == ["conv1.weight", "conv2.weight", "conv3.weight", "fc.weight"]


def test_a_pattern_speaks_of_module_names_and_of_tensor_names() -> None:
    assert chosen(net(), exclude("2")) == ["0.weight", "4.weight"]
    assert chosen(net(), exclude("2.weight")) == ["0.weight", "4.weight"]
    assert chosen(net(), exclude("[02]*")) == ["4.weight"]


def test_a_type_or_a_predicate_matches_too() -> None:
    def wide(name: str, module: nn.Module) -> bool:
        return isinstance(module, nn.Linear) and module.out_features == 6

    assert chosen(net(), exclude(wide)) == ["4.weight"]
    assert chosen(nn.Sequential(nn.Conv2d(1, 2, 3), nn.Linear(2, 2)), exclude(nn.Conv2d)) == ["1.weight"]


def test_a_later_rule_wins() -> None:
    assert chosen(net(), exclude("*"), include("4")) == ["4.weight"]
    assert chosen(net(), include("4"), exclude("4")) == ["0.weight", "2.weight"]
    target = select(net(), [dense("0"), bound("0", min=0.25, max=0.5)]).targets[0]
    assert (target.min_sparsity, target.max_sparsity) == (0.25, 0.5)


def test_of_two_rules_on_a_tied_weight_the_later_wins_whichever_name_it_uses() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    model["b"].weight = model["a"].weight
    assert select(model, [bound("b", max=0.5), bound("a", max=0.75)]).targets[0].max_sparsity == 0.75
    assert select(model, [bound("a", max=0.75), bound("b", max=0.5)]).targets[0].max_sparsity == 0.5


def test_dense_is_a_bound_of_no_zeros_and_stays_a_target() -> None:
    target = select(net(), [dense("2")]).targets[1]
    assert target.name == "2.weight"
    assert target.max_sparsity == 0.0


def test_including_a_module_means_its_matrices_and_a_vector_is_named_in_full() -> None:
    assert chosen(nn.Sequential(nn.Embedding(5, 3)), include("0")) == ["0.weight"]
    assert chosen(net(), include("3.weight"), include("0.bias"))[:2] == ["0.weight", "0.bias"]
    with pytest.raises(InputError, match="matches no tensor"):
        select(net(), [include("3")])


def test_a_vector_of_the_model_itself_can_be_included() -> None:
    assert chosen(nn.LayerNorm(4), include("weight")) == ["weight"]


def test_excluded_weights_are_skipped_with_the_rule_as_reason() -> None:
    (skip,) = select(net(), [exclude("4")]).skipped
    assert (skip.name, skip.reason) == ("4.weight", "excluded by rule '4'")


@pytest.mark.parametrize("rule", [exclude("layer9"), dense("3"), bound("1", max=0.5), include("1")])
def test_an_idle_rule_is_refused_with_the_names_there_are(rule: Rule) -> None:
    with pytest.raises(InputError, match="matches no tensor") as error:
        select(net(), [rule])
    assert "0, 2, 3, 4" in error.value.expected


def test_an_idle_rule_proposes_the_nearest_name() -> None:
    model = nn.Sequential()
    model.add_module("classifier", nn.Linear(2, 2))
    with pytest.raises(InputError, match="did you mean 'classifier'"):
        select(model, [exclude("clasifier")])


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("include:emb", include("emb")),
        ("exclude:conv1", exclude("conv1")),
        ("dense:fc", dense("fc")),
        ("layer3.*:min=50%,max=95%", bound("layer3.*", min=0.5, max=0.95)),
        ("fc:max=0.25", bound("fc", max=0.25)),
        ("fc:min=1", bound("fc", min=1.0)),
    ],
)
def test_rules_are_read_from_text(text: str, rule: Rule) -> None:
    assert parse_rule(text) == rule


@pytest.mark.parametrize("text", ["", "fc", "exclude:", ":max=0.5", "fc:mid=0.5", "fc:max=half", "fc:max", "fc:"])
def test_text_that_is_no_rule_is_refused(text: str) -> None:
    with pytest.raises(InputError, match="include:PATTERN"):
        parse_rule(text)


@pytest.mark.parametrize(("low", "high"), [(-0.1, 1), (0, 1.1), (float("nan"), 1), (0.6, 0.5)])
def test_impossible_bounds_are_refused(low: float, high: float) -> None:
    with pytest.raises(InputError):
        bound("fc", min=low, max=high)
