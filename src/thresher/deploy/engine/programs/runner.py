"""Runs the pieces of a captured network: engine programs, and torch between them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from thresher.deploy.engine.capturing.builder import Value
from thresher.deploy.engine.capturing.pieces import Capture, EnginePiece, TorchPiece, run_node
from thresher.deploy.engine.programs.program import Program
from thresher.errors import InputError

_HEADS = ("bthd", "bhtd")


@dataclass
class Runner:
    """One way to run the network: a program for each engine piece, threads, and how pictures are shared."""

    captured: Capture
    programs: list[Program]  # of the engine pieces, in order
    threads: int
    spread: bool = False

    def __post_init__(self) -> None:
        pieces, ends = self.captured.pieces, (self.captured.inputs, self.captured.outputs)
        only = pieces[0] if len(pieces) == 1 else None
        whole = only if isinstance(only, EnginePiece) and (only.sources, only.targets) == ends else None
        self._whole = whole
        self._plain = whole is not None and all(each.form not in _HEADS and not any(each.pad) for each in whole.values)

    def __call__(self, inputs: Sequence[Any]) -> list[Any]:
        """Outputs for the inputs in the order of `captured.inputs`."""
        if self._whole is not None:
            results = self._engine(0, inputs, inputs[0].shape[0])
            if self._plain:
                return results
            return [_seen(tensor, value) for tensor, value in zip(results, self._whole.values, strict=True)]
        batch = next(item.shape[0] for item in inputs if isinstance(item, Tensor))
        known: dict[str, Any] = dict(zip(self.captured.inputs, inputs, strict=True))
        known |= {name: value for name, value in self.captured.constants.items() if name not in known}
        at = 0
        for piece in self.captured.pieces:
            if isinstance(piece, TorchPiece):
                known[piece.node.name] = run_node(piece.node, known)
                continue
            results = self._engine(at, [known[name] for name in piece.sources], batch)
            at += 1
            for name, value, tensor in zip(piece.targets, piece.values, results, strict=True):
                known[name] = _seen(tensor, value)
        return [known[item] if isinstance(item, str) else item for item in self.captured.outputs]

    def _engine(self, at: int, inputs: Sequence[Tensor], batch: int) -> list[Tensor]:
        return self.programs[at].run(inputs, batch, threads=self.threads, spread=self.spread)


def _seen(tensor: Tensor, value: Value) -> Tensor:
    """The tensor as torch had it: heads apart (_HEADS), zeros around."""
    if value.form == "bthd":
        return torch.unflatten(tensor, 2, (value.heads, -1))
    if value.form == "bhtd":
        return torch.unflatten(tensor, 2, (value.heads, -1)).transpose(1, 2)
    if any(value.pad):
        return torch.nn.functional.pad(tensor, value.pad if tensor.ndim == 4 else value.pad[:2])
    return tensor


def check_inputs(captured: Capture, inputs: Sequence[Any]) -> None:
    """Refuses what the example did not announce.

    Errors: InputError on another number of inputs, type, device or shape; another batch size is fine where nothing
    runs in torch.
    """
    if len(inputs) != len(captured.examples):
        raise InputError(f"{len(inputs)} inputs", f"{len(captured.examples)}, as in the example", "pass the same ones")
    for number, (given, example) in enumerate(zip(inputs, captured.examples, strict=True)):
        if not isinstance(example, Example):
            if type(given) is not type(example) or given != example:
                raise InputError(f"input {number}: {given!r}", f"{example!r}, as in the example", "compile again")
            continue
        if not isinstance(given, Tensor) or given.dtype != example.dtype or given.device.type != "cpu":
            what = f"{given.dtype} on {given.device}" if isinstance(given, Tensor) else type(given).__name__
            raise InputError(f"input {number}: {what}", f"a CPU tensor of {example.dtype}", "convert it")
        free = captured.any_batch
        if given.ndim != len(example.shape) or given.shape[free:] != example.shape[free:] or not given.ndim:
            raise InputError(
                f"input {number} of shape {tuple(given.shape)}",
                f"{'(any batch, ' + str(example.shape[1:])[1:] if free else example.shape}",
                "pass this shape, or compile again with an example of yours",
            )
    batches = {given.shape[0] for given in inputs if isinstance(given, Tensor)}
    if captured.any_batch and len(batches) != 1:
        raise InputError(f"batches of {sorted(batches)}", "one batch size for all inputs", "make them equal")


@dataclass(frozen=True)
class Example:
    """What is remembered of an example tensor."""

    shape: tuple[int, ...]
    dtype: torch.dtype


def remember(examples: Sequence[Any]) -> list[Any]:
    """Shapes and types in place of tensors."""
    return [Example(tuple(x.shape), x.dtype) if isinstance(x, Tensor) else x for x in examples]
