"""A plan held against models and bank before anything is computed: what fits is prepared, what does not is one clear error."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from scorescope.denoiser import Denoiser, on_linear_axis
from scorescope.errors import InputError, unknown
from scorescope.identity import identity_or_token
from scorescope.plan import Plan
from scorescope.probes import StateProbe, WholeProbe, chosen
from scorescope.rows import Bank
from scorescope.rows.hold_out import check_held_out
from scorescope.sampler import PURE, start_time

MINIMUM_TIME = 1e-3
COPIER = "copier_row"  # needs that a copier's path from the same noise means something
SMALL_TIMES = (0.01, 0.02, 0.05, 0.1, 0.2)  # where integrals of the score error may begin


@dataclass(frozen=True)
class Prepared:
    """What will be measured.

    Attributes:
        plan: As asked for.
        bank: The training set.
        held_out: Rows of the same kind that training never saw, or None.
        models: By name.
        probes: Those that can be measured.
        classes: That states are given; empty for an unconditional examination.
        times: (T,) linear times.
        settings: What a continued run must share.
        warnings: Sentences.
        not_measured: For each variable that can't be measured, why.
        samples_only: Whether some model's target is not E[x | z_t], so that states and samples alone are measured.
    """

    plan: Plan
    bank: Bank
    held_out: Bank | None
    models: dict[str, Denoiser]
    probes: list[StateProbe | WholeProbe]
    classes: list[int]
    times: np.ndarray
    settings: dict[str, Any]
    warnings: list[str]
    not_measured: dict[str, str]
    samples_only: bool


def prepare(plan: Plan, models: Denoiser | Sequence[Denoiser], bank: Bank, device: str, held_out: Bank | None = None) -> Prepared:
    """The plan, held against models, bank and held-out rows.

    Raises:
        InputError: Anything that does not fit.
    """
    plan.validate()
    named, warnings = _named(models), list[str]()
    for name, model in named.items():
        warnings += _misfit(name, model, bank)
    if plan.shared_states is not None and plan.shared_states not in named:
        raise unknown("model for shared states", plan.shared_states, named)
    classes = _classes(named, bank, plan, warnings)
    if held_out is not None:
        check_held_out(bank, held_out, classes)
    picked, not_measured = list[StateProbe | WholeProbe](), dict[str, str]()
    lacking = [name for name, model in named.items() if not model.has_null]
    alone = {name: model.samples_only for name, model in named.items() if model.samples_only}
    other = f"the target is not E[x | z_t] ({'; '.join(f'{name}: {why}' for name, why in alone.items())})"
    for probe in chosen(plan.probes):
        if alone and not probe.of_states and not (isinstance(probe, WholeProbe) and probe.of_bank):
            not_measured |= dict.fromkeys(probe.variables, other)
        elif isinstance(probe, StateProbe) and probe.needs_guidance and (not classes or lacking):
            reason = f"{', '.join(lacking)} has no unconditional prediction" if classes else "the models are not asked for classes"
            not_measured |= dict.fromkeys(probe.variables, reason)
        else:
            picked.append(probe)
    if alone and not picked:
        raise InputError(
            f"nothing of {', '.join(plan.probes)} can be measured: {other}",
            "memorization or relative-distance, which look at samples and states",
        )
    if alone and any(COPIER in probe.variables for probe in picked):
        not_measured[COPIER] = other
    identities = {name: identity_or_token(model) for name, model in named.items()}
    warnings += [f"{name}: {why}." for name, (_, why) in identities.items() if why]
    settings = {
        "models": {name: identity for name, (identity, _) in identities.items()},
        "bank": bank.fingerprint,
        "held_out": None if held_out is None else held_out.fingerprint,
        **plan.settings(),
        "probes": [probe.name for probe in picked],
        **({"samples_only": alone} if alone else {}),
        "labels": classes,
        "device": torch.device(device).type,
    }
    times = _times(named, plan.times, warnings)
    warnings += [
        f"The noise of {name} ends at t = {start:.2f}, where its states still show the data: its paths start from training rows noised to "
        "there. What lies above, and whether its samples are new, is not judged."
        for name, start in ((name, start_time(model)) for name, model in named.items())
        if start < PURE
    ]
    return Prepared(
        plan, bank, held_out, named, picked, classes, times, settings, [*warnings, *about_bank(bank)], not_measured, bool(alone)
    )


def _named(models: Denoiser | Sequence[Denoiser]) -> dict[str, Denoiser]:
    several = [models] if isinstance(models, Denoiser) or not isinstance(models, (list, tuple)) else list(models)
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


def _misfit(name: str, model: Denoiser, bank: Bank) -> list[str]:
    """What to warn of where the bank seems to be another one; an error where it can't be the right one."""
    if model.shape is not None and model.shape != bank.shape:
        raise InputError(
            f"{name} takes states of shape {model.shape}, but the bank's rows have shape {bank.shape}",
            "the bank that the model was trained on",
        )
    wanted = model.about.get("latents")
    if wanted and bank.rows.dtype == np.uint8:
        told = ", ".join(f"{key} {value}" for key, value in wanted.items() if key != "encoder")
        return [f"{name} was trained on latents of {wanted['encoder']} ({told}), and the bank holds 8-bit pixels."]
    shown = model.about.get("bank", {}).get("fingerprint")
    learned = model.about.get("learned", {}).get("fingerprint") or shown
    if not learned or learned == bank.fingerprint:
        return []
    if shown == bank.fingerprint:
        return [f"{name} was taught the score of a part of this bank ({learned[:12]}), not that of all its rows."]
    return [f"{name} was trained on another bank ({learned[:12]}) than the one it is examined on ({bank.fingerprint[:12]})."]


