"""The microscope while training: the same measurements as `scorescope examine`, on a few fixed paths, every so many steps.

Supervision states are training pairs that never change. Extrapolation states are trajectories of the EMA network as it is then, from
noise that never changes. Both are paths 0, 1, … of an examination with the same seed, so the numbers are the ones it would give.

`watch.nc` in the run's folder, in the variables of `results`, gets a point on its dimension `step` for every look; a run that continues
writes on without gaps or repeats. With a `tensorboard` writer the means go there, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from torch import Tensor

from scorescope import __version__, regions, results
from scorescope.denoiser import Denoiser, Label, NetworkDenoiser, on_linear_axis
from scorescope.empirical import EmpiricalScore, Posterior
from scorescope.errors import InputError
from scorescope.measure import measure
from scorescope.probes import memorization, relative_distance, score_error, supervision_loss
from scorescope.regions import States
from scorescope.rows import Bank
from scorescope.rows.hold_out import check_held_out
from scorescope.sampler import Solver, start_time, trajectory
from scorescope.statistics import integrated_error
from scorescope.theories.gaussian import GaussianScore
from scorescope.training.loop import Snapshot
from scorescope.training.recipe import Recipe

PATHS, TIMES, STEPS = 8, 10, 16  # paths of each region, times on each, steps of Heun's method: what a look costs
FILE = "watch.nc"
PROBES = (score_error.PROBE, supervision_loss.PROBE, relative_distance.PROBE)
QUANTILES = (0.1, 0.5, 0.9)
COPY = 1 / 3  # of the nearest over the second-nearest distance; below it a sample counts as a copy


class Microscope:
    """A watcher for `scorescope.training.loop.train`.

    Args:
        bank: The training set. The network is held against the exact score that its recipe is to learn: D_score's, where that is a part.
        recipe: Of the run.
        every: Steps between two looks.
        device: Of the network.
        memory: Bytes for the bank's rows, as `EmpiricalScore` takes it.
        held_out: Rows that training never sees, or None: the same is asked of them.
        tensorboard: Folder for TensorBoard, or None.

    Attributes:
        said: The last look in a few words.

    Raises:
        InputError: `tensorboard` is wanted and not installed.
    """

    def __init__(
        self,
        bank: Bank,
        recipe: Recipe[Any, Any],
        every: int,
        device: str = "cpu",
        memory: int | None = None,
        held_out: Bank | None = None,
        tensorboard: Path | None = None,
    ) -> None:
        classes = list(range(bank.classes)) if bank.labels is not None else []
        if held_out is not None:
            check_held_out(bank, held_out, np.unique(bank.labels).tolist() if bank.labels is not None else ())
        bank = recipe.learned(bank)
        self.bank, self.recipe, self.every, self.device, self.said = bank, recipe, every, device, ""
        self.truth = Remembered(EmpiricalScore(bank, device=device, memory=memory))
        interpolant = recipe.interpolant
        last = start_time(NetworkDenoiser(torch.nn.Identity(), interpolant.path, interpolant.prediction))
        self.times = np.minimum(np.arange(1, TIMES + 1) / TIMES, last)
        self.labels = regions.path_labels(classes, PATHS)
        pairs = regions.supervision(bank, PATHS, recipe.seed, classes)
        self.source = pairs.to(device)
        self.unseen = None if held_out is None else regions.held_out(held_out, pairs, recipe.seed).to(device)
        self.baseline = RememberedBaseline(bank, device=device)
        self._writer = None if tensorboard is None else _writer(tensorboard)

    def __call__(self, snapshot: Snapshot) -> None:
        """One look at the EMA network."""
        with torch.inference_mode():
            found = self.look(snapshot.network)
        file = snapshot.folder / FILE
        point = found.expand_dims(step=[snapshot.step]).assign(loss=("step", [snapshot.loss]))
        if file.exists():
            before = results.load(file)
            point = xr.concat([before.sel(step=before["step"] < snapshot.step), point], "step", combine_attrs="drop")
        results.save(results.with_provenance(point, self._provenance()), file)
        numbers = summary(found)
        self.said = f"supervision loss {numbers['supervision_loss']:.4f}, error off the shells {numbers['extrapolated_error']:.3g}"
        if "held_out_dsm_loss" in numbers:
            self.said += f", denoising loss {numbers['dsm_loss']:.4f}, on held-out rows {numbers['held_out_dsm_loss']:.4f}"
        if self._writer is not None:
            for name, value in ({"loss": snapshot.loss} | numbers).items():
                self._writer.add_scalar(name, value, snapshot.step)
            self._writer.flush()

    def look(self, network: torch.nn.Module) -> xr.Dataset:
        """All measurements of a network, in the variables of `results` without the dimension `model`."""
        model = on_linear_axis(self._denoiser(network))
        labels = self.labels if model.classes else None
        begin = start_time(model)
        noise = begin * regions.noise(self.recipe.seed, PATHS, self.bank.shape, "path").to(self.device)
        asked = [0.0, *self.times.tolist()]
        along = trajectory(model, noise, asked, labels, start=begin, solver=Solver("heun", STEPS), seed=self.recipe.seed)
        states = [States("extrapolation", self.times, labels, along=lambda k: along[:, k + 1])]
        for region, source in (("supervision", self.source), ("held-out", self.unseen)):
            if source is not None:
                states.append(States.noised(region, self.times, source if model.classes else replace(source, label=None)))
        found = measure(model, self.truth, states, PROBES, self.baseline)
        near = memorization.nearest(self.bank, along[:, 0])
        return found.assign({name: ("path", near[name]) for name in ("ratio_second", "ratio_calibrated")})

    def _denoiser(self, network: torch.nn.Module) -> Denoiser:
        classes = int(network.config.classes)  # type: ignore[union-attr, arg-type]
        interpolant = self.recipe.interpolant
        shape, null = self.bank.shape, classes or None
        return NetworkDenoiser(
            network, interpolant.path, interpolant.prediction, classes=classes, null_label=null, shape=shape, name="the EMA"
        )

    def _provenance(self) -> dict[str, Any]:
        return {
            "version": __version__, "torch": str(torch.__version__), "recipe": self.recipe.record(), "seed": self.recipe.seed,
            "paths": PATHS, "solver": f"heun, {STEPS} steps", "tolerance": self.truth.score.tolerance,
            "bank": {"name": self.bank.name, "fingerprint": self.bank.fingerprint, "rows": len(self.bank.rows)},
        }  # fmt: skip


class Remembered:
    """An exact score that keeps what it says of training pairs: the same are asked about at every look."""

    def __init__(self, score: EmpiricalScore) -> None:
        self.score, self.posterior, self.trajectory_sweep, self.rows = score, score.posterior, score.trajectory_sweep, score.rows
        self._pairs: dict[bool, list[tuple[int, Posterior]]] = {}

    def supervision_sweep(self, x: Tensor, eps: Tensor, times: Tensor, label: Label = None) -> Iterator[tuple[int, Posterior]]:
        """Of always the same pairs and times, with their classes or without."""
        if (label is None) not in self._pairs:
            self._pairs[label is None] = list(self.score.supervision_sweep(x, eps, times, label))
        return iter(self._pairs[label is None])


class RememberedBaseline(GaussianScore):
    """A baseline that keeps what it says of the states of the first look, of which those of noised rows are asked about at every look."""

    NOT_IDENTITY = (*GaussianScore.NOT_IDENTITY, "said")

    def __init__(self, bank: Bank, device: torch.device | str = "cpu") -> None:
        super().__init__(bank, device=device)
        self.said: list[tuple[Tensor | None, ...]] = []

    def forward(self, z: Tensor, t: Tensor, label: Tensor | None = None) -> Tensor:
        """As of `GaussianScore`."""
        for *asked, mean in self.said:
            if mean is not None and all(_same(one, other) for one, other in zip(asked, (z, t, label), strict=True)):
                return mean.clone()
        mean = super().forward(z, t, label)
        if len(self.said) < TIMES * len(regions.REGIONS):
            self.said.append(tuple(None if x is None else x.clone() for x in (z, t, label, mean)))
        return mean


def _same(one: Tensor | None, other: Tensor | None) -> bool:
    return one is other if one is None or other is None else one.dtype == other.dtype and torch.equal(one, other)


def summary(found: xr.Dataset) -> dict[str, float]:
    """The means of a look that a curve is drawn of; errors and losses are averaged over t from 0.1 to 1."""
    inside, outside, time = found.sel(region="supervision"), found.sel(region="extrapolation"), found["time"].values

    def mean(values: xr.DataArray) -> float:
        return float(np.nanmean(integrated_error(values.transpose("path", "time").values, time)))

    numbers = {
        "supervision_loss": mean(inside["score_error"]),
        "dsm_loss": mean(inside["dsm_loss"]),
        "dsm_loss_minus_optimum": mean(inside["dsm_loss"] - inside["dsm_optimum"]),
        "extrapolated_error": mean(outside["score_error"]),
        "gaussian_error": mean(inside["gaussian_error"]),
        "memorized_share": float((found["ratio_second"] < COPY).mean()),
    }
    if "held-out" in found["region"].values:
        numbers["held_out_dsm_loss"] = mean(found["dsm_loss"].sel(region="held-out"))
    return numbers | {f"r_star_{int(100 * q)}": float(outside["r_star"].quantile(q)) for q in QUANTILES}


def _writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as missing:
        raise InputError("--tensorboard needs tensorboard, which is not installed", "pip install tensorboard") from missing
    return SummaryWriter(str(folder))
