"""Claims about the command line: what each command prints, on a pipe, as JSON, quietly."""

import io
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from command_line import call

from thresher.apps.cli.showing.watching import Bar, Lines
from thresher.apps.runs import Run

SMALL = ["--model", "small-cnn", "--limit", "256", "--batch-size", "64", "--epochs", "1", "--threads", "1"]
PRUNE = ["prune", *SMALL, "--method", "lats", "--budget", "sparsity=90%"]


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_help_names_every_command_and_needs_no_torch():
    code = "import sys; from thresher.apps.cli import main; assert 'torch' not in sys.modules; main(['--help'])"
    shown = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=plain_env())
    for command in ("demo", "train", "prune", "eval", "methods", "models", "data"):
        assert f"\n  {command} " in shown.stdout


def plain_env():
    return {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, sys.path))}


def test_prune_through_a_pipe_prints_the_report_without_colour_codes(here):
    code = "from thresher.apps.cli import main; main()"
    shown = subprocess.run(
        [sys.executable, "-c", code, *PRUNE, "--out", "run"], capture_output=True, text=True, env=plain_env(), cwd=here
    )
    assert shown.returncode == 0, shown.stderr
    assert "\x1b" not in shown.stdout + shown.stderr
    assert "epoch 1/1: loss" in shown.stderr
    assert "asked sparsity=90%; got sparsity=0.899993" in shown.stdout
    assert re.search(r"accuracy [\d.]+ % -> [\d.]+ %; zeros 54,806 of 60,896 \(90.00%\); bytes [\d,]+ ->", shown.stdout)
    assert re.search(r"one image on one thread: [\d.]+ ms in \w+; the dense network [\d.]+ ms in", shown.stdout)
    assert "Milliseconds by layer" in (here / "run" / "report.html").read_text()
    assert Run.open(here / "run").config["command"].startswith("thresher prune --model small-cnn")


def test_train_then_prune_then_eval_in_json(here):
    trained = json.loads(call("train", *SMALL, "--out", "dense", "--json").stdout)
    assert trained["run"] == "dense"
    assert trained["report"] is None
    pruned = json.loads(
        call(*PRUNE[:1], *PRUNE[3:], "--weights", "dense", "--out", "sparse", "--json", "--quiet").stdout
    )
    assert pruned["result"]["accuracy_before"] == trained["result"]["accuracy_after"]
    assert pruned["report"]["zeros"] == pruned["result"]["zeros"] == 54_806
    assert pruned["speed"]["now"] > 0
    shown = json.loads(call("eval", "sparse", "--json").stdout)
    assert shown["accuracy"] == pruned["result"]["accuracy_after"]
    assert shown["zeros"] == 54_806
    shown = call("eval", "sparse/model.safetensors", "--data", "digits")
    assert "zeros 54,806 of 60,896" in shown.stdout
    assert "part 1 of 1: test images" in shown.stderr


def test_quiet_prints_nothing(here):
    shown = call("train", *SMALL, "--out", "run", "--quiet")
    assert shown.output == ""


def test_without_out_a_new_folder_is_made_in_runs(here):
    call("train", *SMALL, "--quiet")
    (made,) = Path("runs").iterdir()
    assert made.name.startswith("train-small-cnn-")
    assert Run.open(made).finished


def test_dry_run_prints_the_plan_and_writes_nothing(here):
    shown = call(*PRUNE, "--dry-run", "--rule", "exclude:stem.conv", "--out", "run").stdout
    assert list(here.iterdir()) == []
    for words in (
        "reduce.conv.weight",
        "excluded by rule 'stem.conv'",
        "weight of BatchNorm2d",
        "536,192 multiply-adds (MACs)",
        "budget sparsity=90%: reachable",
        "steps: 4 (4 per epoch)",
        "s per epoch",
    ):
        assert words in shown
    assert json.loads(call(*PRUNE, "--dry-run", "--json").stdout)["steps"] == 4


def test_dry_run_says_when_a_budget_cannot_be_reached(here):
    shown = call(*PRUNE, "--budget", "flops=0.01%", "--dry-run", code=2).stdout
    assert re.search(r"NOT REACHABLE \(.*flops", shown)
    assert list(here.iterdir()) == []


