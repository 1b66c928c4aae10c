"""Cases of `tests.family_cases` whose official answers are those of tests/official_modern.py."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import torch

from tests.family_cases import Answers, Case, backwards, sigmas, steps
from tests.official_modern import reference
from tests.test_families_modern import OPTIONS, complete


@functools.cache
def official(network: str) -> Answers:
    """Posterior means from what the official network answers."""
    _, io = reference(network)
    x, t, out = io["x"], io["t"].double(), io["out"]
    wide = t[:, None, None, None]
    if network.startswith("lightningdit"):
        out = x + (1 - wide) * out
    if network == "dico":
        bar = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.02, 1000)))[io["t"]][:, None, None, None]
        out = (x - (1 - bar).sqrt() * out[:, :4]) / bar.sqrt()
    return Answers(complete(network), x, t, io["y"], out.float(), {})


def case(family: str, network: str, time: Any, **given: Any) -> Case:
    """A case of a subject of official-modern.npz."""
    return Case(family, functools.partial(official, network), time, name=network, **given)


SIGMA_DATA = {"sigma_data": r"sigma_data=0\.5"}
NULL = {"null": 1}
CASES = [
    case(
        "jit", "jit", backwards, options=OPTIONS["jit"], classes=6, null=6, spare=("y_embedder", "in_context_posemb"),
        needed={"noise_scale": "does not tell its noise scale", "context_start": "context_start=4"},
    ),
    *(
        case("lightningdit", f"lightningdit{kind}", backwards, classes=6, null=6, spare=("y_embedder",))
        for kind in ("", "_noshift", "_layer")
    ),
    case("dico", "dico", steps(1000), classes=6, null=6),
    *(
        case(
            "edm", name, sigmas, options=OPTIONS[name] | NULL, classes=5, null=5, spare=("map_label", "map_augment", "map_noise"),
            needed={"precond": 'precond="edm"'} | (SIGMA_DATA if "sigma_data" in OPTIONS[name] else {}),
        )
        for name in ("edm", "edm_ve", "edm_adm")
    ),
    case("edm2", "edm2", sigmas, options=OPTIONS["edm2"] | NULL, classes=5, null=5, spare=("unet.emb_label", "logvar"), needed=SIGMA_DATA),
]  # fmt: skip
