"""A fixed number of columns of H at even distances, for scores that second moments do not hold."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from thresher.errors import InputError
from thresher.recovery.reading import hidden_rows


class Columns:
    """Keeps at most 2 · `most` columns of what a layer reads, however many pass.

    Args:
        module, channels, taps: as in `SecondMoments`. most: columns wanted (at least that many, if so many were seen).

    Every `stride`-th column is kept; when there are too many, every second of them goes and the stride doubles.
    """

    def __init__(self, module: nn.Module, channels: Tensor, *, taps: bool, most: int) -> None:
        self.module, self.channels, self.taps, self.most = module, channels, taps, most
        self._kept: list[Tensor] = []
        self._stride, self._seen = 1, 0

    def add(self, inputs: Tensor, mask: Tensor | None = None) -> None:
        """Take in one input of the reader, a few samples at a time; `mask` is False at padding."""
        keep = mask if mask is not None and inputs.ndim == 3 and mask.shape == inputs.shape[:2] else None
        for start in range(0, len(inputs), 8):
            piece = inputs.detach()[start : start + 8]
            rows = hidden_rows(self.module, piece, self.channels, taps=self.taps)
            if keep is not None:
                rows = rows[keep[start : start + 8].to(rows.device, torch.bool).flatten()]
            first = -self._seen % self._stride
            self._seen += len(rows)
            self._kept.append(rows[first :: self._stride].clone())
            while sum(map(len, self._kept)) > 2 * self.most:
                self._kept = [torch.cat(self._kept)[::2]]
                self._stride *= 2

    def result(self) -> Tensor:
        """H of the kept columns, (rows, columns), float64; those of all processes in a distributed run.

        Errors: InputError when nothing was seen.
        """
        if not self._kept:
            raise InputError("no batch that reaches the layer", "at least one batch of inputs", "pass another loader")
        found = torch.cat(self._kept).to(torch.float64)
        if torch.distributed.is_available() and torch.distributed.is_initialized():
            rank, ranks = torch.distributed.get_rank(), torch.distributed.get_world_size()
            counts = torch.zeros(ranks, dtype=torch.int64, device=found.device)
            counts[rank] = len(found)
            torch.distributed.all_reduce(counts)
            start = int(counts[:rank].sum())
            whole = found.new_zeros(int(counts.sum()), found.shape[1])
            whole[start : start + len(found)] = found
            torch.distributed.all_reduce(whole)
            found = whole
        return found.T
