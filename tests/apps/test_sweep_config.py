"""Claims about what a sweep is asked: lists, ranges, the plan, and what is refused before anything runs."""

import json
from collections import Counter

import pytest
import torch

from thresher.apps.data import ArrayData, DataSplit, hold_out, load_data
from thresher.apps.sweep import planned_groups, planned_runs, read_sweep
from thresher.apps.sweep.plan import group_of, run_config, tuning_config
from thresher.apps.sweep.search import Range, first_points, parse_range, ranges_for, settings_from, usual_settings
from thresher.errors import InputError

ASKED = {"methods": "gmp,lats-early", "budgets": "sparsity=90%,sparsity=95%", "seeds": "0,1,2", "model": "mlp"}


def read(**changes):
    return read_sweep({**ASKED, **changes})


def test_text_and_lists_mean_the_same_and_survive_json():
    listed = {"methods": ["gmp", "lats-early"], "budgets": ["sparsity=90%", "sparsity=95%"], "seeds": [0, 1, 2]}
    assert read() == read(**listed)
    for config in (read(), read(tune=4, search=["lr=0.01..0.1"], tune_budget="sparsity=95%"), read(lr="0.1, 0.2")):
        assert read_sweep(json.loads(json.dumps(config.record()))) == config


def test_semicolons_separate_where_entries_hold_commas():
    config = read(methods="lats:mode=early,settle=0.5; gmp", budgets="flops=50%,bytes=9KB;")
    assert config.methods == ("lats:mode=early,settle=0.5", "gmp")
    assert config.budgets == ("flops=50%,bytes=9KB",)


def test_one_number_is_a_list_of_one():
    assert read(seeds=3, lr=0.1).seeds == (3,)
    assert read(lr=0.1).lr == (0.1,)
    assert read().lr == (0.05,)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"methods": ""}, "without methods"),
        ({"budgets": ()}, "without budgets"),
        ({"seeds": ""}, "seeds"),
        ({"seeds": "0,0"}, "each once"),
        ({"seeds": "0.5"}, "whole numbers"),
        ({"seeds": "-1"}, "seed"),
        ({"seeds": [True]}, "whole numbers"),
        ({"lr": "fast"}, "numbers"),
        ({"lr": "0"}, "lr"),
        ({"methods": "latz"}, "lats"),
        ({"methods": "lats:mode=early,settle=0.5"}, "semicolons"),
        ({"budgets": "sparsity=120%"}, "sparsity=1.2"),
        ({"method": "gmp"}, "'methods'"),
        ({"seed": 1}, "'seeds'"),
        ({"epoch": 3}, "epochs"),
        ({"model": None}, "model"),
        ({"tune": -1}, "tune=-1"),
        ({"tune": 3, "held_out": 0.0}, "held_out=0"),
        ({"tune": 3, "held_out": float("nan")}, "held_out"),
        ({"tune": 3, "lr": "0.1,0.2"}, "--search lr=0.1..0.2"),
        ({"search": "lr=0.1..0.2"}, "--tune N"),
        ({"tune": 3, "tune_budget": "sparsity=80%"}, "sparsity=90%"),
        ({"tune": 3, "search": "lr=0.2..0.1"}, "lower end first"),
        ({"tune": 3, "search": "lr=0.1"}, "lr=0.01..0.2"),
        ({"tune": 3, "search": "lr=0..1"}, "above 0"),
        ({"tune": 3, "search": "lr=0.1..inf"}, "lower end first"),
        ({"tune": 3, "search": "epochs=1..3"}, "METHOD:FIELD"),
        ({"tune": 3, "search": "lats:settle=0.1..0.9"}, "gmp, lats-early"),
        ({"tune": 3, "search": "gmp:ends=0.1..0.9"}, "'ends'"),
        ({"tune": 3, "search": "lats-early:settle=0.5..1.5"}, "settle=1.5"),
    ],
)
def test_what_cannot_be_meant_is_refused(changes, words):
    with pytest.raises(InputError) as refused:
        read(**changes)
    assert words in str(refused.value)


def test_every_combination_is_planned_once_the_first_seed_first():
    runs = planned_runs(read(lr="0.1,0.2"))
    assert len({run.name for run in runs}) == len(runs) == 2 * 2 * 3 * 2
    assert len({(run.method, run.budget, run.seed, run.lr) for run in runs}) == len(runs)
    assert [run.seed for run in runs] == sorted(run.seed for run in runs)
    assert runs[0].name == "gmp_sparsity-90_lr-0.1_seed-0"


def test_names_are_folder_names_and_never_meet():
    runs = planned_runs(read(methods="gmp", budgets=["sparsity=90%", "sparsity= 90 %", "bytes=" + "0" * 200 + "9KB"]))
    names = [run.name for run in runs]
    assert len(set(names)) == len(names)
    assert all(len(name) < 120 and not set(name) & set('/\\:*?"<>|% ') for name in names)


def test_the_configuration_of_a_run_is_that_of_prune():
    config = read(epochs=3)
    asked = run_config(config, planned_runs(config)[1], {"lr": 0.3})
    assert (asked.method, asked.budget, asked.seed, asked.lr) == ("lats-early", "sparsity=90%", 0, 0.3)
    assert (asked.epochs, asked.held_out) == (3, 0.0)


