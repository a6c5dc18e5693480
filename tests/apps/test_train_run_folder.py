"""Claims about run folders: refused when in use, readable when half written."""

import pytest

from thresher.apps.runs import Run, read_metrics
from thresher.errors import InputError


def test_a_folder_in_use_is_refused_and_its_files_are_named(tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(InputError, match=r"notes.txt[\s\S]*--out"):
        Run.create(tmp_path)
    with pytest.raises(InputError, match=r"without config.json"):
        Run.create(tmp_path, resume=True)


def test_a_new_or_empty_folder_is_taken_with_and_without_resume(tmp_path):
    for path in (tmp_path, tmp_path / "a" / "b"):
        assert Run.create(path, resume=True).path == Run.create(path).path == path
        assert path.is_dir()


def test_a_folder_that_cannot_be_made_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="can be made"):
        Run.create(tmp_path / "file" / "run")


def test_opening_needs_a_config(tmp_path):
    with pytest.raises(InputError, match="no folder"):
        Run.open(tmp_path / "nowhere")
    with pytest.raises(InputError, match=r"without config.json"):
        Run.open(tmp_path)


def test_a_half_written_folder_opens_and_says_what_is_missing(tmp_path):
    run = Run.create(tmp_path)
    run.write("config.json", {"method": "lats"})
    (tmp_path / "metrics.jsonl").write_text('{"kind": "step", "step": 1}\n{"kind": "st')
    opened = Run.open(tmp_path)
    assert opened.metrics() == [{"kind": "step", "step": 1}]
    assert opened.missing() == [
        "trace.json",
        "report.json",
        "histograms.json",
        "result.json",
        "model.safetensors",
        "checkpoint.pt",
    ]
    assert opened.result is opened.report is opened.trace is None
    assert not opened.finished


def test_plain_training_misses_no_report(tmp_path):
    run = Run.create(tmp_path)
    run.write("config.json", {"method": None})
    assert "report.json" not in run.missing()


@pytest.mark.parametrize("text", ["{", "[]", '{"version": 7}'])
def test_a_damaged_file_is_named(tmp_path, text):
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(InputError, match=r"config\.json"):
        _ = Run.open(tmp_path).config


def test_metrics_are_cut_back_to_the_checkpoint_and_then_go_on(tmp_path):
    run = Run.create(tmp_path)
    with run.log() as log:
        for step in (1, 2, 3):
            log.add({"step": step})
            assert run.metrics()[-1] == {"step": step}  # on the disk at once
    with run.log(until=2) as log:
        log.add({"step": 3, "again": True})
    assert read_metrics(tmp_path / "metrics.jsonl") == [{"step": 1}, {"step": 2}, {"step": 3, "again": True}]
    with run.log():
        assert run.metrics() == []
