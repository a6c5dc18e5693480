"""Claims about who does which run: nobody twice, the dead replaced, the book readable after any kill."""

import os
import signal
import subprocess
import sys
import time
from collections import Counter

import pytest

from thresher.apps.sweep import Sweep, claims, read_sweep
from thresher.apps.sweep.book import JOURNAL
from thresher.apps.sweep.claims import still_mine
from thresher.apps.sweep.sweep import DEATHS

ASKED = {"methods": "gmp,magnitude", "budgets": "sparsity=90%", "seeds": "0,1,2", "model": "mlp"}
CHILD = """
import json, sys, time
from pathlib import Path
from thresher.apps.sweep import Sweep, claims, read_sweep
claims.LEASE_SECONDS = float(sys.argv[3])
sweep = Sweep(Path(sys.argv[1]), read_sweep(json.loads(sys.argv[2])))
"""
HOLD = CHILD + "print(sweep.claim().entry.run, flush=True); time.sleep(100)"
FINISH = (
    CHILD
    + """
while not sweep.finished:
    task = sweep.claim()
    if task is not None:
        print(task.entry.run, flush=True)
        sweep.finish(task, 50.0)
"""
)


@pytest.fixture
def folder(tmp_path):
    return tmp_path / "sweep"


def open_(folder, **changes):
    return Sweep(folder, read_sweep({**ASKED, **changes}))


def child(code, folder, *, lease=120.0):
    import json

    return subprocess.Popen(
        [sys.executable, "-c", code, str(folder), json.dumps(ASKED), str(lease)], stdout=subprocess.PIPE, text=True
    )


def test_two_workers_never_have_the_same_run_and_none_is_left_out(folder):
    one, other = open_(folder), open_(folder)
    tasks = [worker.claim() for _ in range(3) for worker in (one, other)]
    assert [task.entry.run for task in tasks] == [run.name for run in one.runs]
    assert one.claim() is None
    assert other.claim() is None
    assert not one.finished
    for task in tasks:
        other.finish(task, 50.0) if task in tasks[1::2] else one.finish(task, 50.0)
    assert one.finished
    assert other.finished
    assert one.claim() is None
    assert os.listdir(folder / "claims") == []


def test_processes_at_the_same_time_share_the_runs(folder):
    open_(folder)
    workers = [child(FINISH, folder) for _ in range(3)]
    done = Counter(name for worker in workers for name in worker.communicate()[0].split())
    assert [worker.returncode for worker in workers] == [0, 0, 0]
    assert done == Counter(run.name for run in open_(folder).runs)


def test_the_run_of_a_killed_worker_is_taken_up_at_once(folder):
    sweep = open_(folder)
    with child(HOLD, folder) as worker:
        name = worker.stdout.readline().strip()
        assert sweep.claim().entry.run != name  # alive: its run is its own
        worker.kill()
    task = sweep.claim()
    assert (task.entry.run, task.entry.number) == (name, 0)


def test_the_run_of_a_silent_worker_is_taken_up_and_it_notices(folder, monkeypatch):
    # As of a machine that lost its network: alive, and unheard of.
    monkeypatch.setattr(claims, "LEASE_SECONDS", 1.0)
    sweep = open_(folder)
    with child(HOLD, folder, lease=1.0) as worker:
        name = worker.stdout.readline().strip()
        os.kill(worker.pid, signal.SIGSTOP)
        first = sweep.claim()
        assert first.entry.run != name
        sweep.finish(first, 50.0)
        while (task := sweep.claim()).entry.run != name:
            sweep.finish(task, 50.0)
            time.sleep(0.3)
        assert still_mine(task.lease)
        worker.kill()


def test_a_lease_that_another_worker_took_over_is_no_longer_mine(folder):
    one, other = open_(folder), open_(folder)
    task = one.claim()
    assert still_mine(task.lease)
    task.lease.force_break()  # what the silence of this process would lead to
    assert not still_mine(task.lease)
    again = other.claim()
    assert again.entry.run == task.entry.run
    assert not still_mine(task.lease)
    task.lease.release()
    assert still_mine(again.lease)


def test_a_run_that_was_let_go_is_taken_up(folder):
    sweep = open_(folder)
    task = sweep.claim()
    task.lease.release()
    assert sweep.claim().entry == task.entry


def test_a_run_that_kills_its_workers_is_given_up_unless_it_gets_further(folder):
    from thresher.apps.sweep.task import table_task

    sweep = open_(folder)
    task = sweep.claim()
    task.folder.mkdir(parents=True)
    checkpoint = task.folder / "checkpoint.pt"

    def dies():
        return sweep._hopeful(table_task(sweep.config, folder, sweep.runs, task.entry, None))

    assert [dies() for _ in range(DEATHS - 1)] == [True] * (DEATHS - 1)
    checkpoint.write_text("a step further")
    assert [dies() for _ in range(DEATHS)] == [True] * (DEATHS - 1) + [False]
    (task.folder / "result.json").write_text("{}")
    assert dies()