def test_every_method_is_tuned_equally_at_each_budget_or_at_one():
    config = read(tune=5)
    groups = planned_groups(config)
    assert [(group.method, group.budget) for group in groups] == [
        (method, budget) for budget in config.budgets for method in config.methods
    ]
    assert planned_groups(read()) == ()
    one = read(tune=5, tune_budget="sparsity=95%")
    assert Counter(group.budget for group in planned_groups(one)) == {"sparsity=95%": 2}
    assert {group_of(one, run, planned_groups(one)).budget for run in planned_runs(one)} == {"sparsity=95%"}
    assert all(run.lr is None for run in planned_runs(config))


def test_tuning_runs_are_held_out_and_share_one_seed():
    config = read(tune=5, seeds="7,8")
    asked = tuning_config(config, planned_groups(config)[0], {"method": "gmp:end=0.4", "lr": 0.2})
    assert (asked.held_out, asked.seed, asked.method, asked.lr) == (0.1, 7, "gmp:end=0.4", 0.2)


def test_a_range_is_walked_by_magnitudes_evenly_or_in_whole_numbers():
    methods = ["gmp", "lats"]
    rate = parse_range("lr = 0.01 .. 1", methods)
    assert [rate.at(share) for share in (0.0, 0.5, 1.0)] == [0.01, 0.1, 1.0]
    assert [parse_range("gmp:end=0.25..0.75", methods).at(share) for share in (0.0, 0.5, 1.0)] == [0.25, 0.5, 0.75]
    updates = parse_range("gmp:updates=1..4", methods)
    assert updates.whole
    assert Counter(updates.at(share / 1000) for share in range(1000)) == {1: 250, 2: 250, 3: 250, 4: 250}
    assert updates.at(1.0) == 4
    assert not parse_range("lats:threshold=0..1", ["lats"]).whole  # 0 and 1 of a field that takes any number


def test_the_learning_rate_is_always_searched():
    assert ranges_for((), "gmp", ["gmp"], 0.05) == (Range(what="lr", low=0.0125, high=0.2),)
    both = ("lats:settle=0.5..0.9", "lr=0.01..0.02")
    assert [each.what for each in ranges_for(both, "gmp", ["gmp", "lats"], 0.05)] == ["lr"]
    assert [each.what for each in ranges_for(both, "lats", ["gmp", "lats"], 0.05)] == ["lats:settle", "lr"]


@pytest.mark.parametrize("count", [1, 2, 5, 9, 20])
def test_a_search_begins_with_the_usual_setting_and_a_fixed_spread(count):
    ranges = ranges_for(("lats:settle=0.5..0.9",), "lats", ["lats"], 0.05)
    usual = usual_settings(ranges, "lats", {"lr": 0.05})
    points = first_points(ranges, usual, count)
    assert points == first_points(ranges, usual, count)
    assert len(points) == min(count, max(5, (count + 1) // 2))
    assert points[0] == {"lr": 0.05, "lats:settle": 0.7}  # settle is None in the method: the middle
    assert len({tuple(point.values()) for point in points}) == len(points)
    assert all(each.low <= point[each.what] <= each.high for point in points for each in ranges)


def test_a_usual_setting_outside_the_ranges_is_not_tried():
    ranges = ranges_for(("lr=0.1..0.2",), "gmp", ["gmp"], 0.05)
    assert all(0.1 <= point["lr"] <= 0.2 for point in first_points(ranges, {"lr": 0.05}, 5))


def test_a_point_becomes_settings_that_a_person_could_have_written():
    found = settings_from(
        "lats:mode=early,settle=0.6", {"lr": 0.0123456, "lats:settle": 0.712345, "weight_decay": 1e-4}
    )
    assert found == {"method": "lats:mode=early,settle=0.7123", "lr": 0.01235, "weight_decay": 1e-4}
    assert settings_from("gmp", {"gmp:updates": 7}) == {"method": "gmp:updates=7"}
    assert settings_from("gmp", {"lr": 0.1}) == {"method": "gmp", "lr": 0.1}


def test_held_out_images_come_from_the_training_part_alone():
    data = load_data("digits")
    parts = hold_out(data, 0.2)
    assert (len(parts.train), len(parts.test)) == (1150, 287)
    whole = Counter(image.numpy().tobytes() for image in data.train.images)
    split = [Counter(image.numpy().tobytes() for image in part.images) for part in (parts.train, parts.test)]
    assert split[0] + split[1] == whole
    shares = torch.bincount(parts.test.labels) / torch.bincount(data.train.labels)
    assert ((shares - 0.2).abs() < 0.01).all()
    assert torch.equal(hold_out(data, 0.2).test.images, parts.test.images)
    assert (parts.mean, parts.classes) == (data.mean, data.classes)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.999])
def test_holding_out_nothing_or_everything_is_refused(share):
    part = ArrayData(torch.zeros(10, 1, 2, 2, dtype=torch.uint8), torch.zeros(10, dtype=torch.int64))
    with pytest.raises(InputError, match="both sides"):
        hold_out(DataSplit("ten", part, part, ("a",), (0.0,), (1.0,), (1, 2, 2)), share)