def test_flags_win_over_a_configuration_file(here):
    Path("settings.toml").write_text('model = "small-cnn"\nepochs = 7\nlimit = 256\nbatch_size = 64\nmethod = "gmp"\n')
    plan = call("prune", "--config", "settings.toml", "--budget", "sparsity=50%", "--epochs", 2, "--dry-run", "--json")
    read = json.loads(plan.stdout)
    assert (read["steps"], read["method"], read["budget"]) == (8, "gmp", "sparsity=50%")


def test_resume_takes_the_settings_from_the_run_and_a_finished_one_answers_at_once(here):
    first = json.loads(call(*PRUNE, "--out", "run", "--json").stdout)
    (here / "run" / "result.json").unlink()
    again = json.loads(call("prune", "--out", "run", "--resume", "--json").stdout)
    assert again["result"]["accuracy_after"] == first["result"]["accuracy_after"]
    shown = call("prune", "--out", "run", "--resume")
    assert "is finished" in shown.stderr
    assert "going on" not in shown.stderr


def test_an_interrupted_run_says_how_to_go_on_and_does(here, monkeypatch):
    from thresher.apps.cli.showing import watching

    def interrupt(self, record):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(watching.Lines, "logged", interrupt)
        shown = call(*PRUNE, "--out", "a run", "--checkpoint-every", 1, code=130)
    assert shown.stderr.splitlines()[-1] == "stopped; go on with: thresher prune --resume --out 'a run'"
    assert Run.open(here / "a run").missing()
    call("prune", "--resume", "--out", "a run", "--quiet")
    assert Run.open(here / "a run").missing() == []


def test_the_demo_ends_with_exact_zeros_in_every_row(here):
    few = ["--dense-epochs", 3, "--epochs", 2, "--method", "magnitude", "--method", "lats:mode=early"]
    shown = json.loads(call("demo", *few, "--out", "out", "--json", "--quiet").stdout)
    assert [row["method"] for row in shown["runs"]] == ["dense", "magnitude", "lats:mode=early"]
    assert [row["zeros"] for row in shown["runs"]] == [None, 54_806, 54_806]
    assert all(Run.open(row["run"]).missing() == [] for row in shown["runs"])
    assert shown["page"] is None or Path(shown["page"]).is_file()


def test_the_demo_prints_a_table(here):
    shown = call("demo", "--dense-epochs", 1, "--epochs", 1, "--method", "gmp").stdout
    assert re.search(r"method +accuracy +zeros +sparsity +bytes +ms +engine +ms dense +faster", shown)
    assert re.search(r"gmp +[\d.]+ % +54,806 +89\.999%", shown)
    (folder,) = {path.parent for path in Path("runs/demo").glob("*/gmp")}
    assert f"report page: {folder / 'report.html'}" in shown
    assert "2 runs compared" in (folder / "report.html").read_text()


def test_names_are_listed_for_people_and_for_programs():
    assert "theta" in call("methods").stdout
    assert {"lats", "gmp", "magnitude"} <= set(json.loads(call("methods", "--json").stdout))
    assert "resnet20" in call("models", "--quiet").stdout.splitlines()
    assert "digits" in json.loads(call("data", "--json").stdout)


def test_the_version_is_printed():
    from thresher import __version__

    assert call("--version").stdout.strip() == __version__
    assert "Commands:" in call().stdout


def test_the_bar_draws_on_a_terminal_and_lines_stay_few(capsys):
    from rich.console import Console
    from rich.progress import Progress

    record = {"kind": "epoch", "epoch": 0, "loss": 0.5, "accuracy": 90.0, "sparsity": 0.9, "seconds": 1.0}
    stream = io.StringIO()
    with Progress("{task.description} {task.fields[note]}", console=Console(file=stream, width=100)) as drawing:
        bar = Bar(drawing, "gmp")
        bar.stage("loading")
        bar.started(step=0, steps=10, epochs=2)
        bar.stepped(5)
        bar.logged(record)
        bar.said("heard")
    assert "90.00 %, 90.0% zeros" in stream.getvalue()
    assert "heard" in stream.getvalue()
    lines = Lines("lats")
    lines.started(step=0, steps=400, epochs=40)
    for epoch in range(40):
        lines.logged({**record, "epoch": epoch})
    printed = capsys.readouterr().err.splitlines()
    assert len(printed) == 10
    assert printed[-1].startswith("lats: epoch 40/40")
