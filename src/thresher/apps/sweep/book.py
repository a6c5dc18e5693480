"""What was begun, finished and lost, in Optuna's journal file: one trial for each run, readable at any time."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from thresher.errors import require

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.samplers import BaseSampler
    from optuna.study import Study
    from optuna.trial import FrozenTrial

JOURNAL = "optuna.journal"
LOCK_SECONDS = 30.0
State = Literal["waiting", "running", "done", "failed"]
_STATES: dict[str, State] = {"WAITING": "waiting", "RUNNING": "running", "COMPLETE": "done", "FAIL": "failed"}


@dataclass(frozen=True, kw_only=True)
class Entry:
    """A run as the book knows it. `number`: of its trial. `value`: accuracy in percent, when it is done."""

    run: str
    number: int
    state: State
    settings: Mapping[str, Any]
    value: float | None
    error: str | None


class Book:
    """Optuna studies in one journal file, `folder`/optuna.journal; whoever writes holds the sweep's mutex."""

    def __init__(self, folder: Path) -> None:
        self._optuna = require("optuna", extra="sweep", why="sweeping")
        journal = require("optuna.storages.journal", extra="sweep", why="sweeping")
        locks = require("filelock", extra="sweep", why="sweeping")
        self._optuna.logging.set_verbosity(self._optuna.logging.WARNING)
        path = folder / JOURNAL
        # In place of Optuna's own lock: it knows at once when the process that held it was killed.
        lock = locks.SoftFileLease(str(path) + ".lock", lease_duration=LOCK_SECONDS)
        with lock:
            _mend(path)
        backend = journal.JournalFileBackend(str(path), lock_obj=lock)
        self._storage = self._optuna.storages.JournalStorage(backend)
        self._studies: dict[str, Study] = {}

    def study(self, name: str) -> Study:
        """The study `name`, begun on first use."""
        if name not in self._studies:
            self._studies[name] = self._optuna.create_study(
                storage=self._storage, study_name=name, direction="maximize", load_if_exists=True
            )
        return self._studies[name]

    def entries(self, study: str) -> dict[str, Entry]:
        """The latest trial of each run, in the order in which they were begun."""
        found: dict[str, Entry] = {}
        for trial in self.study(study).get_trials(deepcopy=False):
            if "run" in trial.user_attrs and trial.state.name in _STATES:
                found[trial.user_attrs["run"]] = _entry(trial)
        return found

    def begin(
        self,
        study: str,
        run: str,
        space: Mapping[str, BaseDistribution],
        describe: Callable[[Mapping[str, Any]], Mapping[str, Any]],
        *,
        params: Mapping[str, Any] | None = None,
        sampler: BaseSampler | None = None,
    ) -> Entry:
        """Begin a run at `params`, or where `sampler` proposes; `describe` turns the point into settings of a run."""
        book = self.study(study)
        if params is not None:
            self._enqueue(book, run, params, describe(params))
            return self.next_waiting(study, space)
        self._void_orphans(book)
        book.sampler = sampler or book.sampler
        trial = book.ask(dict(space))
        trial.set_user_attr("settings", dict(describe(trial.params)))
        trial.set_user_attr("run", run)
        return self._entry(study, trial.number)

    def next_waiting(self, study: str, space: Mapping[str, BaseDistribution]) -> Entry:
        """Begin the run that waits longest; there must be one."""
        return self._entry(study, self.study(study).ask(dict(space)).number)

    def again(self, study: str, entry: Entry) -> None:
        """Let a failed run wait for another try, at the same point."""
        book = self.study(study)
        self._enqueue(book, entry.run, book.get_trials(deepcopy=False)[entry.number].params, entry.settings)

    def tell(self, study: str, number: int, value: float | None, error: str | None = None) -> None:
        """Note the end of a run: its accuracy, its error, or both for one that diverged. Twice is no error."""
        book = self.study(study)
        state = self._optuna.trial.TrialState
        if error is not None and not book.get_trials(deepcopy=False)[number].state.is_finished():
            identity = book.get_trials(deepcopy=False)[number]._trial_id
            self._optuna.trial.Trial(book, identity).set_user_attr("error", error)
        book.tell(number, value, state=state.COMPLETE if value is not None else state.FAIL, skip_if_finished=True)

    def void(self, study: str, number: int) -> None:
        """Take a trial that nobody will run out of the book."""
        self.study(study).tell(number, state=self._optuna.trial.TrialState.PRUNED, skip_if_finished=True)

    def note(self, study: str, key: str, value: Any = None) -> Any:
        """Keep `value` beside the study; without one, what was kept."""
        if value is not None:
            self.study(study).set_user_attr(key, value)
        return self.study(study).user_attrs.get(key)

    def _enqueue(self, book: Study, run: str, params: Mapping[str, Any], settings: Mapping[str, Any]) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # enqueue_trial was experimental in earlier releases
            book.enqueue_trial(dict(params), user_attrs={"run": run, "settings": dict(settings)})

    def _entry(self, study: str, number: int) -> Entry:
        return _entry(self.study(study).get_trials(deepcopy=False)[number])

    def _void_orphans(self, book: Study) -> None:
        # A worker that was killed while it asked left a trial that belongs to no run.
        for trial in book.get_trials(deepcopy=False):
            if "run" not in trial.user_attrs and not trial.state.is_finished():
                book.tell(trial.number, state=self._optuna.trial.TrialState.PRUNED, skip_if_finished=True)


def _entry(trial: FrozenTrial) -> Entry:
    attrs = trial.user_attrs
    return Entry(
        run=attrs["run"],
        number=trial.number,
        state=_STATES[trial.state.name],
        settings=attrs.get("settings", {}),
        value=trial.value if trial.state.name == "COMPLETE" else None,
        error=attrs.get("error"),
    )


def _mend(path: Path) -> None:
    """Cut off a last line that was not written whole (a full disk): what follows it could not be read otherwise."""
    if path.is_file():
        whole = path.read_bytes()
        keep = whole.rfind(b"\n") + 1
        if keep < len(whole):
            with path.open("r+b") as stream:
                stream.truncate(keep)
