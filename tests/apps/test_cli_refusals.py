"""Claims about bad input: one message of three lines on stderr, exit code 2, no traceback, nothing half done."""

from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from thresher import save
from thresher.apps.cli import main
from thresher.apps.models import build_model
from thresher.apps.runs import Run

SMALL = ["--model", "small-cnn", "--limit", "256", "--batch-size", "64", "--epochs", "1", "--threads", "1"]
PRUNE = ["prune", *SMALL, "--method", "lats", "--budget", "sparsity=90%"]
RECORD = {"model": "small-cnn", "num_classes": 5, "input_shape": [1, 8, 8], "normalisation": [[0.5], [0.5]]}


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def refusal(*arguments):
    outcome = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert outcome.exit_code == 2, outcome.output
    assert outcome.stdout == ""
    said = [line for line in outcome.stderr.splitlines() if line.startswith(("given: ", "expected: ", "do: "))]
    assert [line.split(":")[0] for line in said] == ["given", "expected", "do"], outcome.stderr
    assert "Traceback" not in outcome.output
    return outcome.stderr


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--model", "resnet21"], ["resnet21", "resnet20", "did you mean"]),
        (["--method", "latz"], ["latz", "lats", "gmp"]),
        (["--method", "gmp:ends=1"], ["ends", "end"]),
        (["--data", "cifra10"], ["cifra10", "cifar10"]),
        (["--rule", "exclude:conv9"], ["conv9", "stem.conv", "linear"]),
        (["--rule", "loosely"], ["loosely", "exclude:PATTERN"]),
        (["--groups", "2:0"], ["2:0"]),
        (["--budget", "sparsity=120%"], ["sparsity=1.2"]),
        (["--budget", "sparsity=99.999%"], ["sparsity=99.9990%", "%"]),
        (["--budget", "bytes=1KB"], ["bytes=1000"]),
        (["--budget", "latency=5ms"], ["without engine", "--engine thresher"]),
        (["--engine", "thresher"], ["without a latency= budget"]),
        (["--engine", "torch"], ["engine='torch'", "thresher"]),
        (["--budget", "smallness=3"], ["smallness", "sparsity=90%"]),
        (["--weights", "nowhere.safetensors"], ["nowhere.safetensors"]),
        (["--optimizer", "rmsprop"], ["rmsprop", "adamw"]),
        (["--device", "tpu"], ["tpu", "cpu"]),
        (["--augment", "twist"], ["twist", "crop_flip"]),
        (["--batch-size", "5000"], ["batch_size=5000", "256 images"]),
        (["--start", "99"], ["start=99"]),
        (["--epochs", "0"], ["epochs=0", "magnitude"]),
        (["--config", "nowhere.toml"], ["nowhere.toml"]),
        (["--resume"], ["--resume", "--out"]),
        (["--lr", "1e30"], ["step", "lower the learning rate"]),
    ],
)
def test_the_message_names_what_was_wrong_and_what_would_be_right(changes, words):
    said = refusal(*PRUNE, *changes)
    for word in words:
        assert word in said
    if "1e30" not in changes:
        assert not list(Path().glob("runs/*"))


def test_prune_without_a_budget_says_how_one_is_written():
    assert "--budget" in refusal("prune", *SMALL)


def test_train_does_not_prune(here):
    (here / "a.toml").write_text('model = "mlp"\nmethod = "lats"\nbudget = "sparsity=90%"\n')
    assert "thresher prune" in refusal("train", "--config", "a.toml")


def test_a_folder_in_use_is_left_alone(here):
    (here / "run").mkdir()
    (here / "run" / "precious").write_text("mine")
    assert "precious" in refusal(*PRUNE, "--out", "run")
    assert "not empty" in refusal("demo", "--out", "run")
    assert [path.name for path in (here / "run").iterdir()] == ["precious"]


def test_weights_of_another_number_of_classes_are_refused(here):
    save(build_model("small-cnn", num_classes=5, input_shape=(1, 8, 8)), "five.safetensors", record=RECORD)
    assert "number of classes 5, with number of classes 10" in refusal(*PRUNE, "--weights", "five.safetensors")
    assert "number of classes 5, with number of classes 10" in refusal("eval", "five.safetensors", "--data", "digits")


def test_corrupt_files_are_refused(here):
    model = build_model("small-cnn", num_classes=10, input_shape=(1, 8, 8))
    save(model, "good.safetensors", record={**RECORD, "num_classes": 10})
    held = Path("good.safetensors").read_bytes()
    Path("cut.safetensors").write_bytes(held[: len(held) // 2])
    Path("flipped.safetensors").write_bytes(held[:-9] + bytes([held[-9] ^ 1]) + held[-8:])
    torch.save(model.state_dict(), "pickle.pt")
    for file in ("cut.safetensors", "flipped.safetensors", "pickle.pt"):
        assert file in refusal(*PRUNE, "--weights", file)
        assert file in refusal("eval", file, "--data", "digits")


def test_corrupt_checkpoints_are_refused_by_name(here):
    CliRunner().invoke(main, ["train", *SMALL, "--out", "run", "--quiet"])
    (here / "run" / "result.json").unlink()
    (here / "run" / "checkpoint.pt").write_bytes(b"junk")
    assert "checkpoint.pt is damaged" in refusal("train", "--out", "run", "--resume")


def test_eval_of_a_run_without_its_network_says_how_to_finish_it(here):
    run = Run.create(here / "run")
    run.write("config.json", {"method": None, "data": "digits"})
    assert "--resume" in refusal("eval", "run")
    assert "'nowhere'" in refusal("eval", "nowhere", "--data", "digits", "--model", "mlp")


def test_eval_needs_a_data_set_and_a_name_where_the_file_knows_neither(here):
    from safetensors.torch import save_file

    save_file(build_model("small-cnn", num_classes=10, input_shape=(1, 8, 8)).state_dict(), "bare.safetensors")
    assert "--data" in refusal("eval", "bare.safetensors")
    assert "--model" in refusal("eval", "bare.safetensors", "--data", "digits")


def test_debug_lets_the_traceback_through(here):
    outcome = CliRunner().invoke(main, ["--debug", "prune", "--model", "resnet21", "--budget", "sparsity=90%"])
    assert type(outcome.exception).__name__ == "InputError"


def test_an_unexpected_error_is_a_message_too(monkeypatch):
    def fall(*_, **__):
        raise RuntimeError("out of luck")

    monkeypatch.setattr("thresher.apps.models.model_names", fall)
    outcome = CliRunner().invoke(main, ["models"])
    assert outcome.exit_code == 1
    assert "given: RuntimeError: out of luck" in outcome.stderr
    assert "--debug" in outcome.stderr


def test_a_wrong_flag_is_answered_with_the_usage():
    outcome = CliRunner().invoke(main, ["prune", "--nope"])
    assert outcome.exit_code == 2
    assert "No such option" in outcome.output
