"""Claims about `thresher shrink` and `thresher plan`: smaller files that load by themselves, runs that can be read,
bad input refused with one message."""

import json

import pytest
import torch
from command_line import call

import thresher
from thresher.apps.cli.showing.counting import CountLines
from thresher.apps.models import build_model
from thresher.apps.runs import Run
from thresher.apps.shrinking.config import parse_keep
from thresher.apps.shrinking.method import selection_of
from thresher.apps.train.network import load_network
from thresher.deploy.storage import load_state
from thresher.errors import InputError
from thresher.structure import ShrinkPlan

pytestmark = pytest.mark.usefixtures("here")

FEW = ["--limit", "256", "--batch-size", "64", "--threads", "1"]


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    folder = tmp_path_factory.mktemp("dense") / "run"
    call("train", "--model", "small-cnn", *FEW, "--epochs", "1", "--out", folder, "--quiet")
    return folder


@pytest.fixture(scope="module")
def small(dense, tmp_path_factory):
    folder = tmp_path_factory.mktemp("small")
    shown = call(
        "shrink", "--weights", dense, *FEW, "--budget", "flops=50%", "--finetune", "1", "--reconstruct", "--reestimate",
        "--run", folder / "run", "--out", folder / "small.safetensors", "--json",
    )  # fmt: skip
    return folder, json.loads(shown.stdout), shown.stderr


def refused(*arguments):
    shown = call(*arguments, code=2)
    assert shown.stdout == ""
    said = [line.split(":")[0] for line in shown.stderr.splitlines() if line.startswith(("given", "expected", "do:"))]
    assert said == ["given", "expected", "do"], shown.stderr
    assert "Traceback" not in shown.output
    return shown.stderr


def test_each_stage_is_measured_and_the_budget_held(small):
    folder, shown, said = small
    result = shown["result"]
    assert list(result["stages"]) == ["before", "cut", "reconstructed", "reestimated", "finetuned"]
    assert (result["accuracy_before"], result["accuracy_after"]) == (
        result["stages"]["before"],
        result["stages"]["finetuned"],
    )
    assert result["macs"] <= result["total_macs"] / 2
    assert result["got"] == {"flops": result["macs"]}
    assert result["bytes"] == (folder / "small.safetensors").stat().st_size
    assert "layer 1 of" in said
    assert "s left" in said
    assert "straight after the cut" in said


def test_the_file_alone_is_evaluated_trained_and_shrunk_again(small, here):
    folder, shown, _ = small
    file = folder / "small.safetensors"
    found = json.loads(call("eval", file, "--data", "digits", "--limit", "256", "--json").stdout)
    assert found["accuracy"] == shown["result"]["accuracy_after"]
    dense_model = build_model("small-cnn", num_classes=10, input_shape=(1, 8, 8))
    assert thresher.load(file, dense_model).stem.conv.out_channels < dense_model.stem.conv.out_channels
    call("train", "--weights", file, *FEW, "--epochs", "1", "--out", "more", "--quiet")
    assert load_state(here / "more" / "model.safetensors")[1]["plan"] == shown["plan"]
    again = json.loads(
        call("shrink", "--weights", file, *FEW, "--budget", "flops=60%", "--run", "less", "--json").stdout
    )
    assert again["result"]["total_macs"] == shown["result"]["macs"]
    network = load_network(None, "less")
    direct = ShrinkPlan.from_dict(again["plan"]).apply(
        load_network("small-cnn", None, num_classes=10, input_shape=(1, 8, 8)).model
    )
    assert {name: tensor.shape for name, tensor in network.model.state_dict().items()} == {
        name: tensor.shape for name, tensor in direct.state_dict().items()
    }


def test_a_limit_on_bytes_counts_the_plan_in_the_file(dense, here):
    call("shrink", "--weights", dense, *FEW, "--method", "l2", "--budget", "bytes=100KB", "--run", "run", "--quiet")
    assert 90_000 < (here / "run" / "model.safetensors").stat().st_size <= 100_000


