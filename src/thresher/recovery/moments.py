"""C = H Hᵀ summed in double precision over mini-batches: memory does not grow with the number of samples."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from functools import partial
from itertools import islice
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from thresher.budget.counts import call, eval_mode
from thresher.errors import InputError, NumericsError, ThresherError
from thresher.recovery.reading import channels_of, hidden_rows
from thresher.recovery.shifts import ShiftedMoments, shiftable

# Entries of float64 that one product works on at most, so that a batch of large images needs no copy of itself.
CHUNK = 1 << 22
# Rows of C above which a product leaves out what symmetry gives.
LARGE = 512


class SecondMoments:
    """Accumulates C over what one module reads at its input.

    Args:
        module: the reader (convolution or linear layer).
        channels: the channels (int64) of its input to follow, in order.
        taps: for a convolution, every tap of every channel (rows channel-major), or channels only.
        enough: take in nothing more once that many samples (in whole batches) and columns are in; None: everything.

    count: columns of H (positions, tokens) seen. items: samples, as the batch axis counts them.
    """

    def __init__(
        self, module: nn.Module, channels: Tensor, *, taps: bool = True, enough: tuple[int, int] | None = None
    ) -> None:
        self.module, self.channels, self.taps, self.enough = module, channels, taps, enough
        self.count = self.items = 0
        self.matrix: Tensor | None = None
        self._shifted: ShiftedMoments | None = None

    @property
    def full(self) -> bool:
        """Whether `enough` is reached."""
        return self.enough is not None and self.items >= self.enough[0] and self.count >= self.enough[1]

    def add(self, inputs: Tensor, mask: Tensor | None = None) -> None:
        """Take in one input of the reader; `mask` (batch, tokens) is False at padding."""
        if self.full:
            return
        inputs = inputs.detach()
        self.items += len(inputs)
        shifted = self.taps and shiftable(self.module) and inputs.ndim == self.module.weight.ndim  # type: ignore[union-attr, operator]
        step = max(CHUNK // max(inputs[:1].numel() * (2 if shifted else self._growth()), 1), 1)
        keep = mask if mask is not None and inputs.ndim == 3 and mask.shape == inputs.shape[:2] else None
        for start in range(0, len(inputs), step):
            piece = inputs[start : start + step]
            if shifted:
                picked = piece[:, self.channels.to(piece.device)].to(torch.float64)
                self._shifted = self._shifted or ShiftedMoments(self.module)  # type: ignore[arg-type]
                self._shifted.add(picked)
                self.count += self._positions(piece)
            else:
                rows = hidden_rows(self.module, piece, self.channels, taps=self.taps, dtype=torch.float64)
                if keep is not None:
                    rows = rows[keep[start : start + step].to(rows.device, torch.bool).flatten()]
                self.count += len(rows)
                self._sum(_gram(rows))

    def include(self, other: SecondMoments) -> None:
        """Add what another accumulator, of the same layer, has taken in; it keeps its own."""
        if other._shifted is not None:
            self._shifted = self._shifted or ShiftedMoments(self.module)  # type: ignore[arg-type]
            self._shifted.include(other._shifted)
        if other.matrix is not None:
            self._sum(other.matrix.clone())
        self.count += other.count
        self.items += other.items

    def _sum(self, product: Tensor) -> None:
        self.matrix = product if self.matrix is None else self.matrix.add_(product)

    def clear(self) -> None:
        """Free the memory."""
        self.matrix = self._shifted = None

    def _positions(self, inputs: Tensor) -> int:
        module: Any = self.module
        count = len(inputs)
        sizes = zip(inputs.shape[2:], module.kernel_size, module.dilation, module.padding, strict=True)
        for extent, kernel, dilation, padding in sizes:
            count *= extent + 2 * padding - dilation * (kernel - 1)
        return int(count)

    def _growth(self) -> int:
        kernel = getattr(self.module, "kernel_size", None)
        size = 1
        for extent in kernel if self.taps and isinstance(kernel, tuple) else ():
            size *= extent
        return size

    def result(self) -> Tensor:
        """C, summed over all processes when torch.distributed is initialised.

        Errors: InputError when nothing was seen, NumericsError for NaN or infinity.
        """
        if self._shifted is not None:
            self._sum(self._shifted.matrix())
            self._shifted = None
        if self.matrix is None:
            raise InputError(
                f"no batch that reaches {type(self.module).__name__}",
                "at least one batch of inputs",
                "pass a calibration loader that is not empty or used up",
            )
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            total = torch.tensor([float(self.count), float(self.items)], dtype=torch.float64, device=self.matrix.device)
            torch.distributed.all_reduce(self.matrix)
            torch.distributed.all_reduce(total)
            self.count, self.items = (int(value) for value in total)
        if not torch.isfinite(self.matrix.diagonal()).all():  # a row of H that is not finite shows there
            raise NumericsError("hidden values with NaN or infinity", "finite inputs", "clean the data and weights")
        return self.matrix


def _gram(rows: Tensor) -> Tensor:
    """rowsᵀ rows; of a large one only the blocks on and above the diagonal are worked out."""
    width = rows.shape[1]
    if width <= LARGE:
        return rows.T @ rows
    product = rows.new_empty(width, width)
    step = -(-width // 8)
    for start in range(0, width, step):
        block = rows[:, start : start + step].T @ rows[:, start:]
        product[start : start + step, start:] = block
        product[start:, start : start + step] = block.T
    return product


class Taking(Protocol):
    """Anything that takes in what a reader is given."""

    def add(self, inputs: Tensor, mask: Tensor | None = None) -> None:
        """Take in one input; `mask` (batch, tokens) is False at padding."""


class Reached(Exception):  # noqa: N818 - no error: all that is wanted has been seen
    """Ends a forward pass early."""


def inputs_of(batch: Any) -> Any:
    """What the model is called with: the first of (inputs, labels), or the tensor or mapping itself."""
    if isinstance(batch, (tuple, list)):
        if not batch:
            raise InputError("an empty batch", "inputs, or (inputs, labels)", "correct the loader")
        return batch[0]
    if isinstance(batch, Mapping):
        return {key: value for key, value in batch.items() if key != "labels"}
    return batch


def placed(inputs: Any, place: torch.device) -> Any:
    """Every tensor of `inputs` on `place`."""
    if isinstance(inputs, Tensor):
        return inputs.to(place)
    if isinstance(inputs, Mapping):
        return {key: placed(value, place) for key, value in inputs.items()}
    if isinstance(inputs, (tuple, list)):
        return [placed(value, place) for value in inputs]
    return inputs


def collect(
    model: nn.Module, batches: Iterable[Any], readers: Mapping[str, Taking], *, limit: int | None = None
) -> int:
    """One pass over `batches` without gradients, in eval mode, that fills every accumulator of `readers`.

    A forward pass ends as soon as each reader has been called once. A mapping with "attention_mask" leaves its padding
    out of readers that see (batch, tokens, features).

    Args:
        batches: any iterable of tensors, tuples (inputs, labels) or mappings of keyword arguments.
        readers: module name to its accumulator. limit: at most that many batches.

    Returns: how many batches were read. Errors: InputError for a batch that the model cannot take.
    """
    place = next((tensor.device for tensor in model.parameters()), torch.device("cpu"))
    waiting: set[str] = set()
    masks: list[Tensor | None] = [None]

    def note(name: str, module: nn.Module, args: tuple[Any, ...]) -> None:
        readers[name].add(args[0], masks[0])
        waiting.discard(name)
        if not waiting:
            raise Reached

    handles = [model.get_submodule(name).register_forward_pre_hook(partial(note, name)) for name in readers]
    seen = 0
    try:
        with torch.no_grad(), eval_mode(model):
            for seen, batch in enumerate(islice(batches, limit), start=1):
                inputs = placed(inputs_of(batch), place)
                masks[0] = inputs.get("attention_mask") if isinstance(inputs, Mapping) else None
                waiting.update(readers)
                run_batch(model, inputs, seen)
    finally:
        for handle in handles:
            handle.remove()
    return seen


def run_batch(model: nn.Module, inputs: Any, number: int) -> None:
    """Run `model` on one batch; `Reached` ends it quietly. Errors: InputError for one that the model cannot take."""
    try:
        call(model, inputs)
    except (Reached, ThresherError) as error:
        if not isinstance(error, Reached):
            raise
    except Exception as error:
        raise InputError(
            f"batch {number}, on which the model fails: {error}",
            "tensors, (inputs, labels) or keyword arguments that the model accepts",
            "correct the calibration loader",
        ) from error


__all__ = ["Reached", "SecondMoments", "channels_of", "collect", "inputs_of", "placed", "run_batch"]
