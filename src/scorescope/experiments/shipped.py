"""The networks that come with the package, examined on their own digits: what several figures are drawn of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scorescope.adapters import load
from scorescope.demo import MODELS, model_path
from scorescope.denoiser import Denoiser
from scorescope.experiments.cost import Training
from scorescope.experiments.examined import Look
from scorescope.experiments.shared import IMAGENET
from scorescope.experiments.store import Store
from scorescope.files import sha256

PAPER = "sit-xl"


def make(store: Store, name: str) -> Denoiser:
    """One of the demo's networks, or the paper's."""
    return IMAGENET.make(store, IMAGENET.recipe(name)) if name == PAPER else load(model_path(name)).to(store.device)


def about(scale: str) -> dict[str, Any]:
    """What numbers of a scale depend on."""
    return {"recipes": {PAPER: IMAGENET.recipe(PAPER).record()}} if scale == "paper" else ABOUT


def trainings(scale: str) -> list[Training]:
    """The paper's network; the demo's are there."""
    return [IMAGENET.training(PAPER)] if scale == "paper" else []


ABOUT: dict[str, Any] = {"weights": {name: sha256(model_path(name)) for name in MODELS}}
SETTING = {
    "smoke": "The demo's smallest network on its 4,500 digits, 8 paths at 6 times.",
    "desk": "The demo's three networks (148, 415 and 893 thousand parameters, 8,000 steps each) on their 4,500 digits and 500 held-out "
    "ones, 100 paths at 100 times.",
    "paper": "SiT-XL/2 on the latents of ImageNet, 400,000 steps of 256 (C.1); 200 paths at 100 times.",
}
LOOKS: dict[str, Callable[[tuple[str, ...]], Look]] = {
    "smoke": lambda probes: Look("digits", "digits-held-out", MODELS[:1], probes, 8, 6, 4, "heun", 6, minutes=0.2),
    "desk": lambda probes: Look("digits", "digits-held-out", MODELS, probes),
    "paper": lambda probes: Look(IMAGENET.bank, IMAGENET.held_out, (PAPER,), probes, paths=200, origins=200, minutes=600),
}
