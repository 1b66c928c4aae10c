"""State dicts from elsewhere: a bare one or {model, ema, …}, in safetensors or in a pickle that is opened without running its code."""

from __future__ import annotations

import argparse
import pickle
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from scorescope.adapters.families import Checkpoint, family_of
from scorescope.denoiser import Denoiser
from scorescope.errors import InputError
from scorescope.files import sha256

PICKLES = (".pt", ".pth", ".ckpt", ".pkl", ".pickle", ".bin")
PARTS = ("ema", "model_ema", "ema_state_dict", "model", "state_dict", "module")  # the first that is there is taken
WRAPPERS = ("module.", "_orig_mod.")  # what DistributedDataParallel and torch.compile put before every name


def accepts(path: Path) -> bool:
    """A file of tensors that does not say itself what it is."""
    if not path.is_file():
        return False
    if path.suffix == ".safetensors":
        return described(path) is None
    return path.suffix.lower() in PICKLES and unpickled(path) is not None


def described(path: Path) -> str | None:
    """The description that `scorescope train` writes into a safetensors file, if it is there."""
    try:
        with safe_open(path, framework="pt") as opened:
            return (opened.metadata() or {}).get("scorescope")
    except (SafetensorError, OSError):
        return "unreadable"  # for the adapter that says so


def unpickled(path: Path) -> Mapping[str, Any] | None:
    """A pickle's dictionary of tensors and plain values; None where anything else is in it, which is then not touched."""
    if not zipped(path):  # older than torch 1.6, or not of torch
        return None
    try:
        with torch.serialization.safe_globals([argparse.Namespace]):  # plain attributes, as the official checkpoints hold them
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, ValueError, KeyError, AttributeError, OSError):
        return None
    return found if isinstance(found, Mapping) else None


def zipped(path: Path) -> bool:
    """Whether the file is of the kind that torch writes since 1.6, and maps into memory."""
    with open(path, "rb") as opened:
        return opened.read(2) == b"PK"


def load(path: Path, options: dict[str, Any]) -> Denoiser:
    """The model of a state dict; `family` and what else the dict cannot tell are keywords."""
    checkpoint = read(path)
    own = {name: value for name, value in options.items() if name != "family"}
    try:
        module = family_of(checkpoint, options.get("family"))
        family = module.__name__.rpartition(".")[2]
        model: Denoiser = module.build(checkpoint, own)
    except InputError as problem:
        raise InputError(f"{path}: {problem.problem}", problem.hint) from problem
    except (ValueError, TypeError, LookupError, ArithmeticError, RuntimeError) as problem:  # shapes or options that no network has
        reason = str(problem).splitlines()[0]
        raise InputError(f"{path}: its weights make no network of family {family} ({reason})", "an undamaged copy") from problem
    model.name = path.stem
    model.about = {"family": family, "weights": checkpoint.part, "options": own, "file": str(path), "sha256": sha256(path)}
    return model


def read(path: Path) -> Checkpoint:
    """The tensors and what else the file holds; of its parts "ema" before "model"."""
    if path.suffix == ".safetensors":
        with safe_open(path, framework="pt") as opened:
            found: Mapping[str, Any] = {name: opened.get_tensor(name) for name in opened.keys()}  # noqa: SIM118
    else:
        found = unpickled(path) or {}
    part = next((name for name in PARTS if isinstance(found.get(name), Mapping)), "all")
    rest = {name: value for name, value in found.items() if not isinstance(value, (Mapping, Tensor))}
    found = found if part == "all" else found[part]
    weights = {
        bare(name): value.float() if value.is_floating_point() else value for name, value in found.items() if isinstance(value, Tensor)
    }
    if not weights:
        raise InputError(f"{path} holds no weights", "a state dict, or {'model': …, 'ema': …}")
    return Checkpoint(weights, part, rest)


def bare(name: str) -> str:
    """A parameter's name without what wrappers put before it."""
    for wrapper in WRAPPERS:
        name = name.removeprefix(wrapper)
    return name
