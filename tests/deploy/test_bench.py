"""Claims about comparing engines: fair order, compared outputs, the right baseline, and no crash that ends the rest.

No claim is about how fast anything is here: rows are made by hand, or by engines that the tests wrote.
"""

from __future__ import annotations

import dataclasses
import json
import os
import signal
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import thresher
import thresher.deploy.bench.engines as engines_module
from thresher.deploy.bench import ENGINES, Bench, Built, Engine, Order, Row, Variant, compare, pick, ratio
from thresher.deploy.bench.expectation import Expectation, Expected, block, expect, random_mask
from thresher.deploy.bench.machine import Machine, instructions_in, machine
from thresher.deploy.bench.orders import BFLOAT16, FLOAT32
from thresher.deploy.bench.patterns import at_equal_accuracy, pattern_of
from thresher.deploy.bench.table import lines, verdicts
from thresher.deploy.bench.workers import Remote
from thresher.deploy.examples import call
from thresher.errors import InputError, StateError

ABOUT: dict[str, Any] = {"batch": 1, "threads": 1, "precision": FLOAT32, "difference": 0.0}


def net(zeros: bool = False) -> nn.Module:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))
    if zeros:
        with torch.no_grad():
            model[0].weight[:4] = 0
    return model


def engine(name: str, change: Callable[[torch.Tensor], torch.Tensor] = lambda y: y, **options: Any) -> Engine:
    def build(order: Order) -> Built:
        return Built(lambda: change(call(order.model, order.example)), "made here")

    settings = {"packages": ("torch",), "precisions": (FLOAT32,), "build": build, **options}
    return Engine(name=name, **settings)


def compared(*engines: Engine, **options: Any) -> Bench:
    models = {"dense": net(), "pruned": net(zeros=True)}
    settings = {"batches": (1,), "precisions": (FLOAT32,), "rounds": 3, "min_time": 0, "isolate": False, **options}
    return compare(models, torch.randn(2, 6), engines, **settings)


def bench(*rows: Row, accuracy: float | None = None) -> Bench:
    variants = {
        "dense": Variant(bytes=1000, zeros=0, entries=10, accuracy=accuracy),
        "pruned": Variant(bytes=200, zeros=9, entries=10, accuracy=None),
    }
    return Bench(machine={}, engines={}, variants=variants, rows=rows, skipped=(), isolated=True)


def test_patterns_are_seen_in_the_weights() -> None:
    model = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Conv2d(8, 8, 1), nn.Linear(8, 3))
    assert pattern_of(model) == "no zeros"
    thresher.prune(model, None, "magnitude", "sparsity=50%", groups="block:4x1").finish()
    assert pattern_of(model) == "block:4x1"  # the last layer's 3 rows have nothing to share
    free = nn.Sequential(nn.Conv2d(2, 8, 3), nn.Linear(8, 3))
    thresher.prune(free, None, "magnitude", "sparsity=50%").finish()
    assert pattern_of(free) == "free form"
    assert compared(engine("a")).variants["dense"].pattern == "no zeros"


def test_speeds_at_equal_accuracy_lie_between_measured_ones() -> None:
    points = {"a": [(90.0, 2.0), (80.0, 8.0), (79.0, 7.0)], "b": [(85.0, 5.0), (88.0, 3.0)], "c": [(70.0, 9.0)]}
    found = dict(at_equal_accuracy(points))
    assert sorted(found) == [85.0, 88.0]  # nobody shares 90, 80 or 70
    assert found[85.0] == {"a": pytest.approx(4.0), "b": 5.0}
    assert found[88.0] == {"a": pytest.approx(2 * 4**0.2), "b": 3.0}
    assert at_equal_accuracy({"a": [(90.0, 2.0)], "b": []}) == []


def test_the_table_says_which_pattern_is_faster_where_they_are_equally_right() -> None:
    about = {"engine": "e", "batch": 1, "threads": 1, "precision": "float32", "difference": 0.0}
    speeds = {"dense": 1.0, "f1": 0.5, "f2": 0.125, "b1": 0.2, "wrong": 0.001}
    rows = [Row(variant=name, rounds=(time,) * 3, **about) for name, time in speeds.items()]
    rows[-1] = dataclasses.replace(rows[-1], difference=1.0)
    kinds = {"dense": "no zeros", "f1": "free form", "f2": "free form", "b1": "block:4x1", "wrong": "block:4x1"}
    known = {"dense": 95.0, "f1": 90.0, "f2": 80.0, "b1": 85.0, "wrong": 80.0}
    variants = {
        name: Variant(bytes=1, zeros=0, entries=1, accuracy=known[name], pattern=kinds[name]) for name in speeds
    }
    found = Bench(machine={}, engines={}, variants=variants, rows=tuple(rows), skipped=(), isolated=True)
    assert "  at 85.00 %: block:4x1 5.00x, free form 4.00x" in lines(found)
    assert Bench.from_dict(found.to_dict()) == found
    untold = dataclasses.replace(found, variants={**variants, "b1": dataclasses.replace(variants["b1"], accuracy=None)})
    assert not any(line.startswith("  at ") for line in lines(untold))


