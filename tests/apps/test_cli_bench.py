"""Claims about `thresher bench`, `thresher export` and `thresher doctor`: what they write, print and refuse."""

import json
from pathlib import Path

import pytest
import torch
from command_line import call

import thresher
from thresher.apps.cli.doctor import expectation_lines, machine_lines
from thresher.apps.cli.reading.opening import open_network, parse_counts
from thresher.deploy.bench import Bench, Machine
from thresher.deploy.bench.expectation import Expectation, Expected
from thresher.errors import InputError

QUICK = ["--engines", "torch", "--batch", "2", "--threads", "1", "--rounds", "1", "--min-time", "0", "--same-process"]
SMALL = ["--shape", "1,8,8", "--classes", "10"]


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    threads = torch.get_num_threads()
    yield tmp_path
    torch.set_num_threads(threads)


@pytest.fixture
def saved():
    """A pruned small network in a file that says what it is."""
    from thresher.apps.train import load_network

    network = load_network("small-cnn", None, num_classes=10, input_shape=(1, 8, 8))
    thresher.prune(network.model, None, "magnitude", "sparsity=80%").finish()
    thresher.save(network.model, "pruned.safetensors", record=network.record(((0.0,), (1.0,))))
    return Path("pruned.safetensors")


def test_a_network_by_name_is_pruned_by_magnitude_and_the_table_is_saved():
    shown = call("bench", "mlp", *SMALL, *QUICK, "--sparsity", "70%", "--precision", "float32", "--out", "run").stdout
    assert shown.startswith("mlp, input 1x8x8")
    assert "speedup: against the best dense engine" in shown
    record = json.loads(Path("run/bench.json").read_text())
    found = Bench.from_dict(record)
    assert {(row.engine, row.variant) for row in found.rows} == {("torch", "dense"), ("torch", "pruned")}
    pruned = found.variants["pruned"]
    assert 0.69 < pruned.zeros / pruned.entries <= 0.7
    assert pruned.bytes < found.variants["dense"].bytes
    assert json.loads(Path("run/config.json").read_text())["sparsity"] == "70%"
    assert "report page: run/report.html" in shown
    assert "Milliseconds a pass" in Path("run/report.html").read_text()


def test_without_out_a_new_run_folder_is_named():
    call("bench", "mlp", *SMALL, *QUICK, "--precision", "float32", "--quiet")
    call("bench", "mlp", *SMALL, *QUICK, "--precision", "float32", "--quiet")
    assert len(list(Path("runs").glob("bench-mlp-*/bench.json"))) == 2


def test_a_pruned_file_is_compared_with_an_untrained_dense_one_and_its_accuracy_is_measured(saved):
    record = json.loads(
        call("bench", saved, *QUICK, "--data", "digits", "--limit", 50, "--out", "run", "--json", "--quiet").stdout
    )
    assert record["variants"]["dense"]["zeros"] == 0
    assert record["variants"]["dense"]["accuracy"] is None
    assert 0 <= record["variants"]["pruned"]["accuracy"] <= 100
    accuracy = json.loads(call("eval", saved, "--data", "digits", "--limit", 50, "--json").stdout)["accuracy"]
    assert record["variants"]["pruned"]["accuracy"] == accuracy
    assert {row["precision"] for row in record["rows"]} == {"float32", "bfloat16"}


def test_networks_beside_are_timed_and_told_apart(saved):
    from thresher.apps.train import load_network

    files = []
    for folder in ("one", "two"):
        network = load_network("small-cnn", None, num_classes=10, input_shape=(1, 8, 8))
        thresher.prune(network.model, None, "magnitude", "sparsity=70%", groups="block:4x1").finish()
        files.append(Path(folder) / "net.safetensors")
        files[-1].parent.mkdir()
        thresher.save(network.model, files[-1], record=network.record(((0.0,), (1.0,))))
    more = [word for file in files for word in ("--beside", file)]
    call("bench", saved, *more, *QUICK, "--precision", "float32", "--data", "digits", "--limit", 50, "--out", "run")
    variants = Bench.from_dict(json.loads(Path("run/bench.json").read_text())).variants
    patterns = {name: variant.pattern for name, variant in variants.items()}
    assert patterns == {"dense": "no zeros", "pruned": "free form", "net": "block:4x1", "net-2": "block:4x1"}
    assert all(variants[name].accuracy is not None for name in ("pruned", "net", "net-2"))
    other = load_network("small-cnn", None, num_classes=4, input_shape=(1, 8, 8))
    thresher.save(other.model, "four.safetensors", record=other.record(((0.0,), (1.0,))))
    for file, word in (("four.safetensors", "4 classes"), ("nowhere", "--beside nowhere")):
        assert word in call("bench", saved, "--beside", file, *QUICK, "--out", "other", code=2).stderr
    assert not Path("other").exists()


