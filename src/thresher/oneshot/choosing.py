"""Which entries leave: the lowest scores of a layer or of each row, with what a pattern or a guard keeps."""

from __future__ import annotations

import torch
from torch import Tensor


def lowest(scores: Tensor, leave: int, *, by_row: bool = False, stays: Tensor | None = None) -> Tensor:
    """True at the `leave` entries of lowest score; with `by_row` as many in each row, give or take one.

    Args:
        scores: (..., rows, columns), not NaN. stays: boolean of the same shape, entries that never leave.
        by_row: compare inside each row only. What does not divide goes to the rows whose next entry is lowest; a row
            with fewer free entries than its share gives what it has, and the others more.

    Ties leave in order of the lowest flat index. At most the free entries leave.

    >>> lowest(torch.tensor([[4.0, 1.0], [3.0, 2.0]]), 2).tolist()
    [[False, True], [False, True]]
    >>> lowest(torch.tensor([[4.0, 5.0, 6.0], [3.0, 2.0, 1.0]]), 3, by_row=True).tolist()
    [[True, False, False], [False, True, True]]
    """
    free = scores if stays is None else scores.masked_fill(stays, torch.inf)
    leave = min(leave, scores.numel() if stays is None else int((~stays).sum()))
    gone = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    if not by_row:
        gone.view(-1)[free.flatten().sort(stable=True).indices[:leave]] = True
        return gone
    rows = free.reshape(-1, free.shape[-1])
    most = torch.full((len(rows),), rows.shape[1], device=rows.device)
    if stays is not None:
        most = (~stays).reshape(rows.shape).sum(1)
    ordered, order = rows.sort(dim=1, stable=True)
    share = _share(most, leave)
    quota = most.clamp(max=share)
    rest = leave - int(quota.sum())
    if rest:
        following = ordered.gather(1, quota.clamp(max=rows.shape[1] - 1)[:, None])[:, 0]
        following = following.masked_fill(most <= quota, torch.inf)
        quota[following.sort(stable=True).indices[:rest]] += 1
    first = torch.arange(rows.shape[1], device=rows.device) < quota[:, None]
    return gone.view(rows.shape).scatter_(1, order, first).view(scores.shape)


def _share(most: Tensor, leave: int) -> int:
    """The largest k with Σ min(most, k) ≤ leave."""
    low, high = 0, int(most.max()) if len(most) else 0
    while low < high:
        middle = (low + high + 1) // 2
        low, high = (middle, high) if int(most.clamp(max=middle).sum()) <= leave else (low, middle - 1)
    return low


def best_of(scores: Tensor, keep: int, of: int, *, taps: int = 1) -> Tensor:
    """True at the `keep` highest scores of every `of` neighbouring channels: what N:M leaves in place.

    Args:
        scores: (..., channels · taps), channel-major; each tap of a convolution has its own groups.

    Ties: the higher index stays, as in `thresher.operators.patterns.NofM`.

    >>> best_of(torch.tensor([[4.0, 1.0, 3.0, 2.0]]), 2, 4).tolist()
    [[True, False, True, False]]
    """
    grid = scores.unflatten(-1, (-1, of, taps))
    order = grid.sort(dim=-2, stable=True).indices
    stays = torch.zeros(grid.shape, dtype=torch.bool, device=grid.device)
    return stays.scatter_(-2, order[..., of - keep :, :], True).view(scores.shape)


def best_of_row(scores: Tensor) -> Tensor:
    """True at the highest score of each row, the first of equals: a depthwise filter keeps an entry."""
    stays = torch.zeros(scores.shape, dtype=torch.bool, device=scores.device)
    # argmax does not promise the first of equal entries.
    first = (scores == scores.amax(-1, keepdim=True)).to(torch.int8).sort(dim=-1, descending=True, stable=True).indices
    return stays.scatter_(-1, first[..., :1], True)


def quotas(leave: int, free: list[int], widths: list[int]) -> list[int]:
    """How many leave from each block of columns: in proportion to width, in whole numbers, `leave` in all.

    >>> quotas(5, [4, 4, 4], [2, 2, 2])
    [2, 1, 2]
    """
    found: list[int] = []
    for place, room in enumerate(free):
        due = round(leave * sum(widths[: place + 1]) / sum(widths)) - sum(found)
        late = leave - sum(found) - sum(free[place + 1 :])  # what the blocks after this one cannot take
        found.append(min(max(due, late, 0), room))
    return found
