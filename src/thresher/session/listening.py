"""What a pruner hears of an optimizer: steps that took place, and states that are saved and loaded."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch.optim import Optimizer
from torch.optim.optimizer import register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from thresher.session.checks import skipped_by_scaler
from thresher.session.packing import pack, unpack

# Under this name the pruner's state travels in the first parameter group of the optimizer's state dict.
KEY = "thresher"


class Listener:
    """Hooks on one optimizer; until it is known, an ear on whichever steps first.

    Args:
        before: called when the gradients of a step are there. after: called when its weights have moved.
        save, load: the pruner's state, which travels with the optimizer's. meet: called with each optimizer that is
            about to step, while none is known.
    """

    def __init__(
        self,
        *,
        before: Callable[[], None],
        after: Callable[[Optimizer], None],
        save: Callable[[], dict[str, Any]],
        load: Callable[[Mapping[str, Any]], None],
        meet: Callable[[Optimizer], None],
    ) -> None:
        self._before, self._after, self._save, self._load, self._meet = before, after, save, load, meet
        self._handles: list[RemovableHandle] = []
        self._past: list[RemovableHandle] = []
        self.waiting = False  # whether no optimizer is known yet

    def wait(self) -> None:
        """Listen to every optimizer of the process until `follow` names one."""
        me = weakref.ref(self)  # torch keeps the hook for ever: it must not keep the model with it

        def heard(optimizer: Optimizer, args: object, kwargs: object) -> None:
            listener = me()
            if listener is not None and listener.waiting:
                listener._meet(optimizer)

        self.waiting = True
        self._past.append(register_optimizer_step_pre_hook(heard))

    def follow(self, optimizer: Optimizer) -> None:
        """Listen to `optimizer` and no longer to another."""
        self._drop(self._handles)
        self.waiting = False
        self._handles = [
            optimizer.register_step_pre_hook(self._stepping),
            optimizer.register_step_post_hook(self._stepped),
            optimizer.register_state_dict_post_hook(self._saved),
            optimizer.register_load_state_dict_pre_hook(self._loaded),
        ]
        # One that loaded its state before it was known still holds what was saved beside it.
        packed = optimizer.param_groups[0].pop(KEY, None)
        if packed is not None:
            self._load(unpack(packed))

    def close(self) -> None:
        """Take every hook off."""
        self.waiting = False
        self._drop(self._handles)
        self._drop(self._past)

    @staticmethod
    def _drop(handles: list[RemovableHandle]) -> None:
        while handles:
            handles.pop().remove()

    def _stepping(self, optimizer: Optimizer, args: Any, kwargs: Any) -> tuple[Any, Any] | None:
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is None:
            if not skipped_by_scaler(optimizer):
                self._before()
            return None

        def measured() -> Any:  # the gradients of this step are there only when the closure has run
            loss = closure()
            self._before()
            return loss

        if len(args) > 1:
            return (args[0], measured, *args[2:]), kwargs
        return args, {**kwargs, "closure": measured}

    def _stepped(self, optimizer: Optimizer, args: object, kwargs: object) -> None:
        self._drop(self._past)  # not at once: torch was going through the list that it stands in
        if not skipped_by_scaler(optimizer):
            self._after(optimizer)

    def _saved(self, optimizer: Optimizer, state: dict[str, Any]) -> None:
        state["param_groups"][0][KEY] = pack(self._save())

    def _loaded(self, optimizer: Optimizer, state: dict[str, Any]) -> dict[str, Any] | None:
        first, *others = state["param_groups"]
        if KEY not in first:  # the state of a dense training
            return None
        # Accelerate hands an optimizer its own state when it wraps it: that must not pass for a checkpoint.
        if not torch.equal(first[KEY].cpu(), pack(self._save())):
            self._load(unpack(first[KEY]))
        return {**state, "param_groups": [{name: first[name] for name in first if name != KEY}, *others]}
