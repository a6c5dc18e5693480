"""Claims about the folder: killed writes, foreign and damaged files, and several trails in one view."""

import json
import os
from pathlib import Path

import pytest
import torch
from torch import nn

import thresher
from thresher import Trail
from thresher.errors import InputError
from thresher.session import Pruner
from thresher.trail import view
from thresher.trail.table import table

HOSTILE = "../../etc/x\x1b[2J<script>ü 名"


def pruned(sparsity: float, step: int, model: nn.Module | None = None) -> Pruner:
    torch.manual_seed(step)
    pruner = thresher.prune(model or nn.Linear(40, 40), None, "magnitude", {"sparsity": sparsity})
    pruner.step = step
    return pruner


@pytest.fixture
def trail(tmp_path: Path) -> Trail:
    made = Trail(tmp_path / "trail", dense_accuracy=90.0)
    for step, sparsity, accuracy in ((10, 0.5, 89.9), (20, 0.8, 89.5), (30, 0.95, 80.0)):
        made.add(pruned(sparsity, step), accuracy=accuracy)
    return made


def files(trail: Trail) -> list[Path]:
    return sorted(trail.path.iterdir())


def test_a_trail_is_one_file_for_each_point(trail: Trail) -> None:
    assert [path.name for path in files(trail)] == [f"point-000000{step}.safetensors" for step in (10, 20, 30)]
    assert [point.step for point in trail.points] == [10, 20, 30]


def test_any_reader_of_the_storage_format_opens_a_point(trail: Trail) -> None:
    state, record = thresher.load_state(files(trail)[2])
    assert record["point"]["accuracy"] == 80.0
    assert int((state["weight"] == 0).sum()) == trail.points[2].zeros == 1520


def test_a_write_that_was_killed_leaves_the_points_as_they_were(trail: Trail, monkeypatch: pytest.MonkeyPatch) -> None:
    before = {path.name: path.read_bytes() for path in files(trail)}

    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", killed)
        with pytest.raises(KeyboardInterrupt):
            trail.add(pruned(0.5, 11), accuracy=90.0)  # better than the point that its stretch holds
    assert {path.name: path.read_bytes() for path in files(trail)} == before
    # What signal 9 leaves behind: half a temporary file.
    (trail.path / ".point-00000040.safetensors.0123456789abcdef.tmp").write_bytes(b"\x10\0\0")
    assert [point.step for point in Trail(trail.path).points] == [10, 20, 30]
    assert Trail(trail.path).problems == []
    assert trail.add(pruned(0.9, 40), accuracy=85.0) is not None
    assert [point.step for point in trail.points] == [10, 20, 30, 40]


