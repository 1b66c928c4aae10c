"""Latents seen as the images that an autoencoder makes of them, before features are taken.

    x = decode(z / scaling_factor + shift_factor),  then as images: cut to [−1, 1], rounded to 8 bits

The autoencoder is a folder as diffusers saves it: `config.json`, which says its class and both factors, and weights as safetensors. Rows of
the bank are latents times `scaling_factor`, as diffusion models are trained on them.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from scorescope.errors import InputError
from scorescope.evaluate.extractors import Extractor, weights_hash
from scorescope.rows.pixels import images

CLASSES = ("AutoencoderKL", "AutoencoderTiny", "VQModel")


class Decoded(nn.Module):
    """Features of what latents decode to.

    Args:
        autoencoder: Of diffusers.
        net: Called with images (B, 3, H, W) in [0, 1].
    """

    def __init__(self, autoencoder: Any, net: Any) -> None:
        super().__init__()
        self.autoencoder, self.net = autoencoder, net
        config = autoencoder.config
        self.scale = float(getattr(config, "scaling_factor", None) or 1.0)
        self.shift = float(getattr(config, "shift_factor", None) or 0.0)

    def forward(self, rows: Tensor) -> Tensor:
        """Latents (B, *shape) → features (B, d)."""
        wanted = int(self.autoencoder.config.latent_channels)
        if rows.ndim != 4 or rows.shape[1] != wanted:
            raise InputError(f"the autoencoder takes latents of {wanted} channels, these rows have shape {tuple(rows.shape[1:])}")
        found: Tensor = self.net(images(self.autoencoder.decode(rows / self.scale + self.shift).sample, -1.0, 1.0))
        return found


def decoded(inner: Extractor, folder: str | Path | None) -> Extractor:
    """An extractor of images as one of latents; itself where no folder of an autoencoder is given.

    Raises:
        InputError: It takes no images; the folder holds no autoencoder that is known; diffusers is not installed.
    """
    if folder is None:
        return inner
    if inner.takes != "images":
        raise InputError(f"extractor {inner.name} takes rows as they are, and no images that an autoencoder makes", "--extractor lite0")
    autoencoder = _opened(Path(folder))
    net = Decoded(autoencoder.eval(), inner.net)
    identity = f"{inner.identity} of {weights_hash(autoencoder)} / {net.scale} + {net.shift}"
    return Extractor(net, inner.name, identity, "rows", inner.title, inner.cached)


def _opened(folder: Path) -> Any:
    """The autoencoder; in a pipeline's folder it is `vae` or `vqvae`."""
    place = next((one for one in (folder, folder / "vae", folder / "vqvae") if (one / "config.json").is_file()), None)
    if place is None:
        raise InputError(f"there is no autoencoder in {folder}", "a folder with its config.json and weights, as diffusers saves it")
    try:
        kind = json.loads((place / "config.json").read_text()).get("_class_name")
    except (OSError, ValueError, AttributeError) as problem:
        raise InputError(f"{place / 'config.json'} can't be read ({problem})", "an undamaged copy") from problem
    if kind not in CLASSES:
        raise InputError(f"{place} holds {kind or 'something unnamed'}, not an autoencoder that is known", f"one of {', '.join(CLASSES)}")
    try:
        import diffusers
    except ImportError as problem:
        raise InputError("autoencoders are opened by diffusers, which is not installed", "pip install 'scorescope[diffusers]'") from problem
    try:
        return getattr(diffusers, kind).from_pretrained(place, local_files_only=True, use_safetensors=True)
    except Exception as problem:  # the library raises what its parts raise
        said = str(problem).splitlines()[0] if str(problem) else type(problem).__name__
        raise InputError(
            f"the autoencoder in {place} can't be opened ({said})", "an undamaged copy, with its weights as safetensors"
        ) from problem
