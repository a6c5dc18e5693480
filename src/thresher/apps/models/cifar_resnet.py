"""Residual networks for CIFAR: 6n + 2 layers, 16, 32 and 64 channels, shortcuts without parameters."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from thresher.errors import InputError


class PadShortcut(nn.Module):
    """x ↦ every second row and column of x, with `extra` zero channels on each side (option A).

    Source: He et al. 2015, "Deep Residual Learning", section 4.2.
    """

    def __init__(self, extra: int) -> None:
        super().__init__()
        self.extra = extra

    def forward(self, x: Tensor) -> Tensor:
        return functional.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, self.extra, self.extra))


class BasicBlock(nn.Module):
    """x ↦ relu(bn2(conv2(relu(bn1(conv1(x))))) + shortcut(x))."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        same = stride == 1 and channels_in == channels
        self.shortcut = nn.Identity() if same else PadShortcut(channels // 4)

    def forward(self, x: Tensor) -> Tensor:
        y = functional.relu(self.bn1(self.conv1(x)))
        y = self.bn2(self.conv2(y))
        return functional.relu(y + self.shortcut(x))


class CifarResNet(nn.Module):
    """Images (N, C, H, W) to logits (N, num_classes), through 6n + 2 layers with weights.

    State names: conv1, bn1, layer1.0.conv1 and so on, linear.
    """

    def __init__(self, blocks: int, num_classes: int, channels_in: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, 16, 3, 1, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, 1)
        self.layer2 = _stage(16, 32, blocks, 2)
        self.layer3 = _stage(32, 64, blocks, 2)
        self.linear = nn.Linear(64, num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(module.weight)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        x = functional.adaptive_avg_pool2d(x, 1).flatten(1)
        return cast(Tensor, self.linear(x))


def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(channels_in, channels, stride)
    return nn.Sequential(first, *(BasicBlock(channels, channels, 1) for _ in range(blocks - 1)))


def cifar_resnet(depth: int, num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """ResNet-20, 32, 44, 56, 110: depth = 6n + 2 with n blocks in each of three stages.

    Errors: InputError for another depth.

    >>> sum(p.numel() for p in cifar_resnet(20, 10, (3, 32, 32)).parameters())
    269722
    """
    if depth < 8 or (depth - 2) % 6:
        raise InputError(f"a CIFAR ResNet of depth {depth}", "depth = 6n + 2", "use 20, 32, 44, 56 or 110")
    return CifarResNet((depth - 2) // 6, num_classes, input_shape[0])