def test_every_engine_runs_every_model_at_every_size() -> None:
    found = compared(engine("a"), engine("b"), batches=(1, 3), threads=(1, 2))
    cases = {(row.engine, row.variant, row.batch, row.threads) for row in found.rows}
    assert cases == {(e, v, b, t) for e in "ab" for v in ("dense", "pruned") for b in (1, 3) for t in (1, 2)}
    assert all(len(row.rounds) == 3 and row.difference == 0 for row in found.rows)
    assert found.variants["pruned"].zeros == 24
    assert found.variants["pruned"].entries == 72


def test_rounds_are_interleaved_and_turn_their_order() -> None:
    order = ""

    def noted(name: str) -> Callable[[torch.Tensor], torch.Tensor]:
        def change(y: torch.Tensor) -> torch.Tensor:
            nonlocal order
            order += name
            return y

        return change

    compared(engine("a", noted("a")), engine("b", noted("b")), rounds=4)
    assert order[-16:] == "aabb" + "bbaa" + "aabb" + "bbaa"


def test_outputs_are_compared_with_torch_and_a_wrong_engine_is_no_baseline() -> None:
    found = compared(engine("right"), engine("wrong", lambda y: y * 1.5))
    rows = list(found.rows)
    assert [row.agrees for row in rows] == [True, True, False, False]
    best = found.best_dense(rows)
    assert best is not None
    assert best.engine == "right"
    assert sum("NOT COMPARABLE: wrong" in line for line in lines(found)) == 2


def test_an_engine_that_fails_is_left_out_with_its_reason() -> None:
    def broken(order: Order) -> Built:
        raise RuntimeError("no such operator\nand more")

    found = compared(engine("a"), engine("b", build=broken), engine("c", packages=("nowhere_at_all",)))
    assert {row.engine for row in found.rows} == {"a"}
    reasons = {one.engine: one.reason for one in found.skipped}
    assert reasons["b"].endswith("RuntimeError: no such operator")
    assert reasons["c"] == "nowhere_at_all is not installed"


def test_bfloat16_has_rows_of_its_own_and_only_where_an_engine_computes_in_it() -> None:
    found = compared(ENGINES["torch"], engine("a"), precisions=(FLOAT32, BFLOAT16))
    assert {(row.engine, row.precision) for row in found.rows} == {
        ("torch", FLOAT32),
        ("torch", BFLOAT16),
        ("a", FLOAT32),
    }
    assert [(one.engine, one.reason) for one in found.skipped] == [("a", "does not compute in bfloat16")]
    half = [row for row in found.rows if row.precision == BFLOAT16]
    assert all(row.agrees and row.difference > 0 for row in half)


def test_our_engine_has_bfloat16_rows_with_rounded_weights_and_float32_sums() -> None:
    found = compared(ENGINES["thresher"], precisions=(FLOAT32, BFLOAT16))
    exact, half = ([row for row in found.rows if row.precision == precision] for precision in (FLOAT32, BFLOAT16))
    assert {row.variant for row in half} == {row.variant for row in exact}
    assert all(row.agrees and row.note.endswith("float32 sums") for row in half)
    assert max(row.difference for row in half) > max(row.difference for row in exact)  # the weights were rounded


def test_only_what_is_wanted_runs() -> None:
    found = compared(engine("a"), engine("b"), wanted=lambda name, variant: (name, variant) != ("a", "pruned"))
    assert [(row.engine, row.variant) for row in found.rows] == [("a", "dense"), ("b", "dense"), ("b", "pruned")]


def test_the_models_are_left_as_they_are() -> None:
    model = net().train()
    compare({"dense": model}, torch.randn(2, 6), [ENGINES["torch"]], batches=(2,), rounds=1, min_time=0, isolate=False)
    assert model.training
    assert all(parameter.requires_grad and parameter.dtype == torch.float32 for parameter in model.parameters())


