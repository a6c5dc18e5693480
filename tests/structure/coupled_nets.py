"""Small networks with the couplings that shrinking has to get right."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class Block(nn.Module):
    """conv-bn-relu-conv-bn with a skip."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.conv1, self.bn1 = nn.Conv2d(width, hidden, 3, padding=1, bias=False), nn.BatchNorm2d(hidden)
        self.conv2, self.bn2 = nn.Conv2d(hidden, width, 3, padding=1, bias=False), nn.BatchNorm2d(width)

    def forward(self, x: Tensor) -> Tensor:
        return functional.relu(x + self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(x))))))


class Residual(nn.Module):
    """A stem, two blocks on one residual stream, a classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.stem, self.norm = nn.Conv2d(2, 8, 3, padding=1), nn.BatchNorm2d(8)
        self.first, self.second = Block(8, 6), Block(8, 10)
        self.head = nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.second(self.first(functional.relu(self.norm(self.stem(x)))))
        return self.head(x.mean((2, 3)))


class Inverted(nn.Module):
    """expand, depthwise, project, as in MobileNetV2; then a grouped convolution."""

    def __init__(self) -> None:
        super().__init__()
        self.expand, self.norm = nn.Conv2d(2, 12, 1, bias=False), nn.BatchNorm2d(12)
        self.depth, self.norm2 = nn.Conv2d(12, 12, 3, groups=12, bias=False), nn.BatchNorm2d(12)
        self.project = nn.Conv2d(12, 8, 1)
        self.grouped = nn.Conv2d(8, 6, 3, groups=2)
        self.head = nn.Linear(6, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu6(self.norm2(self.depth(functional.relu6(self.norm(self.expand(x))))))
        return self.head(functional.relu(self.grouped(functional.relu(self.project(x)))).mean((2, 3)))


class Concat(nn.Module):
    """Two branches side by side, read by a convolution; then flattened into a linear layer."""

    def __init__(self) -> None:
        super().__init__()
        self.left, self.right = nn.Conv2d(2, 5, 3, padding=1), nn.Conv2d(2, 7, 3, padding=1)
        self.both = nn.Conv2d(12, 4, 3)
        self.head = nn.Linear(4 * 16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.cat([functional.relu(self.left(x)), functional.relu(self.right(x))], 1)
        return self.head(functional.relu(self.both(x)).flatten(1))


class Gated(nn.Module):
    """One layer's outputs in two halves, one gating the other: two outputs make one unit."""

    def __init__(self) -> None:
        super().__init__()
        self.both, self.out, self.head = nn.Linear(4, 12), nn.Linear(6, 5), nn.Linear(5, 2)

    def forward(self, x: Tensor) -> Tensor:
        value, gate = self.both(x).chunk(2, -1)
        return self.head(functional.relu(self.out(value * gate.sigmoid())))


def settled(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model with running statistics and norm weights that are not the ones it began with, in eval mode."""
    noise = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor in (module.weight.data, module.running_var):
                tensor.uniform_(0.5, 1.5, generator=noise)
            for tensor in (module.bias.data, module.running_mean):
                tensor.uniform_(-0.5, 0.5, generator=noise)
    return model.eval()


IMAGES = torch.randn(3, 2, 6, 6, generator=torch.Generator().manual_seed(1))