def test_the_run_folder_is_whole_and_makes_a_page(small):
    folder, shown, _ = small
    run = Run.open(folder / "run")
    assert run.missing() == []
    assert run.config["kind"] == "shrink"
    assert run.config["shrink"]["reestimate"] is True
    assert [record["kind"] for record in run.metrics()] == ["stage", "stage", "stage", "stage", "epoch", "stage"]
    assert run.result["stages"] == shown["result"]["stages"]
    assert ShrinkPlan.from_json((folder / "run" / "plan.json").read_text()).to_dict() == shown["plan"]
    assert "flops=50%" in (folder / "run" / "report.html").read_text()


def test_a_dry_run_prints_the_plan_and_writes_nothing(dense, here):
    shown = call("shrink", "--weights", dense, *FEW, "--method", "l2", "--budget", "params=60%", "--dry-run")
    for words in ("group", "stem.conv out", "multiply-adds", "nothing was written"):
        assert words in shown.stdout
    assert list(here.iterdir()) == []


@pytest.mark.parametrize("method", ["taylor", "tp-magnitude", "l1:debias=true"])
def test_baselines_by_name(dense, method):
    shown = call("shrink", "--weights", dense, *FEW, "--method", method, "--budget", "flops=60%", "--dry-run", "--json")
    report = json.loads(shown.stdout)["report"]
    assert report["macs"] <= 0.6 * report["total_macs"]


def test_plan_show_reads_plans_runs_and_networks_alike(small):
    folder, shown, _ = small
    tables = {
        call("plan", "show", file).stdout
        for file in (folder / "run", folder / "run" / "plan.json", folder / "small.safetensors")
    }
    assert len(tables) == 1
    assert "stem.conv" in tables.pop()
    assert json.loads(call("plan", "show", folder / "run", "--json").stdout) == shown["plan"]


def test_plan_apply_cuts_dense_weights_without_data(small, dense):
    folder, _, _ = small
    call("plan", "apply", folder / "run", "--weights", dense, "--out", "cut.safetensors")
    cut, full = load_network(None, "cut.safetensors").model, load_network(None, dense).model
    plan = ShrinkPlan.from_json((folder / "run" / "plan.json").read_text())
    assert cut.stem.conv.out_channels < full.stem.conv.out_channels
    x = torch.randn(4, 1, 8, 8)
    assert torch.equal(cut.eval()(x), plan.apply(full).eval()(x))


def test_keep_sets_widths_and_flags_win_over_the_file(dense, here):
    (here / "shrink.json").write_text(
        json.dumps({"weights": str(dense), "limit": 256, "threads": 1, "shrink": {"keep": {"stem.conv": 5}}})
    )
    shown = json.loads(call("shrink", "--config", "shrink.json", "--dry-run", "--json").stdout)
    assert [len(group["keep"]) for group in shown["plan"]["groups"] if group["name"] == "stem.conv"] == [5]
    shown = json.loads(
        call("shrink", "--config", "shrink.json", "--keep", "stem.conv=50%", "--dry-run", "--json").stdout
    )
    assert [len(group["keep"]) for group in shown["plan"]["groups"] if group["name"] == "stem.conv"] == [16]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--budget", "flops=0.01%"], ["at least", "loosen"]),
        (["--budget", "sparsity=50%"], ["use params="]),
        (["--budget", "flops=50"], ["at least"]),
        ([], ["no budget", "--budget"]),
        (["--budget", "flops=50%", "--model", "resnet21"], ["resnet21"]),
        (["--budget", "flops=50%", "--model", "mlp"], ["mlp"]),
        (["--budget", "flops=50%", "--method", "lats"], ["lats", "ispasp"]),
        (["--budget", "flops=50%", "--method", "ispasp:speed=2"], ["speed", "iterations"]),
        (["--budget", "flops=50%", "--method", "ispasp:iterations=many"], ["many", "number"]),
        (["--budget", "flops=50%", "--method", "tp-taylor", "--keep", "stem.conv=3"], ["tp-taylor", "keep"]),
        (["--budget", "flops=50%", "--rule", "exclude:nothing"], ["nothing", "stem.conv"]),
        (["--budget", "flops=50%", "--scope", "all"], ["all", "inside"]),
        (["--budget", "flops=50%", "--round-to", "0"], ["round-to"]),
        (["--budget", "flops=50%", "--out", "nowhere/x.safetensors"], ["nowhere"]),
        (["--keep", "stem.conv"], ["stem.conv", "PATTERN=UNITS"]),
        (["--keep", "stem.conv=100"], ["32 units"]),
        (["--budget", "flops=50%", "--finetune", "-1"], ["epochs"]),
    ],
)
def test_what_cannot_be_is_refused_in_one_message(dense, here, changes, words):
    said = refused("shrink", "--weights", dense, *FEW, "--quiet", *changes)
    assert all(word in said for word in words), said
    assert list(here.iterdir()) == []


