"""Claims about the trail of a run from the command line: what prune leaves, what trail shows, what it writes."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from command_line import call

from thresher import Trail, load_state
from thresher.apps.cli.trail import parse_pick
from thresher.apps.runs import Run
from thresher.apps.train import Progress, TrainConfig, engine, fit, trailing
from thresher.apps.train.ending import repair
from thresher.errors import InputError

SMALL = {"model": "small-cnn", "data": "digits", "limit": 400, "batch_size": 32, "threads": 1}
PRUNE = {"data": "digits", "limit": 400, "batch_size": 32, "threads": 1, "epochs": 3, "trail": 6, "lr": 0.02}
METHOD = {"method": "gmp:end=0.8", "budget": "sparsity=95%"}


class Stop(Progress):
    def __init__(self, at):
        self.at = at

    def stepped(self, step):
        if step == self.at:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    run = Run.create(tmp_path_factory.mktemp("dense") / "dense")
    fit(TrainConfig(**SMALL, epochs=6), run)
    return run


@pytest.fixture(scope="module")
def asked(dense):
    return {**PRUNE, **METHOD, "weights": str(dense.path)}


@pytest.fixture(scope="module")
def run(tmp_path_factory, asked):
    made = Run.create(tmp_path_factory.mktemp("pruned") / "gmp95")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trailing, "FEW", 100)
        fit(TrainConfig(**asked), made)
    return made


def test_a_run_keeps_ever_sparser_networks_and_says_on_how_many_images_each_was_measured(run, dense):
    trail = Trail(run.trail_path)
    points = trail.points
    assert 4 <= len(points) <= 7
    assert [point.sparsity for point in points] == sorted(point.sparsity for point in points)
    assert points[-1].step == 36
    assert points[-1].kept
    assert points[-1].zeros == run.result["zeros"]
    assert {point.images for point in points} == {100, 360}
    assert {point.images for point in points if point.step % 12 == 0} == {360}
    assert trail.dense_accuracy == pytest.approx(dense.result["accuracy_after"])
    assert {point.reference == trail.dense_accuracy for point in points if point.images == 360} == {True}
    assert all(point.flops is not None and point.method["kind"] == "gmp" for point in points)
    assert trail.problems == []


def test_the_last_point_is_the_finished_network_rounded(run):
    point = Trail(run.trail_path).points[-1]
    state, (finished, record) = Trail(run.trail_path).state_dict(point), load_state(run.model_path)
    assert point.model == record
    assert point.bytes == run.result["bytes"]
    for name, tensor in finished.items():
        assert torch.equal(state[name] == 0, tensor == 0)
        torch.testing.assert_close(state[name], tensor, rtol=2**-11, atol=2**-25)


def test_a_trail_changes_nothing_about_the_run(run, asked, tmp_path):
    other = Run.create(tmp_path / "without")
    fit(TrainConfig(**{**asked, "trail": 0}), other)
    assert not other.trail_path.exists()
    assert other.model_path.read_bytes() == run.model_path.read_bytes()
    assert other.result["accuracy_after"] == run.result["accuracy_after"]
    assert "trail" not in run.present()


@pytest.mark.parametrize("at", [1, 13, 24, 35])
def test_a_resumed_run_ends_with_the_same_trail(run, asked, tmp_path, monkeypatch, at):
    monkeypatch.setattr(trailing, "FEW", 100)
    stopped = Run.create(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        fit(TrainConfig(**{**asked, "checkpoint_every": 5}), stopped, Stop(at))
    fit(TrainConfig(**{**asked, "checkpoint_every": 5}), Run.create(stopped.path, resume=True))
    mine, theirs = Trail(stopped.trail_path), Trail(run.trail_path)
    assert [point.to_dict() for point in mine.points] == [point.to_dict() for point in theirs.points]
    for one, other in zip(mine.points, theirs.points, strict=True):
        state = theirs.state_dict(other)
        assert all(torch.equal(tensor, state[name]) for name, tensor in mine.state_dict(one).items())


def test_a_one_shot_run_keeps_its_result(dense, tmp_path):
    shot = Run.create(tmp_path / "shot")
    fit(
        TrainConfig(
            **{**PRUNE, "weights": str(dense.path), "epochs": 0, "method": "magnitude", "budget": "sparsity=80%"}
        ),
        shot,
    )
    (point,) = Trail(shot.trail_path).points
    assert (point.step, point.images, point.sparsity) == (0, 360, pytest.approx(0.8, abs=1e-4))


def test_a_network_that_began_untrained_is_no_reference(tmp_path):
    made = Run.create(tmp_path / "scratch")
    fit(TrainConfig(**{**SMALL, **METHOD, "epochs": 2, "trail": 3}), made)
    assert Trail(made.trail_path).dense_accuracy is None
    said = call("trail", made.path, "--pick", "accuracy_drop=1", code=2)
    assert "dense accuracy" in said.output
    shown = call("trail", made.path, "--pick", "accuracy_drop=100", "--dense-accuracy", "90")
    assert "picked: step" in shown.stdout


def test_a_run_without_a_budget_keeps_a_trail_too(dense, tmp_path):
    made = Run.create(tmp_path / "free")
    method = {"method": "lats:threshold=0.05,schedule=linear", "budget": None}
    fit(TrainConfig(**{**PRUNE, "weights": str(dense.path), **method}), made)
    points = Trail(made.trail_path).points
    assert points[-1].step == 36
    assert points[0].zeros < points[-1].zeros


def test_training_without_pruning_leaves_no_trail():
    with pytest.raises(ValueError, match="never get sparser"):
        TrainConfig(**SMALL, trail=3)
    assert "--trail" not in call("train", "--help").stdout
    assert "--trail" in call("prune", "--help").stdout


def test_the_table_has_a_line_for_each_point_and_marks_the_front(run):
    points = Trail(run.trail_path).points
    lines = call("trail", run.path).stdout.splitlines()
    assert lines[0].split()[:4] == ["step", "sparsity", "multiply-adds", "bytes"]
    assert len(lines) == len(points) + 2
    for line, point in zip(lines[2:], points, strict=True):
        cells = line.split()
        assert cells[:4] == [str(point.step), f"{point.sparsity:.2%}", f"{point.flops:,.0f}", f"{point.bytes:,}"]
    assert lines[-1].endswith("*")
    assert call("trail", run.path, "--quiet").stdout == ""


def test_json_holds_all_points_of_several_runs(run, tmp_path):
    other = tmp_path / "again"
    shutil.copytree(run.path, other)
    shown = json.loads(call("trail", run.path, other / "trail", "--json").stdout)
    names = [record["trail"] for record in shown["points"]]
    assert names == ["gmp95"] * (len(names) // 2) + ["again"] * (len(names) // 2)
    assert shown["points"][0]["thresholds"].keys() == {layer.name for layer in run.report.layers}
    assert shown["problems"] == []
    assert call("trail", run.path, other).stdout.startswith("trail")


def test_a_picked_network_is_a_file_that_eval_reads(run, tmp_path):
    out = tmp_path / "model.safetensors"
    shown = json.loads(call("trail", run.path, "--pick", "sparsity=80%", "--out", out, "--json").stdout)
    picked = shown["picked"]
    assert picked["sparsity"] >= 0.8
    assert out.stat().st_size == picked["bytes"] == shown["out"]["bytes"]
    measured = json.loads(call("eval", out, "--data", "digits", "--limit", "400", "--json").stdout)
    assert measured["zeros"] == picked["zeros"]
    if picked["images"] == 360:
        assert measured["accuracy"] == pytest.approx(picked["accuracy"])
    assert load_state(out)[1] == load_state(run.model_path)[1]


def test_the_accuracy_of_a_point_is_that_of_the_file_written_from_it(run, tmp_path):
    points = [point for point in Trail(run.trail_path).points if point.images == 360]
    assert len(points) >= 2
    for point in points:
        out = tmp_path / f"{point.step}.safetensors"
        call("trail", run.path, "--pick", f"bytes={point.bytes}", "--out", out)
        wanted = max((p for p in Trail(run.trail_path).points if p.bytes <= point.bytes), key=lambda p: p.estimate)
        measured = json.loads(call("eval", out, "--data", "digits", "--limit", "400", "--json").stdout)
        if wanted.images == 360:
            assert measured["accuracy"] == pytest.approx(wanted.accuracy)


def test_a_fine_tune_moves_no_zero_and_new_statistics_change_no_weight(run, tmp_path):
    plain, tuned, norm = (tmp_path / f"{name}.safetensors" for name in ("plain", "tuned", "norm"))
    pick = ("trail", run.path, "--pick", "sparsity=95%")
    call(*pick, "--out", plain)
    shown = json.loads(call(*pick, "--out", tuned, "--finetune", "2", "--reestimate-norm", "--json").stdout)["out"]
    call(*pick, "--out", norm, "--reestimate-norm")
    assert (shown["finetuned_epochs"], shown["images"]) == (2, 360)
    states = [load_state(path)[0] for path in (plain, tuned, norm)]
    for name, tensor in states[0].items():
        if name in shown_targets(run):
            assert torch.equal(states[1][name] == 0, tensor == 0)
            assert not torch.equal(states[1][name], tensor)
            assert not torch.signbit(states[1][name][tensor == 0]).any()
            assert torch.equal(states[2][name], tensor)
    running = [name for name in states[0] if "running_mean" in name]
    assert shown["norms"] == len(running) > 0
    assert all(not torch.equal(states[2][name], states[0][name]) for name in running)
    measured = json.loads(call("eval", tuned, "--data", "digits", "--limit", "400", "--json").stdout)
    assert measured["accuracy"] == pytest.approx(shown["accuracy_after"])


def test_zeros_are_zero_after_every_step_of_a_fine_tune(run, asked, monkeypatch):
    counted = []

    def counting(bench, inputs, labels):
        loss = step(bench, inputs, labels)
        counted.append(sum(int((bench.model.state_dict()[name] == 0).sum()) for name in shown_targets(run)))
        return loss

    step = engine.train_step
    monkeypatch.setattr(engine, "train_step", counting)
    config = TrainConfig(**{**asked, "warmup_epochs": 0.5})
    done = repair.repair(config, run.model_path, shown_targets(run), epochs=1)
    assert set(counted) == {run.result["zeros"]}
    assert len(counted) == 12
    assert (done.norms, done.accuracy_before) == (0, pytest.approx(run.result["accuracy_after"]))
    with pytest.raises(InputError, match="which the network lacks"):
        repair.repair(config, run.model_path, ["nowhere.weight"], epochs=1)


def shown_targets(run):
    return {layer.name for layer in run.report.layers}


def test_a_damaged_point_is_said_on_stderr_and_the_rest_is_shown(run, tmp_path):
    other = tmp_path / "damaged"
    shutil.copytree(run.path, other)
    first = sorted((other / "trail").iterdir())[0]
    first.write_bytes(first.read_bytes()[:100])
    shown = call("trail", other)
    assert first.name in shown.stderr
    assert len(shown.stdout.splitlines()) == len(Trail(run.trail_path).points) + 1
    (problem,) = json.loads(call("trail", other, "--json").stdout)["problems"]
    assert first.name in problem


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--pick", "bytes=20"], "bytes down to"),
        (["--pick", "accuracy_drop=-90"], "the nearest point is step"),
        (["--pick", "size=3"], "budget 'size'"),
        (["--pick", ""], "which network to take"),
        (["--pick", "accuracy_drop=little"], "percentage points"),
        (["--out", "x.safetensors"], "without --pick"),
        (["--pick", "sparsity=50%", "--finetune", "1"], "without --out"),
        (["--pick", "sparsity=50%", "--finetune", "-1", "--out", "x.safetensors"], "0 or more"),
        (["--dense-accuracy", "12"], "as it was begun"),
    ],
)
def test_what_cannot_be_done_is_said_and_writes_nothing(run, tmp_path, monkeypatch, flags, said):
    monkeypatch.chdir(tmp_path)
    assert said in call("trail", run.path, *flags, code=2).output
    assert list(Path(tmp_path).iterdir()) == []


def test_folders_without_a_trail_are_named(dense, tmp_path):
    assert "--trail 20" in call("trail", dense.path, code=2).output
    assert "no folder" in call("trail", tmp_path / "nowhere", code=2).output
    (tmp_path / "trail").mkdir()
    assert "without points" in call("trail", tmp_path, "--pick", "sparsity=1%", code=2).output
    assert len(call("trail", tmp_path).stdout.splitlines()) == 2


def test_a_pick_is_read_in_any_order():
    assert parse_pick("bytes=500KB, accuracy_drop=1.5 ,sparsity=50%") == (1.5, "bytes=500KB,sparsity=50%")
    assert parse_pick("accuracy_drop=2") == (2.0, None)
    with pytest.raises(InputError):
        parse_pick("accuracy_drop=1,accuracy_drop=2")
