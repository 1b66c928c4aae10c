"""Models on the Hugging Face Hub: `hf:owner/name`, and within it a folder or a file, `hf:owner/name/unet`. Nothing else downloads.

Of a repository of diffusers come the JSON files and one set of the network's weights, plain safetensors if it has them: the autoencoder's
weights are not needed. What was fetched before is taken from the hub's cache, and a copy on disk is read by its path.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from scorescope.adapters import diffusers_folder
from scorescope.adapters import load as load_path
from scorescope.denoiser import Denoiser
from scorescope.errors import InputError

PREFIX = "hf:"
FILES = (".safetensors", ".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")
VARIANTS = ("*.fp16.*", "*.fp16-*", "*non_ema*", "*.bf16.*")  # fetched only where there is nothing else


def accepts(path: Path) -> bool:
    """A path that begins with hf:."""
    return str(path).startswith(PREFIX)


def load(path: Path, options: dict[str, Any]) -> Denoiser:
    """The model, named after its repository.

    Raises:
        InputError: No such name, no connection and nothing in the cache; and as for a folder or a file.
    """
    words = str(path)[len(PREFIX) :].strip("/").split("/")
    if len(words) < 2 or not all(words) or ".." in words:
        raise InputError(f"{path} is no repository of the hub", "hf:owner/name, or hf:owner/name/folder")
    repository, inside = "/".join(words[:2]), "/".join(words[2:])
    if inside.endswith(FILES):
        place = _fetched(repository, [inside]) / inside
    else:
        root = _fetched(repository, ["*.json"]).absolute()
        place = root / inside
        if not diffusers_folder.accepts(place):
            raise InputError(f"{path} holds no network of diffusers", "hf:owner/name/FILE.safetensors, or a folder in it")
        network = diffusers_folder.layout(place).network
        stem = str(network.relative_to(root) / diffusers_folder.STEM)
        for kind, unwanted in ((".safetensors", VARIANTS), (".bin", VARIANTS), ("", ())):
            _fetched(repository, [f"{stem}*{kind}"], () if "variant" in options else unwanted)
            if any(diffusers_folder.WEIGHTS.fullmatch(file.name) for file in network.iterdir()):
                break
    if not place.exists():
        raise InputError(f"{repository} has no {inside}", f"hf:{repository}")
    model = load_path(place, **options)
    model.name = "-".join(words[1:]).removesuffix(Path(inside).suffix if inside.endswith(FILES) else "")
    model.about = {**model.about, "file": str(path), "revision": _revision(place)}
    return model


def _revision(place: Path) -> str:
    """The commit, after which the cache names its folder."""
    return next((parent.name for parent in (place, *place.parents) if parent.parent.name == "snapshots"), "")


def _fetched(repository: str, wanted: list[str], unwanted: tuple[str, ...] = ()) -> Path:
    """The folder in the cache that holds these files of a repository; those that it does not have are not there."""
    clone = f"cloning huggingface.co/{repository} where there is a connection, and the path of that folder"
    try:
        from huggingface_hub import snapshot_download
    except ImportError as missing:
        raise InputError("hf: needs the package huggingface_hub, which is not installed", diffusers_folder.INSTALL) from missing
    try:
        return Path(snapshot_download(repository, allow_patterns=wanted, ignore_patterns=list(unwanted) or None))
    except Exception as problem:  # of a dozen kinds, its own and those of the connection
        said = (str(problem).strip() or type(problem).__name__).splitlines()[0].rstrip(" .")
        raise InputError(f"{repository} can't be downloaded ({said})", clone) from problem
