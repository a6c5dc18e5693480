"""Claims about a run: what it leaves behind, and that its numbers are those of the network it saved."""

import json

import pytest
import torch

from thresher import load_state
from thresher.apps.data.roots import find
from thresher.apps.models import build_model, normalisation_of
from thresher.apps.runs import FILES, Run
from thresher.apps.train import Progress, TrainConfig, fit, load_network
from thresher.apps.train.ending.measuring import measure_saved, open_saved
from thresher.errors import InputError

SMALL = {"model": "small-cnn", "data": "digits", "limit": 256, "batch_size": 64, "epochs": 2, "threads": 1}
PRUNE = {**SMALL, "method": "lats", "budget": "sparsity=90%"}


def run_it(path, **asked):
    run = Run.create(path)
    return run, fit(TrainConfig(**asked), run)


@pytest.fixture(scope="module")
def pruned(tmp_path_factory):
    return run_it(tmp_path_factory.mktemp("pruned") / "run", **{**PRUNE, "channels_last": True})


@pytest.fixture(scope="module")
def dense(tmp_path_factory):
    return run_it(tmp_path_factory.mktemp("dense") / "run", **{**SMALL, "epochs": 4})


def test_a_finished_run_holds_every_file_and_opens_again(pruned):
    run, result = pruned
    assert run.finished
    assert set(run.present()) == set(FILES) - {"plan.json", "shrink.json"}
    assert run.missing() == []
    assert Run.open(run.path).result["accuracy_after"] == result.accuracy_after
    assert (run.path / "tensorboard").is_dir()
    assert not [path for path in run.path.iterdir() if path.name.endswith(".tmp")]


def test_config_json_holds_all_that_a_rerun_needs(pruned):
    run, _ = pruned
    settings = {key: value for key, value in run.config.items() if key in TrainConfig.model_fields}
    assert TrainConfig(**settings) == TrainConfig(**{**PRUNE, "channels_last": True})
    assert {"version", "command", "thresher", "torch", "seed"} <= set(run.config)


def test_metrics_are_json_lines_of_two_kinds_with_the_documented_keys(pruned):
    lines = [json.loads(line) for line in (pruned[0].path / "metrics.jsonl").read_text().splitlines()]
    steps = [line for line in lines if line["kind"] == "step"]
    epochs = [line for line in lines if line["kind"] == "epoch"]
    assert [line["step"] for line in steps] == list(range(1, 9))
    assert {"step", "epoch", "loss", "lr", "sparsity", "threshold", "seconds"} <= set(steps[0])
    assert [(line["epoch"], line["step"]) for line in epochs] == [(0, 4), (1, 8)]
    assert {"loss", "accuracy", "sparsity", "lr", "seconds"} <= set(epochs[0])
    assert epochs[0]["loss"] == pytest.approx(sum(line["loss"] for line in steps[:4]) / 4, rel=1e-5)
    assert 0 < steps[0]["threshold"] < steps[-1]["threshold"]


def test_the_saved_network_has_the_budget_exactly_and_the_file_the_bytes_of_the_result(pruned):
    run, result = pruned
    state, record = load_state(run.model_path)
    names = [layer.name for layer in run.report.layers]
    assert sum(int((state[name] == 0).sum()) for name in names) == result.zeros == int(0.9 * result.entries)
    assert run.model_path.stat().st_size == result.bytes == run.report.bytes
    assert record["model"] == "small-cnn"
    assert record["input_shape"] == [1, 8, 8]


def test_evaluating_the_run_gives_the_accuracy_of_its_result(pruned):
    run, result = pruned
    measured = measure_saved(open_saved(run.path))
    assert measured["accuracy"] == pytest.approx(result.accuracy_after)
    assert measured["zeros"] == result.zeros
    assert measure_saved(open_saved(run.model_path, data="digits", limit=256))["accuracy"] == measured["accuracy"]


