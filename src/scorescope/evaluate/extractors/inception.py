"""Inception-v3 as FID uses it, from weights that the user has: the PyTorch port of the 2015-12-05 graph, 2,048 features.

The file is `pt_inception-2015-12-05-6726825d.pth` of pytorch-fid; torch-fidelity calls it `weights-inception-2015-12-05-6726825d.pth`.
With exactly that one (by SHA-256) the distance is called FID; with other weights of the same architecture, FD-inception. Images are resized
as the original graph does it (bilinear, source positions k·H/299, not antialiased) and mapped by (x₂₅₅ − 128)/128, as torch-fidelity does.
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor, nn

from scorescope.errors import InputError
from scorescope.evaluate.extractors import Extractor, Options
from scorescope.evaluate.inception_net import Inception
from scorescope.files import sha256

PUBLISHED = "6726825d0af5f729cebd5821db510b11b1cfad8faad88a03f1befd49fb9129b2"
FILE = "pt_inception-2015-12-05-6726825d.pth"
SIDE = 299


def resize(images: Tensor, side: int) -> Tensor:
    """(B, C, H, W) → (B, C, side, side), bilinear at source positions k·H/side: TensorFlow 1's resize, not torch's."""
    for axis in (2, 3):
        length = images.shape[axis]
        at = torch.arange(side, device=images.device, dtype=torch.float32) * torch.tensor(length / side, dtype=torch.float32)
        low = at.long()
        part = (at - low).reshape(-1, *[1] * (3 - axis))
        before, after = images.index_select(axis, low), images.index_select(axis, (low + 1).clamp(max=length - 1))
        images = before + (after - before) * part
    return images


class Features(nn.Module):
    """Images (B, 3, H, W) in [0, 1] → (B, 2048)."""

    def __init__(self, net: Inception) -> None:
        super().__init__()
        self.net = net

    def forward(self, images: Tensor) -> Tensor:
        """Features."""
        return self.net((resize((255 * images).round(), SIDE) - 128) / 128)


def build(options: Options) -> Extractor:
    """From a file of weights.

    Raises:
        InputError: No file is given, it can't be read, or holds other weights; `size` is given.
    """
    if options.weights is None:
        raise InputError("extractor inception needs the file of its weights", f"--weights {FILE}, or --extractor lite0")
    if options.size is not None:
        raise InputError(f"extractor inception takes images of {SIDE} pixels and no --size", "--extractor lite0 --size 128")
    file = Path(options.weights)
    if not file.is_file():
        raise InputError(f"there are no weights at {file}", f"--weights {FILE}")
    net = Inception()
    try:
        net.load_state_dict(torch.load(file, map_location="cpu", weights_only=True))
    except (RuntimeError, AttributeError, TypeError, EOFError, pickle.UnpicklingError) as problem:
        reason = " ".join(str(problem).split())[:120]
        raise InputError(f"{file} does not hold the weights of FID's Inception ({reason})", f"the file {FILE}") from problem
    found = sha256(file)
    title = "FID" if found == PUBLISHED else f"FD-inception ({found[:8]})"
    return Extractor(Features(net).eval(), "inception", f"inception {found}", title=title)
