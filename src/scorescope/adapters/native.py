"""Weights that `scorescope train` wrote: safetensors whose metadata says what network they belong to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open

from scorescope.denoiser import Denoiser, NetworkDenoiser
from scorescope.errors import InputError
from scorescope.files import sha256
from scorescope.nets.sit import SiT, SiTConfig

WEIGHTS = "model.safetensors"


def accepts(path: Path) -> bool:
    """A safetensors file, or the folder of a training run."""
    return path.suffix == ".safetensors" and path.is_file() or path.is_dir() and ((path / WEIGHTS).is_file() or (path / "run.json").is_file())


def load(path: Path, options: dict[str, Any]) -> Denoiser:
    """The EMA network as a denoiser, named after its folder or file."""
    if options:
        raise InputError(f"{path} says itself what it is and takes no options ({', '.join(options)} given)")
    file = path / WEIGHTS if path.is_dir() else path
    if not file.is_file():
        raise InputError(f"the training run in {path} is not finished", "running its command again; it continues")
    try:
        with safe_open(file, framework="pt") as opened:
            about = (opened.metadata() or {}).get("scorescope")
            weights = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as problem:
        raise InputError(f"{file} can't be read as safetensors ({problem})", "the file from an undamaged copy") from problem
    if about is None:
        raise InputError(f"{file} does not say which network its weights belong to", "a function that builds the network: my_model.py:build")
    record = json.loads(about)
    config = SiTConfig(**record["architecture"])
    net = SiT(config)
    try:
        net.load_state_dict(weights)
    except RuntimeError as problem:
        raise InputError(f"{file} does not hold the weights that its metadata names ({str(problem).splitlines()[-1].strip()})", "the file from an undamaged copy") from problem
    name = file.parent.name if file.name == WEIGHTS and file.parent.name else file.stem
    model = NetworkDenoiser(
        net.eval(), prediction=record["prediction"], classes=config.classes, null_label=config.classes or None,
        shape=(config.channels, config.size, config.size), name=name,
    )  # fmt: skip
    model.about = {**record, "file": str(file), "sha256": sha256(file)}
    return model