def test_killed_between_writing_and_clearing_a_stretch_has_two_points_and_is_cleared_later(
    trail: Trail, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", lambda *_, **__: (_ for _ in ()).throw(OSError("killed")))
        trail.add(pruned(0.5, 11), accuracy=90.0)
    assert [point.step for point in trail.points] == [10, 11, 20, 30]
    trail.add(pruned(0.5, 11), accuracy=90.0)
    assert [point.step for point in trail.points] == [11, 20, 30]


@pytest.mark.parametrize("kept", [0, 7, 8, 300, -1])
def test_a_truncated_point_is_reported_and_the_others_are_there(trail: Trail, kept: int) -> None:
    path = files(trail)[1]
    path.write_bytes(path.read_bytes()[:kept])
    again = Trail(trail.path)
    assert [point.step for point in again.points] == [10, 30] == [point.step for point in trail.points]
    (problem,) = again.problems
    assert problem.startswith("point-00000020.safetensors")
    assert again.dense_accuracy == 90.0
    assert again.pick(accuracy_drop=1.0).step == 10
    trail.add(pruned(0.8, 20), accuracy=89.5)
    assert [point.step for point in again.points] == [10, 20, 30]
    assert again.problems == []


def test_a_flipped_bit_is_noticed_when_the_point_is_loaded(trail: Trail) -> None:
    path, point = files(trail)[1], trail.points[1]
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(bytes(content))
    assert trail.points[1].step == 20
    with pytest.raises(InputError, match="sha256"):
        trail.state_dict(point)


def test_foreign_files_are_no_points(trail: Trail) -> None:
    for name in ("notes.txt", "point-1.safetensors", "point-00000001.safetensors.bak", "point-١٢٣٤٥٦٧٨.safetensors"):
        (trail.path / name).write_bytes(b"hello")
    (trail.path / "point-00000077.safetensors").mkdir()
    assert len(trail.points) == 3
    assert trail.problems == []


def test_files_that_only_look_like_points_are_reported(trail: Trail) -> None:
    good = files(trail)[0].read_bytes()
    (trail.path / "point-00000050.safetensors").write_bytes(good)  # a copy under another step
    thresher.save({"w": torch.ones(3)}, trail.path / "point-00000060.safetensors")
    (trail.path / "point-00000070.safetensors").write_bytes(b"x" * 100)
    record = thresher.load_state(files(trail)[0])[1]
    for step, change in ((80, {"version": 2}), (90, {"trail": {"points": 0}}), (91, {"dtypes": {"weight": "int8"}})):
        changed = {**record, **change, "point": {**record["point"], "step": step}}
        thresher.save({"w": torch.ones(3)}, trail.path / f"point-000000{step}.safetensors", record=changed)
    assert [point.step for point in trail.points] == [10, 20, 30]
    assert [problem[:14] for problem in trail.problems] == [f"point-000000{step}" for step in (50, 60, 70, 80, 90, 91)]


def test_a_point_that_is_gone_is_refused(trail: Trail) -> None:
    point = trail.points[0]
    files(trail)[0].unlink()
    with pytest.raises(InputError, match="one of 20, 30"):
        trail.state_dict(point)


def test_a_path_that_is_no_folder_is_refused_and_a_new_one_is_not_made_by_looking(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(InputError, match="no folder"):
        Trail(tmp_path / "file")
    empty = Trail(tmp_path / "new" / "trail")
    assert empty.points == []
    assert empty.pareto() == []
    with pytest.raises(InputError, match="without points"):
        empty.pick(accuracy_drop=1)
    assert not (tmp_path / "new").exists()


def test_hostile_names_of_tensors_methods_and_folders_do_no_harm(tmp_path: Path) -> None:
    class Odd(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.add_module(HOSTILE.replace(".", "_"), nn.Linear(40, 40))

    trail = Trail(tmp_path / HOSTILE.replace("/", "_"), dense_accuracy=90.0)
    point = trail.add(pruned(0.9, 3, Odd()), accuracy=89.0, **{HOSTILE: 1.0})
    assert point is not None
    (again,) = Trail(trail.path).points
    assert again.metrics == {HOSTILE: 1.0}
    assert int((next(iter(trail.state_dict(again).values())) == 0).sum()) == 1440
    other = Trail(tmp_path / "other")
    other.add(pruned(0.5, 1))
    assert "\x1b" not in table(view([trail, other]))
    assert [path.name for path in sorted(tmp_path.iterdir())] == sorted((trail.path.name, "other"))


def test_several_trails_in_one_view(trail: Trail, tmp_path: Path) -> None:
    other = Trail(tmp_path / "other" / "trail", dense_accuracy=90.0)
    other.add(pruned(0.8, 20), accuracy=89.8)
    records = view([trail, other])
    assert [(record["trail"], record["step"]) for record in records] == [
        (trail.name, 10),
        (trail.name, 20),
        (trail.name, 30),
        ("other", 20),
    ]
    assert trail.name == tmp_path.name  # the folder is called "trail", so the run's name counts
    assert [record["front"] for record in records] == [True, False, True, True]
    assert json.loads(json.dumps(records)) == records
    shown = table(records).splitlines()
    assert shown[0].startswith("trail")
    assert [line.endswith("*") for line in shown[2:]] == [True, False, True, True]


def test_trails_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    trails = [Trail(tmp_path / folder / "run" / "trail") for folder in "ab"]
    for each in trails:
        each.add(pruned(0.5, 1))
    assert [record["trail"] for record in view(trails)] == [str(each.path) for each in trails]
    assert [record["front"] for record in view(trails)] == [False, False]
    assert view([]) == []
