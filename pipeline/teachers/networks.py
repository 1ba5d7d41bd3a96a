"""Two face-parsing networks of different architecture: a UNet (Ronneberger et al. 2015) as teacher
and a residual feature pyramid (He et al. 2016; Lin et al. 2017) as independent judge; and the UNet
of CelebAMask-HQ's own parser, which labels the images of Xu & Zheng (CVPR 2021).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def conv_block(channels_in: int, channels: int) -> nn.Sequential:
    """3x3 convolution, batch norm, ReLU; keeps the resolution."""
    return nn.Sequential(
        nn.Conv2d(channels_in, channels, 3, padding=1, bias=False),
        nn.BatchNorm2d(channels),
        nn.ReLU(inplace=True),
    )


class UNet(nn.Module):
    """Encoder and decoder joined by skips, working at half the input's resolution.

    A space-to-depth stem folds 2x2 pixels into channels, which makes it four times cheaper than
    a UNet that starts at full resolution, at little loss once the logits are upsampled.
    """

    def __init__(self, num_classes: int, widths: tuple[int, ...] = (32, 64, 96, 160, 224)):
        super().__init__()
        inputs = (12, *widths[:-1])
        self.down = nn.ModuleList(
            nn.Sequential(conv_block(i, o), conv_block(o, o))
            for i, o in zip(inputs, widths, strict=True)
        )
        steps = list(zip(widths[:0:-1], widths[-2::-1], strict=True))
        self.up = nn.ModuleList(nn.ConvTranspose2d(i, o, 2, stride=2) for i, o in steps)
        self.merge = nn.ModuleList(
            nn.Sequential(conv_block(2 * o, o), conv_block(o, o)) for _, o in steps
        )
        self.dropout = nn.Dropout2d(0.1)
        self.head = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1], H and W multiples of 32, to logits [N, C, H/2, W/2]."""
        x = F.pixel_unshuffle(images, 2)
        skips = []
        for level, block in enumerate(self.down):
            x = block(F.max_pool2d(x, 2) if level else x)
            skips.append(x)
        x = self.dropout(x)
        for up, merge, skip in zip(self.up, self.merge, skips[-2::-1], strict=True):
            x = merge(torch.cat([up(x), skip], 1))
        return self.head(x)


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions around an identity (or 1x1, strided) shortcut."""

    def __init__(self, channels_in: int, channels: int, stride: int = 1):
        super().__init__()
        self.conv1 = nn.Conv2d(channels_in, channels, 3, stride, 1, bias=False)
        self.norm1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)
        self.shortcut = (
            nn.Identity()
            if stride == 1 and channels_in == channels
            else nn.Conv2d(channels_in, channels, 1, stride, bias=False)
        )

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, H, W] to [N, channels, H/stride, W/stride]."""
        y = F.relu(self.norm1(self.conv1(x)))
        return F.relu(self.norm2(self.conv2(y)) + self.shortcut(x))


class DoubleConv(nn.Module):
    """Twice 3x3 convolution, batch norm, ReLU; names as in CelebAMask-HQ's published weights."""

    def __init__(self, channels_in: int, channels: int):
        super().__init__()
        self.conv1 = self._block(channels_in, channels)
        self.conv2 = self._block(channels, channels)

    @staticmethod
    def _block(channels_in: int, channels: int) -> nn.Sequential:
        conv = nn.Conv2d(channels_in, channels, 3, padding=1)
        return nn.Sequential(conv, nn.BatchNorm2d(channels), nn.ReLU(inplace=True))

    def forward(self, x: Tensor) -> Tensor:
        """[N, channels_in, H, W] to [N, channels, H, W]."""
        return self.conv2(self.conv1(x))


class UpConcat(nn.Module):
    """2x2 transposed convolution of the coarse map; the fine map comes first in the joint."""

    def __init__(self, channels_in: int, channels: int):
        super().__init__()
        self.conv = DoubleConv(channels_in, channels)
        self.up = nn.ConvTranspose2d(channels_in, channels, 2, stride=2)

    def forward(self, fine: Tensor, coarse: Tensor) -> Tensor:
        """[N, channels, 2H, 2W] and [N, channels_in, H, W] to [N, channels, 2H, 2W]."""
        return self.conv(torch.cat([fine, self.up(coarse)], 1))


class PublishedUNet(nn.Module):
    """The UNet of CelebAMask-HQ (Lee et al. 2020), 1,944,287 parameters with 15 classes."""

    def __init__(self, num_classes: int, widths: tuple[int, ...] = (16, 32, 64, 128, 256)):
        super().__init__()
        self.conv1, self.conv2, self.conv3, self.conv4, self.center = (
            DoubleConv(i, o) for i, o in zip((3, *widths[:-1]), widths, strict=True)
        )
        self.up_concat4, self.up_concat3, self.up_concat2, self.up_concat1 = (
            UpConcat(i, o) for i, o in zip(widths[:0:-1], widths[-2::-1], strict=True)
        )
        self.final = nn.Conv2d(widths[0], num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1], H and W multiples of 16, to logits [N, C, H, W]."""
        fine1 = self.conv1(images)
        fine2 = self.conv2(F.max_pool2d(fine1, 2))
        fine3 = self.conv3(F.max_pool2d(fine2, 2))
        fine4 = self.conv4(F.max_pool2d(fine3, 2))
        x = self.up_concat4(fine4, self.center(F.max_pool2d(fine4, 2)))
        return self.final(self.up_concat1(fine1, self.up_concat2(fine2, self.up_concat3(fine3, x))))


class FeaturePyramid(nn.Module):
    """Residual encoder from a 4x4 space-to-depth stem; top-down sums; global context at the top."""

    def __init__(
        self,
        num_classes: int,
        widths: tuple[int, ...] = (80, 112, 160, 224),
        pyramid: int = 96,
    ):
        super().__init__()
        inputs = (48, *widths[:-1])
        self.encoder = nn.ModuleList(
            nn.Sequential(ResidualBlock(i, o, stride=2 if level else 1), ResidualBlock(o, o))
            for level, (i, o) in enumerate(zip(inputs, widths, strict=True))
        )
        self.context = nn.Conv2d(widths[-1], widths[-1], 1)
        self.lateral = nn.ModuleList(nn.Conv2d(width, pyramid, 1) for width in widths)
        self.smooth = nn.ModuleList(conv_block(pyramid, pyramid) for _ in widths)
        self.dropout = nn.Dropout2d(0.1)
        self.detail = conv_block(12 + pyramid // 4, 32)
        self.head = nn.Conv2d(32, num_classes, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Images [N, 3, H, W] in [-1, 1], H and W multiples of 32, to logits [N, C, H/2, W/2]."""
        half = F.pixel_unshuffle(images, 2)
        x = F.pixel_unshuffle(half, 2)
        levels = []
        for block in self.encoder:
            x = block(x)
            levels.append(x)
        levels[-1] = x + self.context(x.mean((2, 3), keepdim=True))
        top = None
        for lateral, smooth, level in zip(
            reversed(self.lateral), reversed(self.smooth), reversed(levels), strict=True
        ):
            x = lateral(level)
            x = x if top is None else x + F.interpolate(top, scale_factor=2, mode="nearest")
            top = smooth(x)
        fine = F.pixel_shuffle(self.dropout(top), 2)
        return self.head(self.detail(torch.cat([half, fine], 1)))


NETWORKS = {"unet": UNet, "feature_pyramid": FeaturePyramid}
