"""Claims about settings: one record behind flags and files, every mistake named."""

import json

import pytest

from thresher.apps.train import TrainConfig, read_config
from thresher.apps.train.optim import lr_factor, make_optimizer
from thresher.errors import InputError


def test_flags_win_over_the_file_and_the_file_over_defaults(tmp_path):
    file = tmp_path / "settings.toml"
    file.write_text(
        'model = "mlp"\nepochs = 3\nlr = 0.2\nrules = ["dense:1"]\nmethod = "gmp"\nbudget = "sparsity=50%"\n'
    )
    config = read_config(file, {"lr": 0.1})
    assert (config.epochs, config.lr, config.batch_size, config.rules) == (3, 0.1, 128, ("dense:1",))


def test_json_and_the_config_of_a_run_are_read_too(tmp_path):
    asked = TrainConfig(model="mlp", epochs=3, start=0.25, method="gmp", budget="sparsity=50%")
    written = {"version": 1, "command": "thresher prune", "torch": "2", **asked.model_dump(mode="json")}
    (tmp_path / "config.json").write_text(json.dumps(written))
    assert read_config(tmp_path / "config.json") == read_config(tmp_path) == asked


@pytest.mark.parametrize(("given", "kind"), [("200", int), ("0.2", float), (200, int), (0.2, float)])
def test_start_is_a_step_or_a_share_in_text_and_in_json(given, kind):
    start = read_config(overrides={"model": "mlp", "start": given}).start
    assert start == float(given)
    assert type(start) is kind


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"model": "mlp", "epoch": 3}, "unknown setting 'epoch'[\\s\\S]*did you mean epochs"),
        ({"model": "mlp", "optimizer": "rmsprop"}, "optimizer='rmsprop'[\\s\\S]*'sgd', 'adam' or 'adamw'"),
        ({"model": "mlp", "lr": -1}, "lr=-1[\\s\\S]*greater than 0"),
        ({"model": "mlp", "lr": float("nan")}, "lr=nan[\\s\\S]*finite"),
        ({}, "model and weights are both missing"),
        ({"model": "mlp", "nesterov": True, "optimizer": "adam"}, "nesterov needs optimizer=sgd"),
        ({"model": "mlp", "budget": "sparsity=90%"}, "without a method"),
        ({"model": "mlp", "epochs": 0}, "nothing to do"),
        ({"model": "mlp", "epochs": 2, "warmup_epochs": 2}, "below epochs"),
        ({"model": "mlp", "start": "soon"}, "start='soon'"),
        ({"model": "mlp", "lr": 0, "momentum": 2}, "lr=0; momentum=2"),
    ],
)
def test_a_wrong_setting_is_named_with_what_is_allowed(settings, words):
    with pytest.raises(InputError, match=words):
        read_config(overrides=settings)


@pytest.mark.parametrize(
    ("name", "text"), [("a.json", "{"), ("a.toml", "= 1"), ("a.json", "[]"), ("a.json", '{"version": 2}'), ("b", None)]
)
def test_a_file_that_cannot_be_read_is_named(tmp_path, name, text):
    if text is not None:
        (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=name):
        read_config(tmp_path / name)


def test_a_record_is_frozen():
    with pytest.raises(ValueError, match="frozen"):
        TrainConfig(model="mlp").lr = 1


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ("constant", [1, 1, 1, 1]),
        ("linear", [1, 0.75, 0.5, 0.25]),
        ("step", [1, 1, 0.1, 0.01]),
        ("cosine", [1, 0.853553, 0.5, 0.146447]),
    ],
)
def test_learning_rate_curves_have_these_values(schedule, expected):
    factor = lr_factor(schedule, 4, 0)
    assert [factor(step) for step in range(4)] == pytest.approx(expected, abs=1e-6)
    assert factor(100) == pytest.approx(factor(4))  # past the end it stays where it ended


def test_weight_decay_can_spare_norms_and_biases():
    import torch

    model = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    groups = make_optimizer(TrainConfig(model="mlp", decay_norm_bias=False), model).param_groups
    assert [group["weight_decay"] for group in groups] == [1e-4, 0.0]
    assert [len(group["params"]) for group in groups] == [1, 3]