def test_failed_runs_are_kept_with_their_error_and_tried_again_only_when_asked(folder):
    sweep = open_(folder, seeds="0")
    sweep.finish(sweep.claim(), None, "out of luck")
    sweep.finish(sweep.claim(), 50.0)
    assert sweep.finished
    again = open_(folder, seeds="0")
    assert again.claim() is None
    assert [(entry.state, entry.error) for entry in again.entries().values()] == [
        ("failed", "out of luck"),
        ("done", None),
    ]
    assert again.retry_failed() == 1
    assert not again.finished
    task = again.claim()
    assert (task.entry.run, task.entry.settings) == ("gmp_sparsity-90_seed-0", {"lr": 0.05})
    again.finish(task, 60.0)
    assert {entry.value for entry in sweep.entries().values()} == {50.0, 60.0}
    assert sweep.retry_failed() == 0


def test_telling_twice_changes_nothing(folder):
    sweep = open_(folder)
    task = sweep.claim()
    sweep.finish(task, 50.0)
    sweep.finish(task, 60.0)
    assert sweep.entries()[task.entry.run].value == 50.0


def test_tuning_comes_first_is_equal_for_all_and_decides_the_settings(folder):
    sweep = open_(folder, tune=6, search="gmp:end=0.3..0.8")
    tuned = Counter()
    for number in range(12):
        task = sweep.claim()
        assert task.tuning
        assert task.config.held_out == 0.1
        tuned[task.config.method.partition(":")[0]] += 1
        sweep.finish(task, 90.0 if number in (2, 4) else 10.0)
    assert tuned == {"gmp": 6, "magnitude": 6}
    best = {group.method: sweep.best(group) for group in sweep.groups}
    assert best["gmp"].run == "002"  # of two as good the earlier
    for _ in range(6):
        task = sweep.claim()
        assert not task.tuning
        assert task.config.held_out == 0.0
        settings = best[task.config.method.partition(":")[0]].settings
        assert (task.config.method, task.config.lr) == (settings["method"], settings["lr"])
        sweep.finish(task, 50.0)
    assert sweep.finished


def test_later_tuning_runs_follow_the_better_ones(folder):
    sweep = open_(folder, methods="gmp", tune=24)
    rates = []
    for _ in range(24):
        task = sweep.claim()
        rates.append(task.config.lr)
        sweep.finish(task, 100 - 100 * abs(task.config.lr - 0.02))  # best near 0.02
    assert len(set(rates)) == 24
    early, late = rates[:12], rates[12:]
    assert sum(abs(rate - 0.02) for rate in late) < 0.5 * sum(abs(rate - 0.02) for rate in early)


def test_table_runs_wait_for_tuning_runs_of_other_workers(folder):
    one, other = open_(folder, methods="gmp", tune=2), open_(folder, methods="gmp", tune=2)
    first, second = one.claim(), other.claim()
    one.finish(first, 50.0)
    assert one.claim() is None
    assert not one.finished
    other.finish(second, 60.0)
    assert one.claim().config.lr == second.config.lr


def test_runs_whose_tuning_failed_altogether_are_not_begun(folder):
    sweep = open_(folder, methods="gmp", tune=2)
    for _ in range(2):
        sweep.finish(sweep.claim(), None, "no such file")
    assert sweep.claim() is None
    assert all(sweep.blocked(run) for run in sweep.runs)
    assert sweep.finished
    assert sweep.retry_failed() == 2
    assert not sweep.finished
    sweep.finish(sweep.claim(), 10.0)
    sweep.finish(sweep.claim(), None, "again")
    assert sweep.claim().entry.settings["method"] == "gmp"


def test_a_line_that_was_cut_short_is_taken_out_of_the_book(folder):
    sweep = open_(folder)
    sweep.finish(sweep.claim(), 50.0)
    with (folder / JOURNAL).open("a") as stream:
        stream.write('{"op_code":6,"work')
    again = open_(folder)
    task = again.claim()
    again.finish(task, 60.0)
    assert [entry.value for entry in open_(folder).entries().values()] == [50.0, 60.0]


def test_a_trial_that_was_asked_for_and_never_named_counts_for_nothing(folder):
    sweep = open_(folder, methods="gmp", tune=8)
    for _ in range(5):
        sweep.finish(sweep.claim(), 50.0)
    study = sweep._book.study(f"tuning/{sweep.groups[0].name}")
    study.ask()  # and the worker is killed
    names = []
    for _ in range(3):
        task = sweep.claim()
        names.append(task.entry.run)
        sweep.finish(task, 50.0)
    assert names == ["005", "006", "007"]
    assert not sweep.claim().tuning
