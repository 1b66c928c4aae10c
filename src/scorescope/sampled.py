"""Finished samples without their model: which rows they lie near, whether they copy, and whether their values are the rows'."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import torch
import xarray as xr

from scorescope.errors import InputError
from scorescope.measure import as_dataset, together
from scorescope.plan import Plan
from scorescope.probes import all_probes, memorization
from scorescope.results import image_dims
from scorescope.rows import Bank
from scorescope.search import groups

NEEDS = "it needs the model"
OF_BANK = "it tells of the bank alone, and is measured when a model is examined"
OPTIONS = ("nulls", "seed", "probes")  # of a plan, which mean something here
PICTURES = 1 << 25  # values of pictures that are all kept; of more, the first four and the most suspicious
SUSPICIOUS = 1000
BATCH = 1024  # samples that are looked up together
SPILL = 0.01  # share of values outside the rows' range that is warned of: models in use have less than 0.001


def check(samples: Bank, bank: Bank, plan: Plan, base: Plan) -> None:
    """Refuse what can't be examined without a model, before anything is written.

    Args:
        samples: Of the bank's shape.
        bank: What they are held against.
        plan: As asked for.
        base: The preset that it came from.
    """
    plan.validate()
    asked = [name for name in vars(plan) if name not in OPTIONS and getattr(plan, name) != getattr(base, name)]
    if asked:
        raise InputError(f"{asked[0]} means nothing for finished samples, which are not drawn again", f"leaving it out, or {OPTIONS[0]}")
    other = [name for name in plan.probes if name != memorization.PROBE.name]
    if other:
        raise InputError(f"the probe {other[0]} of finished samples can't be measured: {NEEDS}", f"--probes {memorization.PROBE.name}")
    if samples.rows.dtype == np.uint8 and bank.rows.dtype != np.uint8:
        said = f"{samples.name} holds 8-bit values, but {bank.name} holds {bank.rows.dtype}: what 0 and 255 stand for is unknown"
        raise InputError(said, "samples as floats in the bank's model space, in an .npy file")


def measure_samples(samples: Bank, bank: Bank, plan: Plan, device: torch.device, tick: Callable[[int], None]) -> xr.Dataset:
    """The variables of `memorization` that need no model, and the samples themselves, for one model of the samples' name."""
    parts, n = [], len(samples.rows)
    for start in range(0, n, BATCH):
        x = samples[np.arange(start, min(start + BATCH, n))].to(device)
        parts.append(memorization.nearest(bank, x))
        tick(len(x))
    found: Mapping[str, Any] = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    found = {**found, **memorization.null(bank, plan.sizes["nulls"], plan.seed, device)}
    measured = together(memorization.PROBE, {samples.name: as_dataset(memorization.PROBE, found)})
    shown = np.arange(n)
    if n * samples.d > PICTURES:
        shown = np.union1d(shown[:4], np.argsort(measured["ratio_second"].values[0], kind="stable")[:SUSPICIOUS])
    pictures = np.full((1, n, *samples.shape), np.nan, np.float32)
    pictures[0, shown] = samples[shown].numpy()
    data: dict[str, Any] = {"sample": (("model", "path", *image_dims(samples.shape)), pictures)}
    if samples.names is not None:
        data["sample_name"] = (("path",), np.array(samples.names, dtype=object))
    return measured.merge(xr.Dataset(data), combine_attrs="override").assign_coords(path=np.arange(n))


def not_measured() -> dict[str, str]:
    """Why the variables of all other probes are missing."""
    others = [probe for probe in all_probes().values() if probe is not memorization.PROBE]
    reasons = {name: OF_BANK if getattr(probe, "of_bank", False) else NEEDS for probe in others for name in probe.variables}
    return {**reasons, "copier_row": NEEDS}


def warnings(measured: xr.Dataset, samples: Bank, bank: Bank) -> list[str]:
    """What the range of the samples' values says against them."""
    found, close = [], groups.closeness(bank)
    low, high = close.low, close.high
    said = f"the rows of {bank.name} go from {low:.3g} to {high:.3g}".replace("-", "−")
    outside = float(measured["sample_outside"].mean())
    if outside > SPILL:
        found.append(f"{100 * outside:.2g} % of the samples' values are outside the rows' range by more than a tenth of it: {said}.")
    least = min(float(block.x.min()) for block in samples.blocks(BATCH))
    if least >= (low + high) / 2:
        found.append(f"No value of the samples is below {least:.3g}, while {said}: they may be in another range, as [0, 1] for [−1, 1].")
    return found
