"""Feature extractors: what turns a row into the numbers that are compared. One a file, found by scanning this package.

An extractor's module has `build(options) -> Extractor`, and is known by its file's name. Anything else is a user's own:
`my_extractor.py:build`, a function that returns a torch module or an `Extractor`; in Python any module can be passed as it is.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from scorescope import user_file
from scorescope.errors import InputError, unknown
from scorescope.files import sha256
from scorescope.registry import module

TAKES = ("images", "rows")


@dataclass(frozen=True)
class Options:
    """What an extractor may be told.

    Attributes:
        weights: A file of weights.
        size: Side in pixels to which images are resized.
    """

    weights: str | None = None
    size: int | None = None


@dataclass(frozen=True)
class Extractor:
    """Features of rows.

    Attributes:
        net: Called with a batch; returns features (B, d).
        name: What to call it: the distance is "FD-name" unless `title` says otherwise.
        identity: Tells its features from those of every other extractor; part of the cache's key.
        takes: "images": (B, 3, H, W) float32 in [0, 1], rounded to 8 bits as a saved image is, grey repeated; "rows": as the bank has them.
        title: Of the Fréchet distance.
        cached: Whether features are worth keeping on disk.
    """

    net: Callable[[Tensor], Tensor]
    name: str
    identity: str
    takes: str = "images"
    title: str = ""
    cached: bool = True

    def __post_init__(self) -> None:
        if self.takes not in TAKES:
            raise unknown("input of an extractor", self.takes, TAKES)
        if not self.title:
            object.__setattr__(self, "title", f"FD-{self.name}")

    @classmethod
    def of(cls, net: nn.Module, name: str | None = None, takes: str = "images") -> Extractor:
        """Any torch module, set to evaluation; known by the hash of its weights and code name."""
        return cls(net.eval(), name or type(net).__name__.lower(), weights_hash(net), takes)

    def to(self, device: str) -> Extractor:
        """Move the network inside, if there is one; returns self."""
        if isinstance(self.net, nn.Module):
            self.net.to(device)
        return self


def weights_hash(net: nn.Module) -> str:
    """SHA-256 of a module's printed structure, parameters and buffers."""
    digest = hashlib.sha256(f"{type(net).__module__}.{type(net).__qualname__} {net}".encode())
    for name, value in sorted(net.state_dict().items()):
        if isinstance(value, Tensor):
            digest.update(f"{name} {value.dtype} {tuple(value.shape)}".encode())
            digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def extractor(name: str | nn.Module | Extractor, options: Options | None = None) -> Extractor:
    """An extractor by its name, from `FILE.py:FUNCTION`, or around a module.

    Raises:
        InputError: Unknown name; weights or packages that are missing; a function that returns something else.
    """
    if isinstance(name, Extractor):
        return name
    if isinstance(name, nn.Module):
        return Extractor.of(name)
    told = options or Options()
    if told.size is not None and told.size < 32:
        raise InputError(f"--size {told.size} is too small for an image network", "--size 128")
    if user_file.accepts(name):
        return _users(name)
    built: Extractor = module(__name__, name, "extractor").build(told)
    return built


def _users(name: str) -> Extractor:
    """What a function in a user's file returns, known by the file's hash and the weights'."""
    built, (file, function) = user_file.built(name, "a torch module or an Extractor"), user_file.split(name)
    if isinstance(built, nn.Module):
        made = Extractor.of(built, file.stem)
        return Extractor(made.net, made.name, f"{sha256(file)} {made.identity}")
    if not isinstance(built, Extractor):
        raise InputError(
            f"{function} in {file} returned {type(built).__name__}, not an extractor", "a torch module, or ss.evaluate.Extractor(…)"
        )
    return built
