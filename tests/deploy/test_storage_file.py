"""Claims about whole files: what goes in comes out, the size is known before, and the old file is safe."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import safetensors
import safetensors.torch
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from test_storage_encoding import ALL, random_tensor, same_bits
from torch import Tensor, nn
from torch.nn.utils import parametrize

import thresher.deploy.storage.file as file_module
from thresher.deploy.storage import load, load_state, predicted_file_bytes, save
from thresher.errors import InputError

shared_folder = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
tensors = st.builds(
    random_tensor,
    st.sampled_from(ALL),
    st.one_of(st.lists(st.integers(0, 6), max_size=3).map(tuple), st.tuples(st.integers(0, 3000))),
    st.sampled_from([0, 0.01, 0.1, 0.5, 1]),
    st.integers(0, 99),
)
names = st.text(st.characters(codec="utf-8"), max_size=12).filter(lambda n: n != "__metadata__" and "#" not in n)
records = st.dictionaries(
    st.text(max_size=5), st.none() | st.booleans() | st.integers() | st.text(max_size=8), max_size=3
)


@shared_folder
@given(state=st.dictionaries(names, tensors, max_size=6), record=records)
def test_what_was_saved_comes_back_and_the_size_was_predicted(
    tmp_path: Path, state: dict[str, Tensor], record: dict[str, Any]
) -> None:
    path = tmp_path / "x.safetensors"
    predicted = predicted_file_bytes(state, record=record)
    report = save(state, path, record=record)
    assert os.path.getsize(path) == report.bytes == predicted
    loaded, back = load_state(path)
    assert back == record
    assert list(loaded) == list(state)
    assert all(same_bits(loaded[name], state[name]) for name in state)
    with safetensors.safe_open(path, "pt") as reader:  # any reader opens it
        assert all(reader.get_tensor(key) is not None for key in reader.keys())  # noqa: SIM118
        assert reader.metadata()["format"] == "pt"


@shared_folder
@given(st.integers(0, 5000), st.floats(0, 1), st.integers(0, 50), st.sampled_from([torch.float32, torch.bfloat16]))
def test_prediction_from_keep_masks_is_exact_even_on_meta_tensors(
    tmp_path: Path, numel: int, density: float, seed: int, dtype: torch.dtype
) -> None:
    weight = torch.ones(numel, dtype=dtype)
    keep = random_tensor(torch.bool, (numel,), density, seed)
    path = tmp_path / "x.safetensors"
    predicted = predicted_file_bytes({"w": weight.to("meta"), "b": torch.ones(3)}, keep={"w": keep}, record={"a": 1})
    save({"w": torch.where(keep, weight, 0), "b": torch.ones(3)}, path, record={"a": 1})
    assert os.path.getsize(path) == predicted


def test_a_third_party_can_read_mask_and_values_with_numpy_alone(tmp_path: Path) -> None:
    tensor = random_tensor(torch.float32, (100, 50), 0.6, 0)
    save({"w": tensor}, tmp_path / "x.safetensors")
    with safetensors.safe_open(tmp_path / "x.safetensors", "np") as reader:
        about = json.loads(reader.metadata()["thresher"])["tensors"]["w"]
        mask, values = reader.get_tensor("w#mask"), reader.get_tensor("w#values")
    assert about == {"encoding": "bitmask", "shape": [100, 50], "dtype": "F32"}
    import numpy as np

    dense = np.zeros(5000, dtype=np.float32)
    dense[np.unpackbits(mask, bitorder="little")[:5000].astype(bool)] = values
    assert same_bits(torch.from_numpy(dense).view(100, 50), tensor)


class Tied(nn.Module):
    def __init__(self, tie: bool = True, classes: int = 50) -> None:
        super().__init__()
        self.embed = nn.Embedding(classes, 40)
        self.norm = nn.BatchNorm1d(40)
        self.head = nn.Linear(40, classes, bias=False)
        if tie:
            self.head.weight = self.embed.weight


def pruned_tied() -> Tied:
    model = Tied()
    with torch.no_grad():
        model.embed.weight[torch.rand(50, 40, generator=torch.Generator().manual_seed(0)) < 0.9] = 0
    return model


def test_a_model_comes_back_with_ties_stored_once(tmp_path: Path) -> None:
    model = pruned_tied()
    report = save(model, tmp_path / "m.safetensors", record={"epoch": 3})
    assert report.ties == {"head.weight": "embed.weight"}
    assert report.encodings["embed.weight"] == "gaps"
    assert report.dense_bytes == 50 * 40 * 4 + 4 * 40 * 4 + 8
    assert report.bytes == predicted_file_bytes(model, record={"epoch": 3}) < report.dense_bytes
    fresh = load(tmp_path / "m.safetensors", Tied())
    assert type(fresh) is Tied
    assert fresh.head.weight is fresh.embed.weight
    assert all(same_bits(value, fresh.state_dict()[name]) for name, value in model.state_dict().items())
    state, _ = load_state(tmp_path / "m.safetensors")
    assert state["head.weight"] is state["embed.weight"]
    assert list(state) == list(model.state_dict())
    load(tmp_path / "m.safetensors", Tied(tie=False))


def test_masks_of_tied_tensors_may_be_given_under_either_name_but_not_differ(tmp_path: Path) -> None:
    model = pruned_tied()
    keep = model.embed.weight != 0
    expected = save(model, tmp_path / "m.safetensors").bytes
    dense = Tied()
    assert predicted_file_bytes(dense, keep={"embed.weight": keep}) == expected
    assert predicted_file_bytes(dense, keep={"head.weight": keep}) == expected
    with pytest.raises(InputError, match="two masks"):
        predicted_file_bytes(dense, keep={"head.weight": keep, "embed.weight": ~keep})


@pytest.mark.parametrize("keep", [{"nope": torch.ones(1).bool()}, {"w": torch.ones(3)}, {"w": torch.ones(2).bool()}])
def test_masks_that_do_not_fit_are_refused(keep: dict[str, Tensor]) -> None:
    with pytest.raises(InputError):
        predicted_file_bytes({"w": torch.ones(3)}, keep=keep)


def test_loading_into_a_model_that_ties_what_the_file_has_apart_is_refused(tmp_path: Path) -> None:
    save(Tied(tie=False), tmp_path / "m.safetensors")
    with pytest.raises(InputError, match="different values"):
        load(tmp_path / "m.safetensors", Tied())


def test_wrong_names_shapes_and_dtypes_are_named_and_nothing_is_copied(tmp_path: Path) -> None:
    path = tmp_path / "m.safetensors"
    save(pruned_tied(), path)
    with pytest.raises(InputError, match=r"embed.weight \[50, 40\] for \[60, 40\]"):
        load(path, Tied(classes=60))
    with pytest.raises(InputError, match=r"embed.weight torch.float32 for torch.float16"):
        load(path, Tied().half())
    other = nn.Linear(2, 2)
    before = other.weight.clone()
    with pytest.raises(InputError, match=r"lacks weight, bias and has embed.weight, .* more besides"):
        load(path, other)
    assert torch.equal(other.weight, before)
    with pytest.raises(InputError, match="to_empty"):
        load(path, Tied().to("meta"))


def test_a_model_with_parametrizations_must_be_finished_first(tmp_path: Path) -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    parametrize.register_parametrization(model[0], "weight", nn.Identity())
    for act in (
        lambda: save(model, tmp_path / "m"),
        lambda: predicted_file_bytes(model),
        lambda: load(tmp_path / "m", model),
    ):
        with pytest.raises(InputError, match=r"finish\(\)"):
            act()


@pytest.mark.parametrize(
    "state",
    [
        {"a": 1},
        {1: torch.ones(1)},
        {"a#mask": torch.ones(1)},
        {"__metadata__": torch.ones(1)},
        {"\ud800": torch.ones(1)},
        {"a": torch.eye(2).to_sparse()},
        {"a": torch.ones(1, dtype=torch.complex128)},
        {"a": torch.ones(1, device="meta")},
        {"a": nn.UninitializedParameter()},
        [torch.ones(1)],
        nn.LazyLinear(3),
    ],
)
def test_what_cannot_be_stored_is_refused_before_a_file_appears(tmp_path: Path, state: Any) -> None:
    with pytest.raises(InputError):
        save(state, tmp_path / "x")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("record", [{"a": float("nan")}, {"a": torch.ones(1)}, [1], {"a": {1, 2}}, "text"])
def test_records_that_json_cannot_hold_are_refused(tmp_path: Path, record: Any) -> None:
    with pytest.raises(InputError):
        save({}, tmp_path / "x", record=record)


def test_paths_that_cannot_be_written_or_read_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "no" / "folder", tmp_path / "nul\0"):
        with pytest.raises(InputError):
            save({"a": torch.ones(1)}, path)
        with pytest.raises(InputError):
            load_state(path)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failing", ["fsync", "replace"])
def test_a_failure_while_writing_leaves_the_old_file_and_no_litter(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str
) -> None:
    path = tmp_path / "x.safetensors"
    save({"a": torch.ones(3)}, path)

    def fail(*_: object) -> None:
        raise OSError("no space left")

    monkeypatch.setattr(file_module.os, failing, fail)
    with pytest.raises(OSError, match="no space left"):
        save({"a": torch.zeros(3)}, path)
    monkeypatch.undo()
    assert torch.equal(load_state(path)[0]["a"], torch.ones(3))
    assert [p.name for p in tmp_path.iterdir()] == ["x.safetensors"]


def test_a_process_killed_in_the_middle_of_a_write_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save({"a": torch.ones(3)}, path)
    program = (
        "import os, sys, torch, thresher.deploy.storage.file as f\n"
        "raw = f._raw\n"
        "class Dying:\n"
        "    def __init__(self, t): self.view, self.count = raw(t), 0\n"
        "def chunks(target, parts, write=f._write):\n"
        "    def dying():\n"
        "        yield parts[0]\n"
        "        yield bytes(parts[1])[:100_000]\n"
        "        os._exit(9)\n"
        "    write(target, dying())\n"
        "f._write = chunks\n"
        "f.save({'a': torch.ones(100_000)}, sys.argv[1])\n"
    )
    source = str(Path(file_module.__file__).parents[3])
    environment = os.environ | {"PYTHONPATH": source, "OMP_NUM_THREADS": "1"}
    done = subprocess.run([sys.executable, "-c", program, str(path)], env=environment, check=False)
    assert done.returncode == 9
    assert torch.equal(load_state(path)[0]["a"], torch.ones(3))


@pytest.mark.skipif(sys.platform == "win32", reason="POSIX modes and links")
def test_the_umask_decides_who_may_read_and_a_link_is_written_through(tmp_path: Path) -> None:
    real, link = tmp_path / "real.safetensors", tmp_path / "link.safetensors"
    save({"a": torch.zeros(1)}, real)
    link.symlink_to(real)
    (tmp_path / "plain").touch()
    save({"a": torch.ones(1)}, link)
    assert link.is_symlink()
    assert torch.equal(load_state(real)[0]["a"], torch.ones(1))
    assert real.stat().st_mode == (tmp_path / "plain").stat().st_mode
