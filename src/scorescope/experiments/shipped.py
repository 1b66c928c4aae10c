"""The networks that come with the package, examined on their own digits: what several figures are drawn of."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from scorescope.adapters import load
from scorescope.demo import MODELS, model_path
from scorescope.denoiser import Denoiser
from scorescope.experiments.examined import Look
from scorescope.experiments.store import Store
from scorescope.files import sha256


def make(store: Store, name: str) -> Denoiser:
    """One of the demo's networks."""
    return load(model_path(name)).to(store.device)


ABOUT: dict[str, Any] = {"weights": {name: sha256(model_path(name)) for name in MODELS}}
SETTING = {
    "smoke": "The demo's smallest network on its 4,500 digits, 8 paths at 6 times.",
    "desk": "The demo's three networks (148, 415 and 893 thousand parameters, 8,000 steps each) on their 4,500 digits and 500 held-out "
    "ones, 100 paths at 100 times.",
}
LOOKS: dict[str, Callable[[tuple[str, ...]], Look]] = {
    "smoke": lambda probes: Look("digits", "digits-held-out", MODELS[:1], probes, 8, 6, 4, "heun", 6, minutes=0.2),
    "desk": lambda probes: Look("digits", "digits-held-out", MODELS, probes),
}
