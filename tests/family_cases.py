"""A case for each outside family of weights: a tiny checkpoint, and what the family's official code answers (tests/data/README.md).

A family without one fails `test_every_family_has_a_case`. Everything in test_family_conformance.py is asked of each of them.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from scorescope.schedule import Schedule
from tests.official import SPREAD, drawn

FILE = Path(__file__).parent / "data" / "official_families.npz"


@dataclass(frozen=True)
class Answers:
    """What official code answers.

    Attributes:
        weights: Of the checkpoint.
        z, t, label: Asked: states, times as that code counts them, and classes or None.
        mean: Posterior means.
        more: Other arrays.
    """

    weights: dict[str, Tensor]
    z: Tensor
    t: Tensor
    label: Tensor | None
    mean: Tensor
    more: dict[str, Tensor]


@dataclass(frozen=True)
class Case:
    """One checkpoint of a family.

    Attributes:
        family: Its name.
        answers: What official code answers.
        time: The house's t (B,) float64 of times as that code counts them, given the model's schedule.
        options: How the checkpoint is read in one line.
        needed: Those of the options without which it is refused, and a pattern of what is then said.
        classes, null: Their number, and the label that stands for none of them.
        spare: What the names of weights begin with that the family can do without.
        alike: Whether it is refused as the case before it is: it is asked for its answers alone.
    """

    family: str
    answers: Callable[[], Answers]
    time: Callable[[Schedule, Tensor], Tensor]
    options: Mapping[str, Any] = field(default_factory=dict)
    needed: Mapping[str, str] = field(default_factory=dict)
    classes: int = 0
    null: int | None = None
    spare: tuple[str, ...] = ()
    alike: bool = False
    name: str = ""


@functools.cache
def official(subject: str, zero: str = "", prefix: str = "") -> Answers:
    """A subject of official_families.npz; the last row of the weights called `zero` is zero, and `prefix` stands before the network's."""
    with np.load(FILE) as opened:
        found = {key.partition("/")[2]: opened[key] for key in opened.files if key.startswith(f"{subject}/")}
    weights = {prefix + name: drawn(name, tuple(shape)) for name, shape in json.loads(str(found.pop("shapes"))).items()}
    weights |= {key[2:]: torch.from_numpy(found.pop(key)) for key in list(found) if key.startswith("b:")}
    if zero:
        weights[zero][-1] = 0.0
    arrays = {key: torch.from_numpy(value) for key, value in found.items()}
    shape, t, mean, label = arrays.pop("shape"), arrays.pop("t").double(), arrays.pop("mean"), arrays.pop("y", None)
    return Answers(weights, drawn("z", tuple(shape.tolist())) / SPREAD, t, label, mean, arrays)


def paper(schedule: Schedule, t: Tensor) -> Tensor:
    """Time as it is here."""
    return t


def backwards(schedule: Schedule, t: Tensor) -> Tensor:
    """Time from noise to data."""
    return 1 - t


def steps(n: int) -> Callable[[Schedule, Tensor], Tensor]:
    """Steps from 0 to n − 1."""
    return lambda schedule, t: (t + 1) / n


def sigmas(schedule: Schedule, t: Tensor) -> Tensor:
    """σ/α."""
    return schedule.time(1 / t)


def case(family: str, subject: str, time: Callable[[Schedule, Tensor], Tensor], *, zero: str = "", prefix: str = "", **given: Any) -> Case:
    """A case of a subject of official_families.npz."""
    return Case(family, lambda: official(subject, zero, prefix), time, name=subject, **given)


HEADS = {"heads": "width 48 does not tell its attention heads"}
TRANSFORMER = {"classes": 6, "null": 6, "needed": {"family": r"dit or repa or sit.*family=\"dit\"", **HEADS}, "spare": ("y_embedder",)}
NAMED = {"process": r'process="ddpm" with schedule=.*"cfm", "otcfm", "si" or "edm"'}
GUIDED = {"order": "legacy", "head_width": 16}
ASKED = NAMED | {"order": 'order="legacy"', "head_width": "head_width=64 or heads=4"}
IMPROVED = {"process": "ddpm", "heads": 4, "order": "legacy", "schedule": "cosine", "steps": 4000, "rescale": 1, "predict": "x"}
EDM = {"process": "edm", "head_width": 16}
LABELS = ("label_emb",)
BUFFERS = ("betas", "alphas_cumprod", "log_one_minus", "sqrt_", "posterior_", "loss_weight")
SDE = {"sde": 'sde="vesde", "vpsde" or "subvpsde"'}
SIT = [
    case(
        "sit", f"sit_{path}_{kind}", backwards, options={"family": "sit", "heads": 3, "path_type": path, "prediction": kind},
        alike=(path, kind) != ("Linear", "velocity"), **TRANSFORMER,
    )
    for path in ("Linear", "GVP", "VP") for kind in ("velocity", "noise", "score")
]  # fmt: skip

CASES: list[Case] = [
    *SIT,
    case("dit", "dit", steps(1000), options={"family": "dit", "heads": 3}, **TRANSFORMER),
    case(
        "repa", "repa_cosine", paper, options={"heads": 3, "path_type": "cosine"}, classes=6, null=6, needed=HEADS,
        spare=("y_embedder", "projectors"),
    ),
    case(
        "adm", "adm_improved", steps(4000), options=IMPROVED,
        needed=NAMED | dict.fromkeys(("heads", "order", "schedule", "rescale"), "does not tell"),
    ),
    case("adm", "adm_cfm", backwards, options=GUIDED | {"process": "cfm"}, needed=ASKED, classes=5, spare=LABELS),
    case("adm", "adm_si", backwards, options=GUIDED | {"process": "si"}, classes=5, alike=True),
    case("adm", "adm_edm", sigmas, options=EDM, needed=NAMED | {"head_width": "head_width=64 or heads=4"}, classes=5, spare=LABELS),
    case(
        "adm", "adm_meta", backwards, zero="label_emb.weight", options={"process": "cfm", "heads": 1, "order": "new"},
        needed={**NAMED, "order": "does not tell order", "heads": "heads=4"}, classes=5, null=5, spare=LABELS,
    ),
    case(
        "ldm", "ldm", steps(20), prefix="model.diffusion_model.", options=GUIDED,
        needed={"order": "order=", "head_width": "head_width=64 or heads=4"}, spare=BUFFERS,
    ),
    case("ddpm", "ddpm", steps(1000)),
    case("lucidrains", "lucidrains_v", steps(50), spare=BUFFERS),
    case("lucidrains", "lucidrains_x", steps(50), alike=True),
    case("lucidrains", "lucidrains_eps", steps(50), spare=BUFFERS),
    case("lucidrains", "lucidrains_classes", steps(50), classes=5, null=5, spare=(*BUFFERS, "classes_emb")),
    case("score_sde", "score_sde_vp", paper, options={"sde": "vpsde"}, needed=SDE, spare=("sigmas",)),
    case("score_sde", "score_sde_subvp", paper, options={"sde": "subvpsde"}, alike=True),
    case("score_sde", "score_sde_ve", paper, options={"sde": "vesde"}, needed=SDE, spare=("sigmas",)),
]  # fmt: skip