def test_plans_that_are_none_are_refused(small, dense, here):
    folder, shown, _ = small
    (here / "broken.json").write_text("{")
    (here / "other.json").write_text('{"version": 9, "kind": "shrink-plan"}')
    damaged = json.loads(json.dumps(shown["plan"]))
    damaged["groups"][0]["cuts"][0]["keep"] = [9999]
    (here / "damaged.json").write_text(json.dumps(damaged))
    for file, words in (
        ("nowhere.json", "nowhere.json"),
        ("broken.json", "no JSON"),
        ("other.json", "another version"),
        ("damaged.json", "9999"),
        (dense / "model.safetensors", "without a plan"),
    ):
        assert words in refused("plan", "show", file)
        assert words in refused("plan", "apply", file, "--weights", dense, "--out", "x.safetensors")
    call("train", "--model", "mlp", *FEW, "--epochs", "1", "--out", "mlp", "--quiet")
    said = refused("plan", "apply", folder / "run", "--weights", "mlp", "--out", "x.safetensors")
    assert "SmallCnn" in said
    assert not (here / "x.safetensors").exists()


def test_methods_and_keeps_as_text():
    assert repr(selection_of("ispasp:iterations=3,debias=false")) == "ISpaSP(iterations=3, debias=False)"
    assert parse_keep(("a=b=3", "c=25%")) == (("a=b", 3), ("c", 0.25))
    for wrong in ("=3", "a=", "a=0", "a=-5%"):
        with pytest.raises(InputError):
            parse_keep((wrong,))


def test_time_left_is_told_from_the_layers_done(capsys):
    now = iter([10.0, 14.0])
    lines = CountLines(clock=lambda: next(now))
    lines(0, 3, "a")
    lines(1, 3, "b")
    assert capsys.readouterr().err == "layer 1 of 3: a\nlayer 2 of 3: b, about 8 s left\n"


def test_from_pruned_rows_to_a_smaller_file_of_the_same_accuracy(dense, here):
    rules = json.loads(call("compact", dense, "--rules", "--json").stdout)
    assert "include:stem.conv" in rules
    assert "--rule 'exclude:*'" in call("compact", dense, "--rules").stdout
    flags = [part for rule in rules for part in ("--rule", rule)]
    asked = ["--method", "lats", "--budget", "sparsity=60%", "--groups", "row", *flags]
    call("prune", "--weights", dense, *FEW, "--epochs", "1", *asked, "--out", "rows", "--quiet")
    shown = json.loads(call("compact", "rows", "--out", "small.safetensors", "--json").stdout)
    assert sum(shown["cut"].values()) > 10
    assert shown["accuracy_after"] == shown["accuracy_before"]
    assert shown["output_error"] < 1e-5
    again = json.loads(call("eval", "small.safetensors", "--data", "digits", "--limit", "256", "--json").stdout)
    assert again["accuracy"] == shown["accuracy_after"]
    assert "channels cut" in call("compact", "rows", "--out", "small.safetensors").stdout


@pytest.mark.parametrize("flags", [[], ["--rules", "--out", "x.safetensors"], ["--out", "nowhere/x.safetensors"]])
def test_compact_wants_one_thing(dense, flags):
    refused("compact", dense, *flags)


def test_a_stopped_fine_tuning_leaves_the_cut_network(dense, here, monkeypatch):
    def stop(*arguments):
        raise KeyboardInterrupt

    monkeypatch.setattr("thresher.apps.shrinking.carrying.finetune", stop)
    asked = ["--method", "l2", "--budget", "flops=60%", "--finetune", "1", "--run", "run"]
    said = call("shrink", "--weights", dense, *FEW, *asked, code=130).stderr
    assert "before fine-tuning: run/model.safetensors" in said
    assert load_network(None, "run").plan is not None
    assert Run.open("run").missing() == ["result.json"]