def _classes(models: dict[str, Denoiser], bank: Bank, plan: Plan, warnings: list[str]) -> list[int]:
    """The classes that states are given; empty for an unconditional examination."""
    least, asked = min(model.classes for model in models.values()), plan.classes()
    if asked is not None:
        for label in asked:
            if not label < least:
                known = f" 0 to {least - 1}" if least else " (it has none)"
                raise InputError(f"label {label} is outside the model's classes{known}", "--labels auto")
            bank.indices(label)
        return asked
    if plan.labels == ("auto",) and least and bank.labels is not None:
        wanted = [int(label) for label in np.unique(bank.labels)]
        if wanted[-1] >= least:
            raise InputError(
                f"the bank has label {wanted[-1]}, outside the model's classes 0 to {least - 1}", "the bank that the model was trained on"
            )
        return wanted
    lacking = [name for name, model in models.items() if not model.has_null]
    if lacking:
        why = (
            "labels are switched off"
            if plan.labels == ("none",)
            else "the bank has no labels"
            if bank.labels is None
            else "another model has no classes"
        )
        raise InputError(f"{', '.join(lacking)} needs class labels, but {why}", "a bank built with labels, or a model with a null label")
    if plan.labels == ("auto",) and least:
        warnings.append("The models are class-conditional but the bank has no labels: they are examined without labels.")
    return []


def _times(models: dict[str, Denoiser], count: int, warnings: list[str]) -> np.ndarray:
    """Even times up to pure noise on the paper's axis, and `SMALL_TIMES`: those that every model's schedule covers."""
    ranges = [on_linear_axis(model).linear_range for model in models.values()]
    first, last = max(MINIMUM_TIME, *(low for low, _ in ranges)), min(high for _, high in ranges)
    times = np.unique(np.round([*(np.arange(1, count + 1) / count), *SMALL_TIMES], 12))
    kept = times[(times >= first) & (times <= last)]
    if len(kept) < 2:
        raise InputError(f"the models' schedules cover only t from {first:g} to {last:g}", "more --times")
    if len(kept) < len(times) - 1:
        warnings.append(f"The models' schedules cover the linear times {first:.4g} to {last:.4g}; others are left out.")
    return kept


def about_bank(bank: Bank) -> list[str]:
    """What the bank's build warned of; for a bank in memory, what would matter most."""
    if "cautions" in bank.manifest:
        return [f"Bank: {caution}" for caution in bank.manifest["cautions"]]
    if len(bank.rows) == 1:
        return ["Bank: it has a single row, so every posterior mean is that row."]
    return ["Bank: it is constant, all rows are the same."] if bank.radius == 0 else []