def test_a_bytes_budget_holds_for_the_file_on_the_disk(tmp_path, dense):
    asked = {**PRUNE, "weights": str(dense[0].path), "method": "magnitude", "budget": "bytes=40KB", "epochs": 0}
    run, result = run_it(tmp_path / "run", **asked)
    assert run.model_path.stat().st_size == result.bytes <= 40_000
    assert result.bytes > 39_000
    assert result.steps == 0


@pytest.mark.parametrize("method", ["magnitude", "random"])
def test_one_shot_methods_run_without_training(tmp_path, dense, method):
    asked = {**PRUNE, "weights": str(dense[0].path), "method": method, "epochs": 0}
    _, result = run_it(tmp_path / "run", **asked)
    assert result.accuracy_before == dense[1].accuracy_after
    assert result.zeros == int(0.9 * result.entries)


def test_plain_training_says_so_and_prunes_nothing(dense):
    run, result = dense
    assert run.report is run.trace is None
    assert run.missing() == []
    assert (result.sparsity, result.zeros, result.asked) == (0.0, None, None)
    assert result.accuracy_after > result.accuracy_before


def test_weights_from_a_run_need_no_model_name_and_keep_their_normalisation(dense):
    network = load_network(None, dense[0].path)
    assert network.name == "small-cnn"
    assert network.normalisation is not None
    assert normalisation_of(network.model) is None
    for name, tensor in load_state(dense[0].model_path)[0].items():
        assert torch.equal(network.model.state_dict()[name], tensor)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"num_classes": 5}, "number of classes 10, with number of classes 5"),
        ({"input_shape": (3, 32, 32)}, "input shape"),
        ({"name": "mlp"}, "network small-cnn, with network mlp"),
    ],
)
def test_weights_that_do_not_fit_are_refused_with_both_values(dense, change, words):
    asked = {"name": None, "weights": dense[0].path, "num_classes": 10, "input_shape": (1, 8, 8), **change}
    with pytest.raises(InputError, match=words):
        load_network(**asked)


@pytest.mark.parametrize("precision", ["fp16", "bf16"])
def test_mixed_precision_trains_and_finishes_exactly(tmp_path, precision):
    _, result = run_it(tmp_path / "run", **{**PRUNE, "precision": precision, "epochs": 1})
    assert result.zeros == int(0.9 * result.entries)


def test_the_engine_speaks_to_its_watcher_only(tmp_path, capfd):
    seen = []

    class Watch(Progress):
        def started(self, **numbers):
            seen.append(numbers)

        def stepped(self, step):
            seen.append(step)

    fit(TrainConfig(**{**PRUNE, "epochs": 1}), Run.create(tmp_path / "run"), Watch())
    assert seen == [{"step": 0, "steps": 4, "epochs": 1}, 1, 2, 3, 4]
    assert capfd.readouterr() == ("", "")


def test_threads_and_kernel_choices_are_put_back(tmp_path):
    before = torch.get_num_threads(), torch.backends.cudnn.deterministic
    with pytest.raises(InputError):
        run_it(tmp_path / "run", **{**PRUNE, "threads": before[0] + 1, "budget": "sparsity=200%"})
    assert (torch.get_num_threads(), torch.backends.cudnn.deterministic) == before


@pytest.mark.shared_data
@pytest.mark.skipif(find("cifar10") is None, reason="needs the CIFAR-10 files")
def test_cifar10_and_the_pretrained_resnet20_run_end_to_end(tmp_path):
    asked = {"model": "resnet20", "weights": "cifar10", "data": "cifar10", "limit": 128, "batch_size": 64, "epochs": 1}
    run, result = run_it(tmp_path / "run", **asked, threads=1, lr=0.001, method="lats-early", budget="sparsity=50%")
    assert result.accuracy_before > 85
    assert result.zeros == int(0.5 * result.entries)
    mean, std = normalisation_of(build_model("resnet20", num_classes=10, input_shape=(3, 32, 32), weights="cifar10"))
    assert load_state(run.model_path)[1]["normalisation"] == [list(mean), list(std)]
