"""One worker: claims a run, fits it, notes what came of it, until nothing is left for anybody."""

from __future__ import annotations

import multiprocessing
import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import Any

from thresher.apps.runs import Run
from thresher.apps.sweep.claims import LEASE_SECONDS, still_mine
from thresher.apps.sweep.sweep import Sweep
from thresher.apps.sweep.table import write_table
from thresher.apps.sweep.task import Task
from thresher.apps.train import Progress, fit
from thresher.errors import NumericsError, ThresherError

POLL_SECONDS = 2.0
STOP = threading.Event()
"""Set in a worker process that shall stop: looked at between two steps, where nothing is half done."""
Watch = Callable[[str], AbstractContextManager[Progress]]


# Not Exceptions: the run has not failed, and nothing on the way shall take it for that.
class LostError(BaseException):
    """The lease went to another worker, while this process was suspended."""


class StoppedError(BaseException):
    """This worker shall stop, because its parent said so or is gone."""


def unwatched(title: str) -> AbstractContextManager[Progress]:
    """A watcher that ignores everything."""
    return nullcontext(Progress())


def work(
    sweep: Sweep,
    watch: Watch = unwatched,
    told: Callable[[], None] = lambda: None,
    *,
    device: str | None = None,
    command: str | None = None,
) -> None:
    """Do runs until all have ended; then, and after each run, bring SWEEP/sweep.json up to date.

    Args:
        watch: gives a watcher for the run of that title.
        told: called after each run, and now and then while this worker waits for others.
        device: in place of the configured one.

    A run that fails is noted with its error; the next one follows. An interruption lets go of the run, which goes on
    from its last checkpoint with whoever takes it up.
    """
    while not sweep.finished:
        heed()
        task = sweep.claim()
        if task is None:
            STOP.wait(POLL_SECONDS)  # others are at work on the last runs; theirs are taken up if they die
        else:
            _do(sweep, task, watch, device, command)
            write_table(sweep)
        told()
    write_table(sweep)


def heed() -> None:
    """Errors: StoppedError in a worker process that shall stop."""
    parent = multiprocessing.parent_process()
    if STOP.is_set() or (parent is not None and not parent.is_alive()):
        raise StoppedError


def _do(sweep: Sweep, task: Task, watch: Watch, device: str | None, command: str | None) -> None:
    config = task.config if device is None else task.config.model_copy(update={"device": device})
    try:
        for leftover in task.folder.glob(".*.tmp"):  # of a worker that was killed while it wrote
            leftover.unlink(missing_ok=True)
        with watch(task.title) as progress:
            result = fit(config, Run.create(task.folder, resume=True), Guarded(progress, task.lease), command=command)
    except LostError:
        task.lease.release()
    except NumericsError as error:
        # To a search, a learning rate that diverges is an answer, and the worst one.
        sweep.finish(task, 0.0 if task.tuning else None, _told(error))
    except Exception as error:  # whatever it is, it must not take the other runs with it
        sweep.finish(task, None, _told(error))
    except BaseException:
        task.lease.release()
        raise
    else:
        if still_mine(task.lease):
            sweep.finish(task, result.accuracy_after)
        else:
            task.lease.release()


def _told(error: Exception) -> str:
    if isinstance(error, ThresherError):
        return f"given: {error.given}; expected: {error.expected}; do: {error.do}"
    return f"{type(error).__name__}: {error}"


class Guarded(Progress):
    """Hands everything on to `inner`, and stops a run that this worker should no longer do."""

    def __init__(self, inner: Progress, lease: Any) -> None:
        self._inner, self._lease = inner, lease
        self._seen = time.time()

    def started(self, *, step: int, steps: int, epochs: int) -> None:
        """Hand on."""
        self._inner.started(step=step, steps=steps, epochs=epochs)

    def stepped(self, step: int) -> None:
        """Hand on; look at the lease after a long pause, and when the heartbeat met another owner."""
        now = time.time()
        if (now - self._seen > LEASE_SECONDS / 2 or self._lease.compromise is not None) and not still_mine(self._lease):
            raise LostError
        self._seen = now
        heed()
        self._inner.stepped(step)

    def logged(self, record: dict[str, Any]) -> None:
        """Hand on."""
        self._inner.logged(record)

    def said(self, message: str) -> None:
        """Hand on."""
        self._inner.said(message)

    def stage(self, name: str) -> None:
        """Hand on."""
        self._inner.stage(name)
