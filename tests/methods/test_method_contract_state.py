"""The contract suite: every method saved, resumed, copied, written to a file and to JSON."""

import copy
import dataclasses
import json
from pathlib import Path

import pytest
import torch
from method_bench import NAMES, STEPS, Bench, batch, network

import thresher
from thresher.attach import finalize_copy
from thresher.errors import InputError, StateError
from thresher.methods import method_from_record, method_record, parse_method
from thresher.methods.registry import REGISTRY

every = pytest.mark.parametrize("name", NAMES)


@every
def test_a_run_resumes_bit_for_bit_at_any_step(name: str) -> None:
    whole, states = Bench(name), []
    for step in range(STEPS + 1):
        states.append(
            (
                copy.deepcopy(whole.model.state_dict()),
                copy.deepcopy(whole.optimizer.state_dict()),
                whole.pruner.state_dict(),  # must not follow the run: no copy here
            )
        )
        if step < STEPS:
            whole.train(step, step + 1)
    thresholds = whole.pruner.process.thresholds()
    report = whole.finish()
    for step, (model, optimizer, pruner) in enumerate(states):
        again = Bench(name)
        again.model.load_state_dict(model)
        again.optimizer.load_state_dict(optimizer)
        again.pruner.load_state_dict(pruner)
        assert again.pruner.step == step
        again.train(step)
        assert again.pruner.process.thresholds() == thresholds
        assert again.pruner.trace.state_dict() == whole.pruner.trace.state_dict()
        assert again.finish() == report
        for key, value in whole.model.state_dict().items():
            assert torch.equal(again.model.state_dict()[key], value), (step, key)


@every
def test_a_state_survives_the_disk_without_pickled_objects(name: str, tmp_path: Path) -> None:
    bench = Bench(name).train(0, 7)
    torch.save(bench.pruner.state_dict(), tmp_path / "pruner.pt")
    again = Bench(name)
    again.model.load_state_dict(bench.model.state_dict())
    again.pruner.load_state_dict(torch.load(tmp_path / "pruner.pt", weights_only=True))
    assert again.pruner.process.thresholds() == bench.pruner.process.thresholds()
    assert torch.equal(again.output(), bench.output())


@pytest.mark.parametrize(
    ("key", "other"),
    [
        ("method", Bench("random")),
        ("budget", Bench("gmp", "sparsity=80%")),
        ("steps", Bench("gmp", steps=13)),
        ("groups", Bench("gmp", "sparsity=50%", more={"groups": "row"})),
        ("names", Bench("gmp", more={"rules": ["exclude:13"]})),
        ("start", Bench("gmp", more={"start": 3})),
    ],
)
def test_the_state_of_another_run_is_refused(key: str, other: Bench) -> None:
    bench = Bench("gmp", "sparsity=50%" if key == "groups" else "sparsity=90%")
    with pytest.raises(StateError, match=f"a state with {key}="):
        bench.pruner.load_state_dict(other.pruner.state_dict())


@every
def test_a_deep_copy_is_independent_and_finishes_on_its_own(name: str) -> None:
    bench = Bench(name).train(0, 6)
    twin = copy.deepcopy(bench.model)
    expected = bench.output()
    assert torch.equal(finalize_copy(twin).eval()(batch(99)[0]), expected)
    bench.train(6).finish()
    assert torch.equal(twin.eval()(batch(99)[0]), expected)
    assert torch.equal(finalize_copy(twin).eval()(batch(99)[0]), expected)


@every
def test_the_plain_state_dict_is_the_function_of_the_moment(name: str) -> None:
    bench = Bench(name).train(0, 8)
    plain = network()
    plain.load_state_dict(bench.pruner.plain_state_dict())
    assert torch.equal(plain.eval()(batch(99)[0]), bench.output())
    bench.train(8)
    bench.finish()


@every
def test_the_saved_file_has_the_reported_size_and_loads_into_a_plain_model(name: str, tmp_path: Path) -> None:
    bench = Bench(name, "bytes=60%").train()
    report = bench.finish()
    path = tmp_path / "model.safetensors"
    assert thresher.save(bench.model, path).bytes == path.stat().st_size == report.bytes == report.got["bytes"]
    plain = network()
    whole = tmp_path / "whole.safetensors"
    assert path.stat().st_size <= int(0.6 * thresher.save(plain, whole).bytes)
    thresher.load(path, plain)
    for key, value in bench.model.state_dict().items():
        assert torch.equal(plain.state_dict()[key], value), key


@every
def test_the_configuration_survives_json_and_its_own_repr(name: str) -> None:
    method = parse_method(name)
    record = json.loads(json.dumps(method_record(method)))
    assert method_from_record(record) == method
    assert eval(repr(method), dict(REGISTRY) | {kind.__name__: kind for kind in REGISTRY.values()}) == method
    with pytest.raises(InputError, match="unknown key colour"):
        method_from_record({**record, "colour": 1})
    with pytest.raises(InputError, match="version 2"):
        method_from_record({**record, "version": 2})
    with pytest.raises(InputError, match="one of asl"):
        method_from_record({**record, "kind": "wishing"})


@every
def test_a_configuration_is_frozen(name: str) -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        parse_method(name).name = "x"  # type: ignore[misc]