@pytest.mark.parametrize("options", [{"batches": (0,)}, {"threads": ()}, {"rounds": 0}])
def test_numbers_that_make_no_sense_are_refused(options: dict[str, Any]) -> None:
    with pytest.raises(InputError):
        compared(engine("a"), **options)


def test_a_model_called_dense_is_needed() -> None:
    with pytest.raises(InputError, match="dense"):
        compare({"pruned": net()}, torch.randn(2, 6), [engine("a")])


def test_speedup_is_against_the_best_dense_engine_and_eager_is_a_second_column() -> None:
    found = bench(
        Row(engine="torch", variant="dense", rounds=(8.0, 8.0, 80.0), **ABOUT),
        Row(engine="ort", variant="dense", rounds=(4.0, 4.0, 40.0), **ABOUT),
        Row(engine="own", variant="pruned", rounds=(2.0, 2.0, 20.0), **ABOUT),
        Row(engine="own", variant="pruned", rounds=(3.0,) * 3, **{**ABOUT, "batch": 16}),
        accuracy=91.5,
    )
    rows = found.to_dict()["rows"]
    assert [(row["speedup"], row["speedup_over_torch"]) for row in rows] == [(0.5, 1), (1, 2), (2, 4), (None, None)]
    text = lines(found)
    own = next(line for line in text if " own " in line)
    assert "2.00x     4.00x" in own
    assert "90.0%" in own
    assert "ort*" in "".join(text)
    assert any("91.50" in line for line in text)
    assert any("pruned on own 2.00x the best dense engine (ort, 4e+03 ms)" in line for line in verdicts(found))


def test_bfloat16_rows_are_never_compared_with_float32_ones() -> None:
    half = {**ABOUT, "precision": BFLOAT16}
    found = bench(
        Row(engine="torch", variant="dense", rounds=(4.0,), **ABOUT),
        Row(engine="torch", variant="dense", rounds=(2.0,), **half),
        Row(engine="torch", variant="pruned", rounds=(1.0,), **half),
    )
    assert [row["speedup"] for row in found.to_dict()["rows"]] == [1, 1, 2]


def test_scattered_rounds_are_called_too_noisy() -> None:
    calm = Row(engine="a", variant="dense", rounds=(1.0, 1.01, 1.0, 1.0, 9.0), **ABOUT)
    wild = Row(engine="a", variant="pruned", rounds=(1.0, 2.0, 3.0, 4.0, 5.0), **ABOUT)
    assert bench(calm).noisy() == []
    assert bench(calm, wild).noisy() == [wild]
    text = "\n".join(lines(bench(calm, wild)))
    assert "TOO NOISY: in 1 of 2 rows" in text
    assert "scatter too much to say so" in text
    assert "TOO NOISY" not in "\n".join(lines(bench(calm)))


def test_a_ratio_is_taken_round_by_round() -> None:
    a = Row(engine="a", variant="dense", rounds=(1.0, 10.0, 100.0), **ABOUT)
    b = Row(engine="b", variant="dense", rounds=(0.5, 5.0, 400.0), **ABOUT)
    assert ratio(a, b) == 2
    assert ratio(None, b) is None


def test_a_bench_comes_back_from_its_json() -> None:
    found = compared(engine("a"), engine("b", packages=("nowhere_at_all",)))
    again = Bench.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again == found
    with pytest.raises(InputError, match="version"):
        Bench.from_dict({**found.to_dict(), "version": 9})


def test_engines_are_picked_by_name_once_each() -> None:
    assert [one.name for one in pick(None)] == ["torch", "inductor", "onnxruntime", "openvino", "thresher"]
    assert [one.name for one in pick("torch,torch")] == ["torch"]
    for wrong in ("tensorflow", "", "torch,ort"):
        with pytest.raises(InputError):
            pick(wrong)


def test_openvino_is_told_to_compute_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[Any] = []

    class Core:
        def read_model(self, path: str) -> str:
            return path

        def compile_model(self, model: str, device: str, settings: dict[str, Any]) -> Any:
            told.append(settings)
            return self

        def create_infer_request(self) -> None:
            return None

    real = engines_module.importlib.import_module
    library = type("openvino", (), {"Core": Core})
    monkeypatch.setattr(
        engines_module.importlib, "import_module", lambda name: library if name == "openvino" else real(name)
    )
    monkeypatch.setattr(engines_module, "write_onnx", lambda *_, **__: None)
    for precision in (FLOAT32, BFLOAT16):
        order = Order(model=net(), example=torch.randn(1, 6), threads=2, precision=precision)
        ENGINES["openvino"].build(order)
    assert [one["INFERENCE_PRECISION_HINT"] for one in told] == ["f32", "bf16"]
    assert all(one["INFERENCE_NUM_THREADS"] == 2 for one in told)


