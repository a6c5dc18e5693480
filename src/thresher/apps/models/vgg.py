"""VGG networks for CIFAR: 3x3 convolutions with batch norm, and one linear layer."""

from __future__ import annotations

from typing import cast

from torch import Tensor, nn
from torch.nn import functional

from thresher.errors import InputError

STAGES = {11: (1, 1, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)


class Vgg(nn.Module):
    """Images (N, C, H, W), H and W at least 32, to logits (N, num_classes).

    Source: Simonyan and Zisserman 2014, configurations A, D and E, in the CIFAR form: batch norm after every
    convolution (which then needs no bias), average pooling and one linear layer instead of three.
    """

    def __init__(self, stages: tuple[int, ...], num_classes: int, channels_in: int = 3) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for width, repeats in zip(WIDTHS, stages, strict=True):
            for _ in range(repeats):
                layers += [nn.Conv2d(channels_in, width, 3, 1, 1, bias=False), nn.BatchNorm2d(width), nn.ReLU()]
                channels_in = width
            layers.append(nn.MaxPool2d(2))
        self.features = nn.Sequential(*layers)
        self.classifier = nn.Linear(WIDTHS[-1], num_classes)
        for module in self.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        x = functional.adaptive_avg_pool2d(self.features(x), 1).flatten(1)
        return cast(Tensor, self.classifier(x))


def vgg(depth: int, num_classes: int, input_shape: tuple[int, int, int]) -> nn.Module:
    """VGG-11, 16 or 19 with batch norm; five poolings need images of at least 32x32.

    Errors: InputError for another depth, or for smaller images.

    >>> sum(p.numel() for p in vgg(11, 10, (3, 32, 32)).parameters())
    9228362
    """
    if depth not in STAGES:
        raise InputError(f"VGG of depth {depth}", f"one of {', '.join(map(str, STAGES))}", "use vgg16")
    if min(input_shape[1:]) < 32:
        raise InputError(
            f"vgg{depth} for images of {input_shape[1]}x{input_shape[2]}",
            "at least 32x32, because five poolings halve the image",
            "use small-cnn, or a CIFAR ResNet",
        )
    return Vgg(STAGES[depth], num_classes, input_shape[0])
