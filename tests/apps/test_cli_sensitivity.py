"""Claims about `thresher sensitivity`: what it prints, writes and refuses."""

import json
import re
from pathlib import Path

import pytest
from command_line import call

from thresher.apps.cli.sensitivity import parse_percents
from thresher.apps.runs import Run
from thresher.diagnostics import Sensitivity
from thresher.errors import InputError

pytestmark = pytest.mark.usefixtures("here")

SMALL = ["--model", "small-cnn", "--limit", "128", "--batch-size", "64", "--epochs", "1", "--threads", "1"]


@pytest.fixture
def run():
    call("train", *SMALL, "--out", "run", "--quiet")
    return Path("run")


def test_the_table_names_every_layer_and_the_data_go_into_the_run(run):
    shown = call("sensitivity", "run", "--sparsities", "50,95", "--drop", 2).stdout
    accuracy = Run.open(run).result["accuracy_after"]
    assert f"small-cnn on digits (128 test images): accuracy {accuracy:.2f} %" in shown
    assert re.search(r"layer +entries +50% +95% +safe sparsity", shown)
    assert re.search(r"depthwise\.conv\.weight +576 +[\d.]+ +[\d.]+\* +", shown)
    assert "* depthwise.conv.weight: at most 88.89%" in shown
    assert "costs 2 points of accuracy" in shown
    assert shown.splitlines()[-1] == "written: run/sensitivity.json"
    found = Sensitivity.from_dict(json.loads((run / "sensitivity.json").read_text()))
    assert len(found.layers) == 6
    assert found.dense == accuracy
    assert found.about["model"] == "small-cnn"
    assert "run" in str(Run.open(run).path)
    assert Run.open(run).missing() == []


def test_layers_that_cannot_be_pruned_alone_are_named(run):
    record = json.loads(call("sensitivity", "run", "--drop", 0, "--json", "--quiet").stdout)
    found = Sensitivity.from_dict({key: record[key] for key in json.loads(Path("run/sensitivity.json").read_text())})
    assert tuple(record["fragile"]) == found.fragile(0.0)
    assert record["safe_sparsity"] == {layer.name: found.safe_sparsity(layer.name, 0.0) for layer in found.layers}
    shown = call("sensitivity", "run", "--drop", 0).stdout
    expected = f"cannot be pruned alone (50% costs more than 0 points): {', '.join(found.fragile(0.0))}"
    assert (expected if found.fragile(0.0) else "every layer alone can be pruned to 50%") in shown
    assert (
        "every layer alone can be pruned to 50% for at most 100 points"
        in call("sensitivity", "run", "--drop", 100).stdout
    )


def test_a_file_is_measured_as_eval_measures_it_and_the_network_on_disk_stays(run):
    file = run / "model.safetensors"
    before = file.read_bytes()
    shown = call("sensitivity", file, "--data", "digits", "--limit", 50, "--out", "out.json")
    accuracy = json.loads(call("eval", file, "--data", "digits", "--limit", 50, "--json").stdout)["accuracy"]
    assert json.loads(Path("out.json").read_text())["dense"] == accuracy
    assert shown.stdout.splitlines()[-1] == "written: out.json"
    assert not (run / "sensitivity.json").exists()
    assert file.read_bytes() == before


def test_rules_and_groups_are_honoured(run):
    shown = call(
        "sensitivity", "run", "--rule", "exclude:stem.conv", "--rule", "dense:linear", "--groups", "2:4"
    ).stdout
    assert "stem.conv.weight (excluded by rule 'stem.conv')" in shown
    assert "linear.weight (kept dense by a rule)" in shown
    assert "* last.conv.weight: at most 50.00%" in shown


def test_quiet_prints_nothing_and_still_writes(run):
    assert call("sensitivity", "run", "--quiet").output == ""
    assert (run / "sensitivity.json").is_file()


def test_a_slow_measurement_tells_the_time_left(run, monkeypatch):
    from thresher.apps.cli import sensitivity as module

    monkeypatch.setattr(module, "_QUIET_SECONDS", 0.0)
    said = call("sensitivity", "run", "--sparsities", 50).stderr.splitlines()
    assert [line.split(":")[0] for line in said] == [f"evaluation {number} of 7" for number in range(1, 8)]
    assert re.fullmatch(r"evaluation 3 of 7: \S+, about \d+ s left", said[2])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--sparsities", "0.9"], "percent"),
        (["--sparsities", "101"], "percent"),
        (["--sparsities", "half"], "half"),
        (["--sparsities", ","], "50,80,90,95"),
        (["--drop", "-1"], "--drop -1"),
        (["--drop", "nan"], "--drop nan"),
        (["--rule", "exclude:conv9"], "conv9"),
        (["--groups", "5:4"], "5:4"),
        (["--out", "nowhere/x.json"], "nowhere"),
        (["--data", "cifra10"], "cifar10"),
    ],
)
def test_what_cannot_be_meant_is_refused_in_three_lines(run, changes, words):
    shown = call("sensitivity", "run", *changes, code=2)
    assert words in shown.stderr
    assert [line.split(":")[0] for line in shown.stderr.splitlines()] == ["given", "expected", "do"]
    assert not (run / "sensitivity.json").exists()


def test_percents_are_read_with_and_without_the_sign():
    assert parse_percents("50, 80%,99.5,100") == (0.5, 0.8, 0.995, 1.0)
    with pytest.raises(InputError):
        parse_percents("nan")
