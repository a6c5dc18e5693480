"""Stacks of equal blocks, each reading what the one before gives: found by name or type, proven by one pass."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from typing import Any

from torch import Tensor, nn

from thresher.errors import InputError
from thresher.oneshot.layers import state_of
from thresher.oneshot.walking import run

Chain = tuple[str, Sequence[nn.Module]]


def is_transformers(model: nn.Module) -> bool:
    """Whether the network is a model of the transformers library."""
    kind = getattr(sys.modules.get("transformers.modeling_utils"), "PreTrainedModel", None)
    return kind is not None and isinstance(model, kind)


def candidates(model: nn.Module, blocks: str | None) -> list[Chain]:
    """The lists of blocks to try.

    Args:
        blocks: "auto" finds the outermost lists of equal blocks in transformers models and none in others; None is
            none; else the name of one `nn.ModuleList` or `nn.Sequential`.

    Errors: InputError for a name that is no such list.
    """
    if blocks is None or (blocks == "auto" and not is_transformers(model)):
        return []
    if blocks != "auto":
        found = dict(model.named_modules()).get(blocks)
        if not isinstance(found, (nn.ModuleList, nn.Sequential)) or not len(found):
            lists = [name for name, module in model.named_modules() if isinstance(module, nn.ModuleList)]
            raise InputError(
                f"blocks={blocks!r}",
                f"the name of a list of blocks ({', '.join(lists[:8]) or 'this model has no ModuleList'})",
                "correct the name, or pass blocks=None",
            )
        return [(blocks, list(found))]
    chains: list[Chain] = []
    for name, module in model.named_modules():
        inner = any(name.startswith(f"{outer}.") for outer, _ in chains)
        if (
            isinstance(module, nn.ModuleList)
            and not inner
            and len(module)
            and len({type(each) for each in module}) == 1
        ):
            chains.append((name, list(module)))
    return chains


def proven(model: nn.Module, chains: Sequence[Chain], inputs: Any) -> tuple[list[Chain], Any]:
    """(chains in the order in which they run, the network's output), from one pass over `inputs`.

    A chain is kept when each block runs once, in order, and is handed the very hidden states that the block before it
    gave, and gives nothing else.
    """
    walks = [_Walk(len(chain)) for _, chain in chains]
    began: list[int] = []

    def enter(which: int, place: int, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        began.append(which)
        walks[which].enter(place, args[0] if args else kwargs.get("hidden_states"))

    def leave(which: int, place: int, module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
        walks[which].leave(place, output)

    with ExitStack() as undo:
        for which, (_, chain) in enumerate(chains):
            for place, block in enumerate(chain):
                before, after = partial(enter, which, place), partial(leave, which, place)
                undo.callback(block.register_forward_pre_hook(before, with_kwargs=True).remove)
                undo.callback(block.register_forward_hook(after, with_kwargs=True).remove)
        output = run(model, inputs, 1)
    order = [which for which in dict.fromkeys(began) if walks[which].whole]
    return [chains[which] for which in order], output


class _Walk:
    """Watches one chain; remembers only what the last block gave."""

    def __init__(self, length: int) -> None:
        self._length, self._steps, self._linked = length, 0, True
        self._given: tuple[Tensor, tuple[int, int]] | None = None  # the tensor is held: its address stays its own

    @property
    def whole(self) -> bool:
        """Whether every block ran once, in order, each on what the one before gave."""
        return self._linked and self._steps == 2 * self._length

    def enter(self, place: int, hidden: Any) -> None:
        self._step(2 * place, hidden)
        if self._given is not None:
            self._linked = self._linked and isinstance(hidden, Tensor) and state_of(hidden) == self._given[1]

    def leave(self, place: int, output: Any) -> None:
        self._step(2 * place + 1, output)
        self._given = (output, state_of(output)) if isinstance(output, Tensor) else None

    def _step(self, due: int, value: Any) -> None:
        plain = isinstance(value, Tensor) and value.is_floating_point()
        self._linked = self._linked and self._steps == due and plain
        self._steps += 1
