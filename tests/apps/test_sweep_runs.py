"""Claims about whole sweeps from the command line: ordinary runs, one table, no work twice, after any interruption."""

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from command_line import call

from thresher import load_state
from thresher.apps.runs import Run
from thresher.apps.sweep import crew, open_sweep, read_sweep, work
from thresher.apps.sweep import worker as worker_module
from thresher.apps.train import Progress, fit

pytestmark = pytest.mark.usefixtures("here")

SMALL = ["--model", "mlp", "--limit", "128", "--batch-size", "64", "--epochs", "1", "--threads", "1"]
SWEEP = ["sweep", *SMALL, "--methods", "gmp,magnitude", "--budgets", "sparsity=80%", "--seeds", "0,1", "--out", "sw"]
CODE = "from thresher.apps.cli import main; main()"


def started(*arguments):
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    command = [sys.executable, "-c", CODE, *map(str, arguments)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)


def finished_runs():
    return {path.parent.name: path.stat().st_mtime_ns for path in Path("sw/runs").glob("*/result.json")}


def same_networks(one, other):
    mine, theirs = (load_state(path / "model.safetensors")[0] for path in (Path(one), Path(other)))
    return mine.keys() == theirs.keys() and all(torch.equal(mine[name], theirs[name]) for name in mine)


def test_a_sweep_is_ordinary_runs_and_ends_in_one_table():
    shown = call(*SWEEP)
    assert re.search(r"\[4/4\] runs/magnitude_sparsity-80_seed-1: accuracy [\d.]+ %", shown.stderr)
    assert re.search(r"gmp +sparsity=80% +lr=0.05 +2 +[\d.]+ ± [\d.]+ %  +\d+,\d{3} ", shown.stdout)
    assert "Pareto front of accuracy against" in shown.stdout
    assert "report page: sw/report.html" in shown.stdout
    assert "4 runs compared" in Path("sw/report.html").read_text()
    record = json.loads(Path("sw/sweep.json").read_text())
    assert (record["version"], [run["state"] for run in record["runs"]]) == (1, ["done"] * 4)
    row = record["rows"][0]
    results = [Run.open(f"sw/runs/gmp_sparsity-80_seed-{seed}").result for seed in (0, 1)]
    assert row["accuracy"]["mean"] == pytest.approx(sum(result["accuracy_after"] for result in results) / 2)
    assert row["zeros"] == {"mean": results[0]["zeros"], "std": 0.0}
    assert {point["row"] for front in record["pareto"].values() for point in front} <= {0, 1}
    call("prune", *SMALL, "--method", "gmp", "--budget", "sparsity=80%", "--seed", 1, "--out", "alone", "--quiet")
    assert same_networks("sw/runs/gmp_sparsity-80_seed-1", "alone")


def test_the_same_command_again_repeats_nothing_and_tells_the_same():
    first = call(*SWEEP, "--quiet")
    assert first.output == ""
    before = finished_runs()
    again = json.loads(call(*SWEEP, "--json", "--quiet").stdout)
    assert finished_runs() == before
    bare = call("sweep", "--out", "sw", "--json")  # the settings are in the folder
    assert json.loads(bare.stdout) == again
    assert "4 of 4 runs had ended before" in bare.stderr
    assert again["rows"] == json.loads(Path("sw/sweep.json").read_text())["rows"]


@pytest.mark.parametrize(
    ("changes", "name"),
    [(["--epochs", "2"], "epochs=2"), (["--seeds", "0"], "seeds=0"), (["--methods", "gmp"], "methods=gmp")],
)
def test_other_settings_are_refused_by_name(changes, name):
    call(*SWEEP, "--quiet")
    shown = call(*SWEEP, *changes, code=2)
    assert shown.stderr.startswith(f"given: {name} for the sweep in 'sw'")
    assert "thresher sweep --out sw" in shown.stderr


def test_where_it_runs_may_differ():
    call(*SWEEP, "--quiet")
    call(*SWEEP, "--threads", "2", "--device", "cpu", "--quiet")


def test_a_plan_is_printed_and_nothing_is_written(here):
    shown = call(*SWEEP, "--tune", "3", "--dry-run").stdout
    assert "plan: 10 runs, mlp on digits, 1 epochs each; nothing was written" in shown
    assert "tuning: 3 runs for gmp at sparsity=80%: lr 0.0125 to 0.2" in shown
    assert "gmp_sparsity-80_seed-0" in shown
    plan = json.loads(call(*SWEEP, "--dry-run", "--json").stdout)
    assert (plan["count"], len(plan["runs"]), plan["tuning"]) == (4, 4, [])
    assert list(here.iterdir()) == []


