"""The training loop: one step after another, measured, recorded, and resumable at any of them."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import Any

import torch
from torch import Tensor

from thresher.apps.runs import Run
from thresher.apps.runs.board import Board
from thresher.apps.runs.checkpoint import load_checkpoint, save_checkpoint
from thresher.apps.runs.metrics import Metrics
from thresher.apps.train.asking.beginning import begin, check_same
from thresher.apps.train.asking.config import TrainConfig
from thresher.apps.train.device import autocast, machine_settings
from thresher.apps.train.ending.evaluate import accuracy
from thresher.apps.train.ending.finishing import conclude
from thresher.apps.train.ending.result import Result
from thresher.apps.train.loss import LossMeter, diverged
from thresher.apps.train.progress import Progress
from thresher.apps.train.setup import Workbench, assemble
from thresher.apps.train.state import capture, restore
from thresher.apps.train.trailing import TrailKeeper, final_sparsity
from thresher.apps.train.watching import watched
from thresher.errors import NumericsError

_RECORDS_PER_EPOCH = 50
_SCALER_PATIENCE = 20


def fit(config: TrainConfig, run: Run, progress: Progress | None = None, *, command: str | None = None) -> Result:
    """Train (and prune, when `config.method` says how) and fill the folder of `run`; go on where a run was stopped.

    A run killed at any step and fitted again ends bit for bit like one that was never interrupted, on the CPU with
    the same number of threads and on CUDA with `deterministic`. A finished run is not repeated: its result is returned.

    Errors: InputError for settings, data and weights that do not fit; StateError for a folder that another
    configuration has begun; NumericsError when the loss is no longer finite (the last good checkpoint stays).
    """
    progress = progress or Progress()
    check_same(config, run)
    done = Result.of(run)
    if done is not None:
        progress.said(f"the run in {run.path} is finished; this is its result")
        return done
    with machine_settings(config):
        progress.stage("loading")
        bench = assemble(config)
        bench.attach()
        target = final_sparsity(bench) if config.trail else None
        begin(config, run, command)  # not before: what is refused leaves no trace
        meter = LossMeter(bench.device, patience=1 if bench.scaler is None else _SCALER_PATIENCE)
        state, said = load_checkpoint(run.path)
        for message in said:
            progress.said(message)
        if state is None:
            before, seconds = accuracy(bench.dense, bench.test, channels_last=config.channels_last), 0.0
        else:
            restore(bench, meter, state)
            before, seconds = float(state["accuracy_before"]), float(state["seconds"])
        keeper = None if target is None else TrailKeeper(bench, run, target=target, dense_accuracy=before)
        loop = _Loop(bench, run, meter, progress, keeper, before=before, seconds=seconds, resumed=state is not None)
        loop.run_epochs()
        progress.stage("measuring")
        return conclude(bench, run, seconds=loop.seconds, accuracy_before=before, keeper=keeper)


def train_step(bench: Workbench, inputs: Tensor, labels: Tensor) -> Tensor:
    """One optimizer step on one batch; the learning rate moves on unless a gradient scaler skipped the step."""
    assert bench.optimizer is not None
    assert bench.scheduler is not None
    if bench.config.channels_last:
        inputs = inputs.contiguous(memory_format=torch.channels_last)
    with autocast(bench.config.precision, bench.device):
        logits = bench.forward(inputs)
        loss = bench.objective(logits, inputs, labels)
    bench.optimizer.zero_grad(set_to_none=True)
    if bench.scaler is None:
        loss.backward()  # type: ignore[no-untyped-call]
        bench.optimizer.step()
        bench.scheduler.step()
        return loss.detach()
    scale = bench.scaler.get_scale()
    bench.scaler.scale(loss).backward()
    bench.scaler.step(bench.optimizer)
    bench.scaler.update()
    if bench.scaler.get_scale() >= scale:  # a lower scale means that the step was skipped
        bench.scheduler.step()
    return loss.detach()


def train_epoch(bench: Workbench, meter: LossMeter, progress: Progress) -> float:
    """What is left of an epoch, without records or checkpoints; returns the learning rate of its last step."""
    assert bench.optimizer is not None
    assert bench.train is not None
    rate = 0.0
    for inputs, labels in bench.train:
        rate = float(bench.optimizer.param_groups[0]["lr"])
        loss = train_step(bench, inputs, labels)
        bench.step += 1
        meter.add(loss, bench.step)
        if meter.eager:
            meter.check()
        progress.stepped(bench.step)
    meter.check()
    return rate


class _Loop:
    """The epochs of one run, with its records and checkpoints."""

    def __init__(
        self,
        bench: Workbench,
        run: Run,
        meter: LossMeter,
        progress: Progress,
        keeper: TrailKeeper | None,
        *,
        before: float,
        seconds: float,
        resumed: bool,
    ) -> None:
        self._bench, self._run, self._meter, self._progress = bench, run, meter, progress
        self._keeper, self._before, self._resumed = keeper, before, resumed
        self._began = time.perf_counter() - seconds

    @property
    def seconds(self) -> float:
        """Seconds of training and evaluation, those before an interruption included."""
        return time.perf_counter() - self._began

    def run_epochs(self) -> None:
        """Every epoch that is left."""
        bench = self._bench
        until = bench.step if self._resumed else None
        with ExitStack() as stack:
            log = stack.enter_context(self._run.log(until=until))
            board = Board(self._run.path, purge_step=until)
            stack.callback(board.close)
            if bench.train is None:
                return
            self._progress.started(step=bench.step, steps=bench.steps, epochs=bench.config.epochs)
            while bench.train.epoch < bench.config.epochs:
                self._epoch(log, board)

    def _epoch(self, log: Metrics, board: Board) -> None:
        bench, meter, config = self._bench, self._meter, self._bench.config
        assert bench.train is not None
        assert bench.optimizer is not None
        epoch = bench.train.epoch
        every = -(-bench.steps_per_epoch // _RECORDS_PER_EPOCH)
        last = (epoch + 1) * bench.steps_per_epoch
        rate = bench.optimizer.param_groups[0]["lr"]
        bench.model.train()
        for inputs, labels in bench.train:
            rate = float(bench.optimizer.param_groups[0]["lr"])
            try:
                loss = train_step(bench, inputs, labels)
            except NumericsError as error:  # a method looked at its weights before the loss told
                raise diverged(f"{error.given}, at step {bench.step + 1}") from error
            bench.step += 1
            meter.add(loss, bench.step)
            if meter.eager or bench.step % every == 0:
                meter.check()
            if bench.step % every == 0:
                self._note(log, board, {"kind": "step", "epoch": epoch, "loss": float(loss), "lr": rate})
            if self._keeper is not None:
                self._keeper.stepped()
            self._progress.stepped(bench.step)
            if config.checkpoint_every and bench.step % config.checkpoint_every == 0 and bench.step < last:
                self._save()
        meter.check()
        mean = meter.mean()
        meter.reset()
        right = accuracy(bench.model, bench.test, channels_last=config.channels_last)
        record = {"kind": "epoch", "epoch": epoch, "loss": mean, "accuracy": right, "lr": rate}
        self._note(log, board, record | watched(bench, right))
        if self._keeper is not None:
            self._keeper.epoch_ended(right)
        self._save()

    def _note(self, log: Metrics, board: Board, record: dict[str, Any]) -> None:
        pruner = self._bench.pruner
        record |= {
            "step": self._bench.step,
            "sparsity": 0.0 if pruner is None else pruner.sparsity,
            "threshold": 0.0 if pruner is None else max(pruner.process.thresholds()),
            "seconds": round(self.seconds, 3),
        }
        log.add(record)
        board.add(record)
        self._progress.logged(record)

    def _save(self) -> None:
        self._meter.check()
        state = capture(self._bench, self._meter, seconds=self.seconds, accuracy_before=self._before)
        save_checkpoint(self._run.path, state)
