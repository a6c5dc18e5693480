"""Claims about interruptions: a run that was killed anywhere ends bit for bit like one that never was."""

import json
import subprocess
import sys
import zipfile

import pytest
import torch

from thresher import load_state
from thresher.apps.runs import Run
from thresher.apps.runs.checkpoint import load_checkpoint, save_checkpoint
from thresher.apps.train import Progress, TrainConfig, fit
from thresher.errors import InputError, StateError

ASKED = {
    "model": "small-cnn",
    "data": "digits",
    "limit": 256,
    "batch_size": 32,
    "epochs": 3,
    "threads": 1,
    "checkpoint_every": 3,
    "method": "lats",
    "budget": "sparsity=80%",
}
CHILD = """
import json, sys
from thresher.apps.runs import Run
from thresher.apps.train import Progress, TrainConfig, fit
class Tell(Progress):
    def stepped(self, step):
        print(step, flush=True)
fit(TrainConfig(**json.loads(sys.argv[1])), Run.create(sys.argv[2]), Tell())
"""


class Stop(Progress):
    def __init__(self, at):
        self.at = at

    def stepped(self, step):
        if step == self.at:
            raise KeyboardInterrupt


def same(one, other, path=""):
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), path
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), path
        for key in one:
            if key != "seconds":
                same(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, (list, tuple)):
        assert len(one) == len(other), path
        for number, pair in enumerate(zip(one, other, strict=True)):
            same(*pair, f"{path}/{number}")
    else:
        assert one == other, path


def same_end(one, other):
    same(load_checkpoint(one.path)[0], load_checkpoint(other.path)[0])
    same(load_state(one.model_path), load_state(other.model_path))
    assert one.trace == other.trace
    assert one.report == other.report
    for mine, theirs in zip(one.metrics(), other.metrics(), strict=True):
        assert {**mine, "seconds": 0} == {**theirs, "seconds": 0}


def whole(tmp_path, **changes):
    run = Run.create(tmp_path / "whole")
    fit(TrainConfig(**{**ASKED, **changes}), run)
    return run


def test_a_process_killed_by_signal_9_resumes_bit_for_bit(tmp_path):
    command = [sys.executable, "-c", CHILD, json.dumps(ASKED), str(tmp_path / "killed")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:
        for line in child.stdout:
            if int(line) >= 13:
                child.kill()
                break
    run = Run.open(tmp_path / "killed")
    assert not run.finished
    assert "result.json" in run.missing()
    assert run.metrics()
    fit(TrainConfig(**ASKED), run)
    same_end(run, whole(tmp_path))


@pytest.mark.parametrize(
    ("method", "stop", "changes"),
    [
        ("lats-early", 1, {}),
        ("lats-early", 12, {"optimizer": "adamw", "decay_norm_bias": False, "schedule": "step"}),
        ("lats-init", 2, {"warmup_epochs": 1.0, "start": 0.1, "schedule": "linear"}),
        ("gmp", 8, {"checkpoint_every": None, "nesterov": True}),
        ("magnitude", 23, {"groups": "row", "budget": "sparsity=50%", "precision": "bf16"}),
    ],
)
def test_a_run_stopped_at_any_step_resumes_bit_for_bit(tmp_path, method, stop, changes):
    asked = TrainConfig(**{**ASKED, **changes, "method": method})
    run = Run.create(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        fit(asked, run, Stop(stop))
    fit(asked, Run.create(tmp_path / "stopped", resume=True))
    same_end(run, whole(tmp_path, **changes, method=method))


def test_a_damaged_checkpoint_gives_way_to_the_one_before_it_and_the_end_is_the_same(tmp_path):
    run = Run.create(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        fit(TrainConfig(**ASKED), run, Stop(14))
    newest = run.path / "checkpoint.pt"
    held = bytearray(newest.read_bytes())
    with zipfile.ZipFile(newest) as archive:
        tensor = archive.read(max(archive.infolist(), key=lambda member: member.file_size))
    held[held.index(tensor) + len(tensor) // 2] ^= 1  # one bit of one weight
    newest.write_bytes(held)
    told = []

    class Listen(Progress):
        def said(self, message):
            told.append(message)

    fit(TrainConfig(**ASKED), run, Listen())
    assert "checkpoint.pt is damaged" in told[0]
    assert "checkpoint.previous.pt, step 9" in told[1]
    same_end(run, whole(tmp_path))


def test_two_damaged_checkpoints_are_refused_by_name(tmp_path):
    for name in ("checkpoint.pt", "checkpoint.previous.pt"):
        (tmp_path / name).write_bytes(b"not a checkpoint")
    with pytest.raises(InputError, match=r"checkpoint.pt is damaged.*checkpoint.previous.pt is damaged"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_that_would_run_code_is_refused(tmp_path):
    torch.save({"step": 1, "model": torch.nn.Linear(1, 1)}, tmp_path / "checkpoint.pt")
    with pytest.raises(InputError, match="damaged"):
        load_checkpoint(tmp_path)


def test_the_last_two_checkpoints_are_kept(tmp_path):
    for step in range(4):
        save_checkpoint(tmp_path, {"step": step})
    assert sorted(path.name for path in tmp_path.iterdir()) == ["checkpoint.previous.pt", "checkpoint.pt"]
    assert load_checkpoint(tmp_path)[0] == {"step": 3}
    (tmp_path / "checkpoint.pt").unlink()  # as when the kill comes between the two renames
    assert load_checkpoint(tmp_path) == ({"step": 2}, [])


def test_no_checkpoint_is_no_error(tmp_path):
    assert load_checkpoint(tmp_path) == (None, [])


def test_a_run_is_not_resumed_with_other_settings(tmp_path):
    run = Run.create(tmp_path / "stopped")
    with pytest.raises(KeyboardInterrupt):
        fit(TrainConfig(**ASKED), run, Stop(2))
    with pytest.raises(StateError, match=r"lr=0.1[\s\S]*lr=0.05"):
        fit(TrainConfig(**{**ASKED, "lr": 0.1}), run)


def test_a_finished_run_is_not_repeated(tmp_path):
    run = Run.create(tmp_path / "whole")
    asked = TrainConfig(**{**ASKED, "epochs": 1})
    first = fit(asked, run)
    before = run.model_path.stat().st_mtime_ns
    assert fit(asked, run) == first
    assert run.model_path.stat().st_mtime_ns == before
