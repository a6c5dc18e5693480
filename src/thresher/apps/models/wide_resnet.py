"""Wide residual networks for CIFAR, with batch norm and relu before each convolution."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from thresher.errors import InputError


class WideBlock(nn.Module):
    """x ↦ conv2(relu(bn2(conv1(a)))) + shortcut, a = relu(bn1(x)); shortcut = x, or a 1x1 convolution of a."""

    def __init__(self, channels_in: int, channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels_in)
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        same = stride == 1 and channels_in == channels
        self.shortcut = None if same else nn.Conv2d(channels_in, channels, 1, stride, 0, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a = functional.relu(self.bn1(x))
        y = self.conv2(functional.relu(self.bn2(self.conv1(a))))
        return cast(Tensor, y + (x if self.shortcut is None else self.shortcut(a)))


class WideResNet(nn.Module):
    """Images (N, C, H, W) to logits (N, num_classes): three stages of 16k, 32k, 64k channels.

    Source: Zagoruyko and Komodakis 2016, "Wide Residual Networks", table 1; without dropout.
    """

    def __init__(self, blocks: int, width: int, num_classes: int, channels_in: int = 3) -> None:
        super().__init__()
        sizes = [16, 16 * width, 32 * width, 64 * width]
        self.conv1 = nn.Conv2d(channels_in, sizes[0], 3, 1, 1, bias=False)
        self.layer1 = _stage(sizes[0], sizes[1], blocks, 1)
        self.layer2 = _stage(sizes[1], sizes[2], blocks, 2)
        self.layer3 = _stage(sizes[2], sizes[3], blocks, 2)
        self.bn = nn.BatchNorm2d(sizes[3])
        self.linear = nn.Linear(sizes[3], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = self.layer3(self.layer2(self.layer1(self.conv1(x))))
        x = functional.adaptive_avg_pool2d(functional.relu(self.bn(x)), 1).flatten(1)
        return cast(Tensor, self.linear(x))


def _stage(channels_in: int, channels: int, blocks: int, stride: int) -> nn.Sequential:
    first = WideBlock(channels_in, channels, stride)
    return nn.Sequential(first, *(WideBlock(channels, channels, 1) for _ in range(blocks - 1)))


def wide_resnet(depth: int, width: int, num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """WRN-D-K: depth D = 6n + 4, channels widened K times.

    Errors: InputError for a depth that is not 6n + 4, or a width below 1.

    >>> sum(p.numel() for p in wide_resnet(10, 1, 10, (3, 32, 32)).parameters())
    77850
    """
    if depth < 10 or (depth - 4) % 6 or width < 1:
        raise InputError(f"wrn{depth}-{width}", "wrnD-K with D = 6n + 4 and K at least 1", "use e.g. wrn16-8")
    return WideResNet((depth - 4) // 6, width, num_classes, input_shape[0])
