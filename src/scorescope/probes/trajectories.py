"""A few sampling trajectories that can be looked at: the state, the model's mean and the exact mean at every time."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
import xarray as xr

from scorescope.probes.base import ROW, Arrays, StateProbe, Variable, View

SHOWN = 4  # paths


def measure(view: View) -> Arrays:
    """The first few paths' pictures."""
    pictures = {"scrub_state": view.z, "scrub_model_mean": view.model_mean, "scrub_truth_mean": view.truth.conditional.mean}
    found = {name: value[:SHOWN].float() for name, value in pictures.items()}
    return found | {"scrub_path": torch.arange(min(SHOWN, len(view.z)))}


def rows(results: xr.Dataset) -> Sequence[np.ndarray]:
    """The nearest row of each picture, where it is known."""
    if "top_index" not in results or "scrub_path" not in results:
        return ()
    return [results["top_index"].sel(region="extrapolation").isel(path=results["scrub_path"].values).values]


def _picture(of: str) -> Variable:
    return Variable(of, "data units", ("scrub", "time", ROW), "float32")


PROBE = StateProbe(
    "trajectories",
    "a few trajectories to look at",
    {
        "scrub_state": _picture("state of a trajectory"),
        "scrub_model_mean": _picture("the model's posterior mean there"),
        "scrub_truth_mean": _picture("the exact posterior mean there"),
        "scrub_path": Variable("which path", "path", ("scrub",), "int64", of_bank=True),
    },
    measure,
    regions=("extrapolation",),
    rows=rows,
)
