"""Several batches walk through a network side by side and wait for each other at chosen layers.

At each stop every batch has been through the layers before it and none has been beyond: what a layer shall be can be
decided there, from all batches, and they walk on through the decision. One pass instead of one per layer, for the price
of holding what is alive between two layers for all batches at once.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from thresher.budget.counts import eval_mode
from thresher.errors import InputError
from thresher.recovery.moments import Reached, placed, run_batch

Seen = Callable[[str, Tensor, Tensor | None], None]


class _Walker:
    """One batch on its way, in a thread of its own that runs only while the others rest."""

    def __init__(self, walk: Callable[[_Walker], None]) -> None:
        self._mine, self._theirs = threading.Semaphore(0), threading.Semaphore(0)
        self._error: BaseException | None = None
        self._ended = self._stopped = False
        self.at: str | None = None
        self._thread = threading.Thread(target=self._run, args=(walk,), daemon=True)
        self._thread.start()

    def _run(self, walk: Callable[[_Walker], None]) -> None:
        self._mine.acquire()
        try:
            if not self._stopped:
                walk(self)
        except Reached:
            pass
        except BaseException as error:
            self._error = error
        self._ended, self.at = True, None
        self._theirs.release()

    def rest(self, name: str) -> None:
        """Called on the way: wait at `name` until the next `step`."""
        self.at = name
        self._theirs.release()
        self._mine.acquire()
        if self._stopped:
            raise Reached

    def step(self) -> str | None:
        """Walk to the next stop and return its name, None at the end. Raises what went wrong on the way."""
        if not self._ended:
            self._mine.release()
            self._theirs.acquire()
        if self._error is not None:
            raise self._error
        return self.at

    def stop(self) -> None:
        """End the walk where it is."""
        self._stopped = True
        while not self._ended:
            self._mine.release()
            self._theirs.acquire()
        self._thread.join()


def in_lockstep(
    model: nn.Module, batches: Sequence[Any], stops: Sequence[str], seen: Seen, decide: Callable[[str], bool]
) -> None:
    """Run `model` on every batch at once, in eval mode without gradients, resting at each module of `stops`.

    Args:
        batches: inputs (not (inputs, labels)); all are held, and what is alive at a stop for each of them.
        stops: modules that every forward pass calls exactly once.
        seen: called with a stop's name, what the module is given, and the padding mask, for each batch.
        decide: called when all batches rest at a stop; may change weights there. False ends the walk.

    Errors: InputError when batches meet the stops in different orders, or the model fails on one.
    """
    place = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    running: list[_Walker] = []
    masks: dict[_Walker, Tensor | None] = {}
    now: list[_Walker] = []
    last = len(stops)

    def note(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        seen(name, args[0], masks[now[0]])
        now[0].rest(name)

    def walk(batch: Any, number: int, walker: _Walker) -> None:
        inputs = placed(batch, place)
        masks[walker] = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
        del batch
        with torch.no_grad():
            run_batch(model, inputs, number)

    handles = [model.get_submodule(name).register_forward_pre_hook(partial(note, name)) for name in stops]
    try:
        with eval_mode(model):
            running = [_Walker(partial(walk, batch, number)) for number, batch in enumerate(batches, start=1)]
            for _ in range(last):
                places = []
                for walker in running:
                    now[:] = [walker]
                    places.append(walker.step())
                if len(set(places)) > 1 or places[0] is None:
                    raise InputError(
                        f"batches that reach {sorted(map(str, set(places)))} at the same time",
                        "a network that calls its layers in one order for every batch",
                        "exclude the layers that only some batches reach, or pass memory=0 for a pass per layer",
                    )
                if not decide(places[0]):
                    break
    finally:
        for walker in running:
            walker.stop()
        for handle in handles:
            handle.remove()
