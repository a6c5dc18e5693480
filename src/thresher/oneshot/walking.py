"""Through the network in forward order: as one piece, or block by block on hidden states that are carried along."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from thresher.budget.counts import call, eval_mode
from thresher.errors import InputError, ThresherError


class Reached(Exception):  # noqa: N818 - no error: all that is wanted has been seen
    """Ends a forward pass early."""


def run(model: nn.Module, inputs: Any, number: int) -> Any:
    """The output of one pass without gradients in eval mode; None when `Reached` ended it.

    Errors: InputError for a batch that the model cannot take.
    """
    try:
        with torch.inference_mode(False), torch.no_grad(), eval_mode(model):
            return call(model, inputs)
    except Reached:
        return None
    except ThresherError:
        raise
    except Exception as error:
        raise InputError(
            f"batch {number}, on which the model fails: {error}",
            "tensors, (inputs, labels) or keyword arguments that the model accepts",
            "correct the calibration loader",
        ) from error


class Stage(Protocol):
    """A part of the network whose layers are pruned together."""

    name: str

    @property
    def batches(self) -> Iterable[Any]:
        """The inputs of every batch."""

    def run(self, number: int, inputs: Any) -> None:
        """Let batch `number` (from 0) pass through the part, on what the pruned part before it gives."""

    def leave(self) -> None:
        """The part is pruned: make ready for the next one."""


@dataclass(eq=False)
class Whole:
    """The whole network as one part."""

    model: nn.Module
    batches: Iterable[Any]
    name: str = "whole network"

    def run(self, number: int, inputs: Any) -> None:
        """One forward pass."""
        run(self.model, inputs, number + 1)

    def leave(self) -> None:
        """Nothing is carried."""


@dataclass(eq=False)
class Block:
    """One block of a chain. `carried`: per batch the hidden states at its door, None for the first block."""

    model: nn.Module
    chain: Sequence[nn.Module]
    place: int
    batches: Sequence[Any]
    name: str
    carried: list[Tensor | None] = field(default_factory=list)

    def run(self, number: int, inputs: Any) -> None:
        """The pass ends behind this block; the blocks before it are jumped over."""
        self._through(number, inputs)

    def leave(self) -> None:
        """Replace what is carried by what the pruned block makes of it; nobody wants that of the last one."""
        if self.place == len(self.chain) - 1:
            self.carried.clear()
            return
        for number, inputs in enumerate(self.batches):
            self.carried[number] = self._through(number, inputs)

    def _through(self, number: int, inputs: Any) -> Tensor:
        block = self.chain[self.place]
        found: list[Tensor] = []

        def enter(module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
            hidden = self.carried[number]
            return None if hidden is None else _with_hidden(args, kwargs, hidden)

        def leave(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            found.append(output)
            raise Reached

        with ExitStack() as undo:
            # The network itself runs up to the block, so that masks and positions are what it makes of the batch.
            for earlier in self.chain[: self.place]:
                undo.enter_context(_jumped(earlier))
            undo.callback(block.register_forward_pre_hook(enter, with_kwargs=True, prepend=True).remove)
            undo.callback(block.register_forward_hook(leave, with_kwargs=True).remove)
            run(self.model, inputs, number + 1)
        return found[0]


@contextmanager
def _jumped(block: nn.Module) -> Iterator[None]:
    """The block hands its hidden states on, unchanged and at once."""
    before = vars(block).get("forward")
    block.forward = lambda *args, **kwargs: _entering(args, kwargs)  # type: ignore[method-assign]
    try:
        yield
    finally:
        del block.forward
        if before is not None:
            block.forward = before  # type: ignore[method-assign]


def _entering(args: Sequence[Any], kwargs: dict[str, Any]) -> Any:
    return args[0] if args else kwargs["hidden_states"]


def _with_hidden(
    args: tuple[Any, ...], kwargs: dict[str, Any], hidden: Tensor
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    return ((hidden, *args[1:]), kwargs) if args else (args, {**kwargs, "hidden_states": hidden})


def stages(
    model: nn.Module, chains: Sequence[tuple[str, Sequence[nn.Module]]], batches: Iterable[Any]
) -> Iterator[Stage]:
    """The blocks of every chain in order, each ready when it comes; without a chain, the whole network."""
    if not chains:
        yield Whole(model, batches)
    for name, chain in chains:
        assert isinstance(batches, Sequence)
        carried: list[Tensor | None] = [None] * len(batches)
        for place in range(len(chain)):
            yield Block(model, chain, place, batches, f"{name}.{place}", carried)
