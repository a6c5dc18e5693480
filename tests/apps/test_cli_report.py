"""Claims about `thresher report`, `thresher watch` and picking a network by its step."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import typer
from command_line import call
from report_folders import HOSTILE, shrunk_run, trail_run

from thresher.apps.cli import main
from thresher.apps.cli.trail import parse_step
from thresher.apps.runs import Run


def test_report_says_where_the_page_is(tmp_path: Path) -> None:
    run, page = shrunk_run(tmp_path / "run"), tmp_path / "page.html"
    assert f"report page: {page}, 1 run, " in call("report", run, "--out", page).stdout
    assert page.read_text().count("<h1") == 1
    assert call("report", run, "--out", page, "--quiet").output == ""


def test_report_as_json_names_page_runs_and_figures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    run, page = shrunk_run(tmp_path / "run"), tmp_path / "page.html"
    out = tmp_path / "figures"
    shown = json.loads(call("report", run, "--out", page, "--figures", out, "--format", "pdf", "--json").stdout)
    assert shown["page"] == str(page)
    assert shown["runs"] == [str(run)]
    assert {Path(path).name for path in shown["figures"]} >= {"widths.pdf", "residuals.pdf", "times.pdf"}
    assert all(Path(path).read_bytes().startswith(b"%PDF") for path in shown["figures"])


def test_report_refuses_what_is_no_folder(tmp_path: Path) -> None:
    assert "a run folder" in call("report", tmp_path / "nowhere", code=2).output
    run, page = shrunk_run(tmp_path / "a"), tmp_path / "r.html"
    refused = call("report", run, "--out", page, "--figures", tmp_path, "--format", "gif", code=2)
    assert "one of svg, pdf, png" in refused.output


def test_one_network_is_picked_by_its_step(tmp_path: Path) -> None:
    run, out = trail_run(tmp_path / "run"), tmp_path / "picked.safetensors"
    shown = json.loads(call("trail", run, "--pick", "step=30", "--out", out, "--json").stdout)
    assert shown["picked"]["step"] == 30
    assert out.stat().st_size == shown["out"]["bytes"]
    assert "of 10, 20, 30, 40, 50, 60" in call("trail", run, "--pick", "step=31", code=2).output
    assert "which several trails have" in call("trail", run, run, "--pick", "step=30", code=2).output
    assert "one step alone" in call("trail", run, "--pick", "step=30,bytes=1KB", code=2).output
    assert parse_step(" step = 7 ") == 7


def test_watch_serves_until_it_is_stopped(tmp_path: Path) -> None:
    run = shrunk_run(tmp_path / "run")
    command = [sys.executable, "-c", "from thresher.apps.cli import main; main()", "watch", str(run), "--json"]
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    ) as process:
        try:
            assert process.stdout is not None
            url = json.loads(process.stdout.readline())["url"]
            with urllib.request.urlopen(url, timeout=30) as answer:
                assert b"Accuracy on the way" in answer.read()
        finally:
            process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130


def test_a_run_shows_itself_in_a_notebook_and_hostile_texts_stay_texts(tmp_path: Path) -> None:
    shown = Run(trail_run(tmp_path / "run", points=2))._repr_html_()
    assert "Asked for sparsity" in shown
    assert "<table" in shown
    bad = Run(trail_run(tmp_path / "<script>x", spoil=True, points=2))._repr_html_()
    assert "<script" not in bad
    assert not any(each in bad for each in HOSTILE if "<" in each)


def commands() -> list[tuple[str, Any]]:
    whole = typer.main.get_command(main)
    found: list[tuple[str, Any]] = []
    for name, command in whole.commands.items():  # type: ignore[attr-defined]
        inner = getattr(command, "commands", None)
        found += [(name, command)] if inner is None else [(f"{name} {sub}", each) for sub, each in inner.items()]
    return found


@pytest.mark.parametrize(("name", "command"), commands(), ids=[name for name, _ in commands()])
def test_every_command_has_a_quiet_and_a_json_mode(name: str, command: Any) -> None:
    flags = {flag for parameter in command.params for flag in parameter.opts}
    assert {"--quiet", "--json"} <= flags


@pytest.mark.parametrize("command", ["report", "watch", "trail", "sweep", "demo"])
def test_help_on_a_pipe_has_no_colour_codes(command: str) -> None:
    assert "\x1b" not in call(command, "--help").output