def test_flags_win_over_a_file_and_a_sweep_is_such_a_file():
    Path("asked.toml").write_text('model = "mlp"\nmethods = ["gmp"]\nbudgets = ["flops=50%,bytes=90KB"]\nseeds = [3]\n')
    plan = json.loads(
        call("sweep", "--config", "asked.toml", "--seeds", "4,5", "--dry-run", "--json", "--out", "x").stdout
    )
    assert [(run["budget"], run["seed"]) for run in plan["runs"]] == [("flops=50%,bytes=90KB", seed) for seed in (4, 5)]
    call(*SWEEP, "--quiet")
    copy = json.loads(call("sweep", "--config", "sw/config.json", "--dry-run", "--json", "--out", "x").stdout)
    assert copy["count"] == 4


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--model", "mlpp"], "mlpp"),
        (["--data", "cifra10"], "cifar10"),
        (["--weights", "nowhere.safetensors"], "nowhere"),
        (["--methods", "gmb"], "gmb"),
        (["--budgets", "sparsity"], "sparsity"),
        (["--batch-size", "500"], "batch_size=500"),
    ],
)
def test_what_would_fail_in_every_run_is_refused_before_the_first(here, changes, words):
    assert words in call(*SWEEP, *changes, code=2).stderr
    assert list(here.iterdir()) == []


def test_a_folder_that_holds_something_else_is_left_alone():
    Path("sw").mkdir()
    Path("sw/precious").write_text("mine")
    assert "precious" in call(*SWEEP, code=2).stderr
    assert os.listdir("sw") == ["precious"]
    call("train", *SMALL, "--out", "run", "--quiet")
    assert "config.json" in call(*SWEEP[:-1], "run", code=2).stderr


def test_a_failing_run_is_kept_with_its_error_and_the_others_go_on():
    budgets = [*SWEEP[:-1], "sw", "--budgets", "sparsity=80%,bytes=1KB"]
    shown = call(*budgets, code=1)
    assert "failed: budget bytes=1000, which these rules cannot reach: gmp_bytes-1KB_seed-0, magnitude" in shown.stdout
    record = json.loads(Path("sw/sweep.json").read_text())
    assert [run["state"] for run in record["runs"]] == ["done", "done", "failed", "failed"] * 2
    assert "do: change the budget" in record["runs"][2]["error"]
    assert len(finished_runs()) == 4
    assert record["rows"][2]["accuracy"] is None
    assert record["pareto"]["bytes"][0]["row"] in (0, 1)
    again = call("sweep", "--out", "sw", code=1)
    assert "8 of 8 runs had ended before" in again.stderr
    assert "failed runs that get another try: 4" in call("sweep", "--out", "sw", "--retry", code=1).stderr


def test_a_bug_in_one_run_is_kept_too(monkeypatch):
    def fails_once(config, run, *rest, **more):
        if config.seed == 0 and config.method == "gmp":
            raise RuntimeError("out of memory\nand more")
        return fit(config, run, *rest, **more)

    with monkeypatch.context() as patch:
        patch.setattr(worker_module, "fit", fails_once)
        assert "failed: RuntimeError: out of memory: gmp_sparsity-80_seed-0" in call(*SWEEP, code=1).stdout
    assert "1 of 2" in call("sweep", "--out", "sw", code=1).stdout
    assert "failed" not in call("sweep", "--out", "sw", "--retry").stdout


def test_an_interrupted_sweep_says_how_to_go_on_and_does(monkeypatch):
    from thresher.apps.cli.showing import watching

    def interrupt(self, record):
        if finished_runs() and record["kind"] == "step":
            raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(watching.Lines, "logged", interrupt)
        shown = call(*SWEEP, "--checkpoint-every", "1", code=130)
    assert shown.stderr.splitlines()[-1] == "stopped; go on with: thresher sweep --out sw"
    assert len(finished_runs()) == 1
    assert os.listdir("sw/claims") == []
    assert json.loads(Path("sw/sweep.json").read_text())["rows"][0]["seeds"] == [0]
    call("sweep", "--out", "sw", "--quiet")
    assert len(finished_runs()) == 4


def test_a_sweep_killed_in_the_middle_of_a_run_goes_on_where_that_run_stood():
    long = [*SWEEP, "--epochs", "40", "--methods", "gmp", "--checkpoint-every", "1"]
    with started(*long) as process:
        for line in process.stderr:
            if "seed 1: epoch 8" in line:
                process.kill()
                break
    before = finished_runs()
    assert list(before) == ["gmp_sparsity-80_seed-0"]
    shown = call(*long)
    assert re.search(r"seed 1: going on behind step \d\d of 80", shown.stderr)
    assert finished_runs().items() > before.items()
    small = [*SMALL, "--epochs", "40", "--method", "gmp", "--budget", "sparsity=80%", "--seed", "1"]
    call("prune", *small, "--out", "alone", "--quiet")
    assert same_networks("sw/runs/gmp_sparsity-80_seed-1", "alone")