def test_a_shrunk_file_is_rebuilt_and_compared_with_its_dense_network():
    from thresher.apps.train import load_network

    network = load_network("small-cnn", None, num_classes=10, input_shape=(1, 8, 8))
    small = thresher.shrink_plan(network.model, "l1", "params=50%", calibration=[torch.randn(8, 1, 8, 8)])
    thresher.save(small.model, "small.safetensors", record=network.record(((0.0,), (1.0,))), plan=small.plan)
    call("bench", "small.safetensors", *QUICK, "--precision", "float32", "--out", "run", "--quiet")
    variants = Bench.from_dict(json.loads(Path("run/bench.json").read_text())).variants
    assert variants["pruned"].entries < variants["dense"].entries


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--engines", "tensorflow"], "torch, inductor"),
        (["--batch", "0"], "--batch"),
        (["--threads", "1,x"], "--threads"),
        (["--precision", "int8"], "float32"),
        (["--sparsity", "120%"], "sparsity"),
        (["--shape", "3"], "--shape"),
        (["--min-time", "-1"], "--min-time"),
        (["--dense", "nowhere.safetensors"], "--dense"),
    ],
)
def test_what_cannot_be_meant_is_refused_before_anything_is_timed(changes, words):
    shown = call("bench", "mlp", *SMALL, *QUICK, "--out", "run", *changes, code=2)
    assert words in shown.stderr
    assert [line.split(":")[0] for line in shown.stderr.splitlines()] == ["given", "expected", "do"]
    assert not Path("run/bench.json").exists()


def test_names_and_files_are_opened_alike(saved):
    assert open_network("resnet20", None, None, None).input_shape == (3, 32, 32)
    assert open_network(str(saved), None, None, None).name == "small-cnn"
    with pytest.raises(InputError):
        open_network("nowhere.safetensors", None, None, None)
    assert parse_counts("--batch", "1, 2") == [1, 2]


@pytest.mark.parametrize("fold", [False, True])
def test_a_file_becomes_an_exported_program(saved, fold):
    shown = call("export", saved, "--format", "torch", *["--fold"] * fold).stdout
    assert "outputs differ by at most" in shown
    assert ("batch norms folded" in shown) is fold
    program = torch.export.load("model.pt2").module()
    assert program(torch.randn(5, 1, 8, 8)).shape == (5, 10)


def test_a_file_becomes_onnx(saved):
    runtime = pytest.importorskip("onnxruntime")
    record = json.loads(call("export", saved, "--out", "x.onnx", "--json").stdout)
    assert record["bytes"] == Path("x.onnx").stat().st_size
    assert record["difference"] < 1e-4
    session = runtime.InferenceSession("x.onnx", providers=["CPUExecutionProvider"])
    assert session.run(None, {session.get_inputs()[0].name: torch.randn(5, 1, 8, 8).numpy()})[0].shape == (5, 10)


def test_only_networks_of_the_library_become_hugging_face_folders(saved):
    shown = call("export", saved, "--format", "hf", "--out", "folder", code=2)
    assert "save_pretrained" in shown.stderr
    assert not Path("folder").exists()


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (["--format", "tflite"], "onnx, torch, hf"),
        (["--format", "hf", "--fold"], "--fold"),
        (["--tolerance", "0"], "--tolerance"),
        (["--model", "mlp"], "mlp"),
        (["--out", "no/where.pt2", "--format", "torch"], "where.pt2"),
    ],
)
def test_exports_that_cannot_be_meant_are_refused(saved, changes, words):
    shown = call("export", saved, *changes, code=2)
    assert words in shown.stderr
    assert [line.split(":")[0] for line in shown.stderr.splitlines()] == ["given", "expected", "do"]


def test_the_doctor_describes_the_machine_without_measuring():
    shown = call("doctor", "--no-measure").stdout
    assert "cores: " in shown
    assert "engine torch: " in shown
    record = json.loads(call("doctor", "--no-measure", "--json").stdout)
    assert set(record) == {"machine", "engines", "missing", "expectation"}
    assert record["expectation"] is None


def expectation(*expected, noise=0.1, bfloat16=1.8):
    bench = Bench(machine={}, engines={}, variants={}, rows=(), skipped=(), isolated=False)
    return Expectation(
        expected=expected,
        best_dense="onnxruntime",
        milliseconds=1.0,
        bfloat16=bfloat16,
        noise=noise,
        load=0.0,
        bench=bench,
    )


def test_the_doctor_says_plainly_when_zeros_bring_nothing_or_the_machine_is_too_noisy():
    half = Expected(pattern="half the channels", sparsity=None, engine="torch", speedup=2.0, low=1.9, high=2.1)
    free = Expected(pattern="free form", sparsity=0.9, engine="thresher", speedup=3.5, low=3.4, high=3.6)
    text = "\n".join(expectation_lines(expectation(half)))
    assert "zeros: no gain" in text
    assert "TOO NOISY" not in text
    text = "\n".join(expectation_lines(expectation(free, half, noise=0.6)))
    assert "free form, 90% zeros" in text
    assert "3.50x" in text
    assert "no gain" not in text
    assert "TOO NOISY: the rounds scatter by 60%" in text


def test_what_a_system_does_not_say_is_called_unknown():
    bare = Machine(processor="?", system="?", instructions=(), cores=1, memory=None, compiler=None, load=None)
    text = "\n".join(machine_lines(bare))
    assert "memory: unknown" in text
    assert "compiler: none" in text
