"""The Inception-v3 that FID is defined by, as tables: names and widths are those of the published PyTorch weights.

It is not torchvision's: averages at the border leave padding out, the last block takes a maximum where the others take an average, and
there are 1,008 classes.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

Kernel = int | tuple[int, int]


class Conv(nn.Module):
    """Convolution, normalisation, rectifier; padded so that a stride of 1 keeps the size unless `valid`."""

    def __init__(self, inside: int, outside: int, kernel: Kernel = 1, stride: int = 1, valid: bool = False) -> None:
        super().__init__()
        high, wide = (kernel, kernel) if isinstance(kernel, int) else kernel
        padding = (0, 0) if valid or stride > 1 else (high // 2, wide // 2)
        self.conv = nn.Conv2d(inside, outside, (high, wide), stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(outside, eps=0.001)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, H, W) → (B, outside, H', W')."""
        return F.relu(self.bn(self.conv(x)))


Step = tuple[str, int, Kernel]  # name, channels, kernel
Path = list[Step]


class Mixed(nn.Module):
    """Paths side by side, each a few convolutions, and a pooled one, joined along the channels.

    Args:
        inside: Channels that come in.
        paths: In order; a step named "a|b" is two convolutions of the same input, kernels as given and transposed.
        pooled: Channels of the convolution after pooling; 0 for none, which is also where the last step of every path has stride 2.
        largest: Whether the pooling takes the maximum rather than the mean.
    """

    def __init__(self, inside: int, paths: list[Path], pooled: int = 0, largest: bool = False) -> None:
        super().__init__()
        self.paths, self.largest, self.halves = paths, largest, not pooled
        for path in paths:
            width = inside
            for place, (name, channels, kernel) in enumerate(path):
                stride = 2 if self.halves and place == len(path) - 1 else 1
                kernels: list[Kernel] = [kernel] if isinstance(kernel, int) else [kernel, kernel[::-1]]
                for own, size in zip(name.split("|"), kernels, strict=False):
                    self.add_module(own, Conv(width, channels, size, stride))
                width = channels
        if pooled:
            self.branch_pool = Conv(inside, pooled)

    def forward(self, x: Tensor) -> Tensor:
        """(B, inside, H, W) → (B, sum of the paths, H', W')."""
        found = []
        for path in self.paths:
            h = x
            for name, _, _ in path:
                h = torch.cat([self.get_submodule(own)(h) for own in name.split("|")], 1)
            found.append(h)
        if self.halves:
            return torch.cat([*found, F.max_pool2d(x, 3, 2)], 1)
        mean = F.max_pool2d(x, 3, 1, 1) if self.largest else F.avg_pool2d(x, 3, 1, 1, count_include_pad=False)
        return torch.cat([*found, self.branch_pool(mean)], 1)


def _fives(inside: int, pooled: int) -> Mixed:
    triple: Path = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]
    return Mixed(inside, [[("branch1x1", 64, 1)], [("branch5x5_1", 48, 1), ("branch5x5_2", 64, 5)], triple], pooled)


def _sevens(width: int) -> Mixed:
    wide, high = (1, 7), (7, 1)
    single: Path = [("branch7x7_1", width, 1), ("branch7x7_2", width, wide), ("branch7x7_3", 192, high)]
    double: Path = [("branch7x7dbl_1", width, 1)]
    double += [
        ("branch7x7dbl_2", width, high),
        ("branch7x7dbl_3", width, wide),
        ("branch7x7dbl_4", width, high),
        ("branch7x7dbl_5", 192, wide),
    ]
    return Mixed(768, [[("branch1x1", 192, 1)], single, double], 192)


def _split(inside: int, largest: bool) -> Mixed:
    single: Path = [("branch3x3_1", 384, 1), ("branch3x3_2a|branch3x3_2b", 384, (1, 3))]
    double: Path = [("branch3x3dbl_1", 448, 1), ("branch3x3dbl_2", 384, 3), ("branch3x3dbl_3a|branch3x3dbl_3b", 384, (1, 3))]
    return Mixed(inside, [[("branch1x1", 320, 1)], single, double], 192, largest)


class Inception(nn.Module):
    """Images (B, 3, 299, 299) in [−1, 1) → the 2,048 features before the classifier."""

    def __init__(self) -> None:
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, 2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3, valid=True)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3)
        self.Conv2d_3b_1x1 = Conv(64, 80)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3, valid=True)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = _fives(192, 32), _fives(256, 64), _fives(288, 64)
        triple: Path = [("branch3x3dbl_1", 64, 1), ("branch3x3dbl_2", 96, 3), ("branch3x3dbl_3", 96, 3)]
        self.Mixed_6a = Mixed(288, [[("branch3x3", 384, 3)], triple])
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = _sevens(128), _sevens(160), _sevens(160), _sevens(192)
        sevens: Path = [
            ("branch7x7x3_1", 192, 1),
            ("branch7x7x3_2", 192, (1, 7)),
            ("branch7x7x3_3", 192, (7, 1)),
            ("branch7x7x3_4", 192, 3),
        ]
        self.Mixed_7a = Mixed(768, [[("branch3x3_1", 192, 1), ("branch3x3_2", 320, 3)], sevens])
        self.Mixed_7b, self.Mixed_7c = _split(1280, False), _split(2048, True)
        self.fc = nn.Linear(2048, 1008)  # of the classifier; there so that the published weights load whole

    def forward(self, x: Tensor) -> Tensor:
        """Features (B, 2048)."""
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name in ("5b", "5c", "5d", "6a", "6b", "6c", "6d", "6e", "7a", "7b", "7c"):
            x = self.get_submodule(f"Mixed_{name}")(x)
        return x.mean((2, 3))