def test_two_workers_share_the_runs_and_end_in_the_same_table():
    shown = call(*SWEEP, "--workers", "2")
    assert len(re.findall(r"\[\d/4\] runs/", shown.stderr)) == 4
    record = json.loads(Path("sw/sweep.json").read_text())
    call(*SWEEP[:-1], "alone", "--quiet")
    assert json.loads(Path("alone/sweep.json").read_text())["rows"] == record["rows"]


def test_ctrl_c_ends_all_workers_and_lets_go_of_their_runs():
    with started(*SWEEP, "--epochs", "3000", "--workers", "2", "--checkpoint-every", "1") as process:
        while len(list(Path("sw/runs").glob("*/checkpoint.pt")) if Path("sw/runs").is_dir() else ()) < 2:
            assert process.poll() is None
        process.send_signal(signal.SIGINT)
        _, said = process.communicate()
    assert process.returncode == 130, said
    assert said.splitlines()[-1] == "stopped; go on with: thresher sweep --out sw"
    assert "Traceback" not in said
    assert os.listdir("sw/claims") == []


def test_workers_without_a_parent_stop_before_the_next_run_and_in_the_middle_of_one(monkeypatch):
    class Gone:
        def is_alive(self):
            return False

    sweep = open_sweep("sw", read_sweep({"methods": "gmp", "budgets": "sparsity=80%", "model": "mlp", "limit": 128}))
    monkeypatch.setattr(worker_module.multiprocessing, "parent_process", Gone)
    with pytest.raises(worker_module.StoppedError):
        work(sweep)
    assert sweep.entries() == {}
    with pytest.raises(worker_module.StoppedError):
        worker_module.Guarded(Progress(), sweep.claim().lease).stepped(1)


def test_each_worker_has_a_gpu_of_its_own_where_there_are_several(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert [crew._device("auto", number) for number in range(3)] == ["cuda:0", "cuda:1", "cuda:0"]
    assert crew._device("cuda:1", 0) is None
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    assert crew._device("auto", 1) is None


def test_settings_are_tuned_on_held_out_images_and_used_with_every_seed():
    few = ["--tune", "3", "--search", "gmp:end=0.3..0.9", "--held-out", "0.25"]
    record = json.loads(call(*SWEEP, *few, "--json").stdout)
    assert [len(group["runs"]) for group in record["tuning"]] == [3, 3]
    for group in record["tuning"]:
        for run in group["runs"]:
            made = Run.open(f"sw/tuning/{group['name']}/{run['name']}")
            assert (made.config["held_out"], made.config["seed"]) == (0.25, 0)
            assert made.result["accuracy_after"] * 32 / 100 == pytest.approx(
                round(made.result["accuracy_after"] * 0.32)
            )
        best = max(group["runs"], key=lambda run: run["accuracy"])
        assert group["best"] == best["name"]
        for run in record["runs"]:
            if run["method"] == group["method"]:
                made = Run.open(Path("sw") / run["folder"])
                assert (made.config["method"], made.config["lr"]) == tuple(best["settings"].values())
                assert made.config["held_out"] == 0.0
    assert set(record["rows"][0]["settings"]) == {"lr", "end"}


def test_a_learning_rate_that_diverges_is_an_answer_to_a_search_and_a_failure_of_a_table_run():
    wild = [*SWEEP, "--methods", "gmp", "--seeds", "0", "--epochs", "3"]
    shown = call(*wild, "--tune", "2", "--search", "lr=0.05..1e30")
    assert "diverged in tuning, counted as 0 %: gmp_sparsity-80/001" in shown.stdout
    assert "lr=0.05 " in shown.stdout
    assert "1 of" not in shown.stdout
    assert "NaN or infin" in call(*wild[:-4], "--lr", "1e30", "--out", "other", "--seeds", "0", code=1).stdout


def test_without_the_extra_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    assert 'pip install "thresher[sweep]"' in call(*SWEEP, code=2).stderr
    assert not Path("sw").exists()


def test_a_run_whose_lease_went_to_another_is_left_to_it(monkeypatch):
    class Lease:
        compromise = None
        token = "mine"

        class owner:  # noqa: N801
            token = "theirs"

    guarded = worker_module.Guarded(Progress(), Lease())
    guarded.stepped(1)  # no pause, no heartbeat that met another: nothing to look up
    guarded._seen -= worker_module.LEASE_SECONDS
    with pytest.raises(worker_module.LostError):
        guarded.stepped(2)
    Lease.owner.token = "mine"
    guarded.stepped(2)