@pytest.mark.parametrize("name", ["onnxruntime", "openvino"])
def test_an_installed_engine_gives_the_outputs_of_torch(name: str) -> None:
    if ENGINES[name].missing():
        pytest.skip(str(ENGINES[name].missing()))
    found = compared(ENGINES[name], rounds=1)
    assert [row.agrees for row in found.rows] == [True, True]


def test_an_engine_of_our_own_that_does_not_load_says_why(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(name: str) -> Any:
        raise OSError("wrong ELF class")

    monkeypatch.setattr(engines_module.importlib, "import_module", fails)
    monkeypatch.setattr(engines_module.util, "find_spec", lambda name: object())
    assert "wrong ELF class" in str(ENGINES["thresher"].missing())


def test_our_own_engine_is_told_the_threads_and_times_each_layer() -> None:
    before = torch.get_num_threads()
    try:
        found = compared(ENGINES["thresher"], threads=(2,), rounds=1)
    finally:
        torch.set_num_threads(before)
    for row in found.rows:
        assert row.threads == 2
        if row.note.startswith("chose"):
            assert row.layers == ()
        else:
            assert [one.name for one in row.layers if one.milliseconds_dense] == ["0", "2"]
            assert all(one.milliseconds > 0 for one in row.layers)
    again = Bench.from_dict(json.loads(json.dumps(found.to_dict())))
    assert again.rows == found.rows


def test_a_worker_in_its_own_process_answers_and_its_death_is_an_error_not_a_crash() -> None:
    worker = Remote(ENGINES["torch"], {"dense": (net().eval(), torch.randn(2, 6))})
    try:
        built = worker.build("dense", 3, 1, FLOAT32, 0.0)
        assert built["outputs"][0].shape == (3, 3)
        assert worker.time("dense") > 0
        assert "KeyError" in worker.build("nothing", 1, 1, FLOAT32, 0.0)["error"]
        os.kill(worker._process.pid, signal.SIGKILL)
        with pytest.raises(StateError, match="-9"):
            worker.time("dense")
        assert "-9" in worker.build("dense", 1, 1, FLOAT32, 0.0)["error"]
    finally:
        worker.close()


def test_the_machine_is_described() -> None:
    here = machine()
    assert here.cores >= 1
    assert json.loads(json.dumps(here.to_dict()))["cores"] == here.cores
    assert instructions_in(set()) == ()
    assert isinstance(here, Machine)


@pytest.mark.parametrize(
    ("pattern", "sparsity", "kept"), [("free form", 0.9, 51), ("block:4x1", 0.5, 256), ("2:4", 0.5, 256)]
)
def test_random_masks_keep_their_share_in_their_pattern(pattern: str, sparsity: float, kept: int) -> None:
    mask = random_mask((8, 16, 2, 2), pattern, sparsity, torch.Generator().manual_seed(0))
    assert int(mask.sum()) == kept
    if pattern == "block:4x1":
        assert torch.equal(mask[0], mask[3])
    if pattern == "2:4":
        assert (mask.view(8, 4, 4, 4).sum(2) == 2).all()


def test_expectations_name_every_pattern_that_an_engine_could_run() -> None:
    dense, sparse = ENGINES["torch"], engine("thresher")
    found = expect([dense, sparse], rounds=1, min_time=0, size=(1, 16, 4, 4))
    assert [(one.pattern, one.sparsity) for one in found.expected][-2:] == [("2:4", 0.5), ("half the channels", None)]
    assert len(found.expected) == 7
    alone = expect([dense], rounds=1, min_time=0, size=(1, 16, 4, 4))
    assert [one.pattern for one in alone.expected] == ["half the channels"]
    assert json.loads(json.dumps(alone.to_dict()))["best_dense"] == "torch"
    assert torch.equal(block(16, 4)[0].weight, block(16, 4)[0].weight)


@pytest.mark.parametrize(
    ("noise", "load", "noisy"), [(0.1, 0.0, False), (0.5, 0.0, True), (0.1, 1e6, True), (0.1, None, False)]
)
def test_a_machine_that_is_busy_or_scatters_is_too_noisy(noise: float, load: float | None, noisy: bool) -> None:
    one = Expected(pattern="2:4", sparsity=0.5, engine="torch", speedup=1.0, low=1.0, high=1.0)
    found = Expectation(
        expected=(one,), best_dense="torch", milliseconds=1.0, bfloat16=None, noise=noise, load=load, bench=bench()
    )
    assert found.too_noisy is noisy
