"""The plan of an examination: every setting that its numbers depend on, checked against model and bank before anything is computed."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from scorescope.denoiser import Denoiser, on_linear_axis
from scorescope.errors import InputError
from scorescope.files import write_json
from scorescope.probes import StateProbe, WholeProbe, chosen
from scorescope.rows import Bank
from scorescope.sampler import METHODS

MINIMUM_TIME = 1e-3


@dataclass(frozen=True)
class Sizes:
    """How much to measure.

    Attributes:
        paths: Training pairs, and sampling trajectories a model; the trajectories' ends are the samples.
        times: Linear timesteps, evenly spaced, the last one at pure noise.
        origins: Training rows that are noised and denoised (return to origin), at 21 times each.
        nulls: Real rows that are looked up among the others.
    """

    paths: int = 100
    times: int = 50
    origins: int = 50
    nulls: int = 200

    def __post_init__(self) -> None:
        for name, least in (("paths", 2), ("times", 2), ("origins", 1), ("nulls", 1)):
            if getattr(self, name) < least:
                raise InputError(f"{name} must be at least {least}, got {getattr(self, name)}")


@dataclass(frozen=True)
class Plan:
    """What will be measured; `settings` is what a continued run must share."""

    models: dict[str, Denoiser]
    probes: list[StateProbe | WholeProbe]
    classes: list[int]
    times: np.ndarray
    sizes: Sizes
    settings: dict[str, Any]
    warnings: list[str]
    not_judged: list[tuple[str, str]]

    @property
    def labelled(self) -> bool:
        """Whether states carry a class."""
        return bool(self.classes)


def fingerprint(model: Denoiser) -> str:
    """A hash of the weights inside a model, or of its type where it has none: tells two models apart when a run is continued."""
    digest = hashlib.sha256(type(model).__qualname__.encode())
    bank = getattr(model, "bank", None)
    if isinstance(bank, Bank):
        digest.update(bank.fingerprint.encode())
    for module in model.modules():
        for name, value in sorted(torch.nn.Module.state_dict(module).items()):
            if isinstance(value, torch.Tensor):
                digest.update(name.encode())
                digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _named(models: Denoiser | Sequence[Denoiser]) -> dict[str, Denoiser]:
    several = [models] if isinstance(models, Denoiser) else list(models)
    if not several:
        raise InputError("there is no model to examine", "one model, or several")
    named: dict[str, Denoiser] = {}
    for model in several:
        if not isinstance(model, Denoiser):
            raise InputError(
                f"{type(model).__name__} is not a Denoiser", "ss.NetworkDenoiser(net, schedule, prediction=…), or a subclass of ss.Denoiser"
            )
        name, number = model.name, 2
        while name in named:
            name, number = f"{model.name} ({number})", number + 1
        named[name] = model
    return named


def make(
    models: Denoiser | Sequence[Denoiser],
    bank: Bank,
    *,
    probes: Sequence[str] | None,
    seed: int,
    sizes: Sizes,
    labels: str | Sequence[int],
    tolerance: float,
    solver: str,
    steps: int,
    shared_states: str | None,
    device: str,
) -> Plan:
    """The plan, or one clear error about what does not fit."""
    if solver not in METHODS:
        from scorescope.errors import unknown

        raise unknown("solver", solver, METHODS)
    named, warnings, not_judged = _named(models), list[str](), list[tuple[str, str]]()
    for name, model in named.items():
        if model.shape is not None and model.shape != bank.shape:
            raise InputError(
                f"{name} takes states of shape {model.shape}, but the bank's rows have shape {bank.shape}",
                "the bank that the model was trained on",
            )
        trained = model.about.get("bank", {}).get("fingerprint")
        if trained and trained != bank.fingerprint:
            warnings.append(
                f"{name} was trained on another bank ({trained[:12]}) than the one it is examined on ({bank.fingerprint[:12]})."
            )
    if shared_states is not None and shared_states not in named:
        from scorescope.errors import unknown

        raise unknown("model for shared states", shared_states, named)
    classes = _classes(named, bank, labels, warnings)
    picked = []
    for probe in chosen(probes):
        lacking = [name for name, model in named.items() if not model.has_null]
        if isinstance(probe, StateProbe) and probe.needs_guidance and (not classes or lacking):
            reason = f"{', '.join(lacking)} has no unconditional prediction" if classes else "the models are not asked for classes"
            not_judged.append((probe.name, reason))
        else:
            picked.append(probe)
    warnings += _about_bank(bank)
    settings = {
        "models": {name: fingerprint(model) for name, model in named.items()},
        "bank": bank.fingerprint,
        "probes": [probe.name for probe in picked],
        "seed": seed,
        "sizes": vars(sizes),
        "labels": classes,
        "tolerance": tolerance,
        "solver": solver,
        "steps": steps if solver != "dopri5" else None,
        "shared_states": shared_states,
        "device": torch.device(device).type,
    }
    return Plan(named, picked, classes, _times(named, sizes.times, warnings), sizes, settings, warnings, not_judged)


def _classes(models: dict[str, Denoiser], bank: Bank, labels: str | Sequence[int], warnings: list[str]) -> list[int]:
    """The classes that states are given; empty for an unconditional examination."""
    least = min(model.classes for model in models.values())
    if isinstance(labels, str):
        if labels not in ("auto", "none"):
            raise InputError(f"labels {labels!r} is neither auto, none nor class numbers", "--labels auto")
        if labels == "none" or not least or bank.labels is None:
            lacking = [name for name, model in models.items() if not model.has_null]
            if lacking:
                why = (
                    "labels are switched off"
                    if labels == "none"
                    else "the bank has no labels"
                    if bank.labels is None
                    else "another model has no classes"
                )
                raise InputError(
                    f"{', '.join(lacking)} needs class labels, but {why}", "a bank built with labels, or a model with a null label"
                )
            if labels == "auto" and least:
                warnings.append("The models are class-conditional but the bank has no labels: they are examined without labels.")
            return []
        wanted = np.unique(bank.labels).tolist()
        if max(wanted) >= least:
            raise InputError(
                f"the bank has label {max(wanted)}, outside the model's classes 0 to {least - 1}", "the bank that the model was trained on"
            )
        return [int(label) for label in wanted]
    for label in labels:
        if not 0 <= int(label) < least:
            raise InputError(
                f"label {label} is outside the model's classes" + (f" 0 to {least - 1}" if least else " (it has none)"), "--labels auto"
            )
        bank.indices(int(label))
    return [int(label) for label in labels]


def _times(models: dict[str, Denoiser], count: int, warnings: list[str]) -> np.ndarray:
    """Even times up to pure noise on the paper's axis, those that every model's schedule covers."""
    ranges = [on_linear_axis(model).linear_range for model in models.values()]
    first, last = max(MINIMUM_TIME, *(low for low, _ in ranges)), min(high for _, high in ranges)
    times = np.arange(1, count + 1) / count
    kept = times[(times >= first) & (times <= last)]
    if len(kept) < 2:
        raise InputError(f"the models' schedules cover only t from {first:g} to {last:g}", "more --times")
    if len(kept) < count - 1:
        warnings.append(f"The models' schedules cover the linear times {first:.4g} to {last:.4g}; others are left out.")
    return kept


def _about_bank(bank: Bank) -> list[str]:
    """What the bank's build warned of; for a bank in memory, what would matter most."""
    if "cautions" in bank.manifest:
        return [f"Bank: {caution}" for caution in bank.manifest["cautions"]]
    if len(bank.rows) == 1:
        return ["Bank: it has a single row, so every posterior mean is that row."]
    return ["Bank: it is constant, all rows are the same."] if bank.radius == 0 else []


def claim(folder: Path, plan: Plan, force: bool) -> bool:
    """Make `folder` this run's; returns whether an earlier start is continued.

    Raises:
        InputError: The folder holds a run with other settings (they are named), or something else, and `force` is not given.
    """
    path = folder / "plan.json"
    if path.exists():
        known = json.loads(path.read_text())
        differing = [key for key in plan.settings if json.loads(json.dumps(plan.settings[key])) != known.get(key)]
        if not differing:
            return True
        if not force:
            raise InputError(
                f"{folder} holds a run with other settings ({', '.join(differing)} differ)", "another --out, or --force to replace it"
            )
        _clear(folder)
    elif folder.is_dir() and any(folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no examination", "another --out")
    folder.mkdir(parents=True, exist_ok=True)
    write_json(path, plan.settings)
    return False


def _clear(folder: Path) -> None:
    import shutil

    for name in ("plan.json", "results.nc", "report.html"):
        (folder / name).unlink(missing_ok=True)
    for name in ("states", "cells", "charts"):
        shutil.rmtree(folder / name, ignore_errors=True)
