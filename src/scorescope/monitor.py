"""The microscope while training: the same measurements as `scorescope examine`, on a few fixed paths, every so many steps.

Supervision states are training pairs that never change. Extrapolation states are trajectories of the EMA network as it is then, from
noise that never changes. Both are paths 0, 1, … of an examination with the same seed, so the numbers are the ones it would give.

`results.nc` in the run's folder gets a point on its dimension `step` for every look; a run that continues writes on without gaps or
repeats. With a `tensorboard` writer the means go there, too.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import torch
import xarray as xr

from scorescope import __version__, regions, results
from scorescope.denoiser import Denoiser, NetworkDenoiser, on_linear_axis
from scorescope.empirical import EmpiricalScore
from scorescope.errors import InputError
from scorescope.probes import memorization, relative_distance, score_error, supervision_loss
from scorescope.probes.base import View
from scorescope.rows import Bank
from scorescope.sampler import start_time, trajectory
from scorescope.search import neighbours
from scorescope.training.loop import Snapshot
from scorescope.training.recipe import Recipe

PATHS, TIMES, STEPS = 8, 9, 16  # paths of each region, times on each, steps of Heun's method: what a look costs
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
        tensorboard: Path | None = None,
    ) -> None:
        bank = recipe.learned(bank)
        self.bank, self.recipe, self.every, self.device, self.said = bank, recipe, every, device, ""
        self.truth = EmpiricalScore(bank, device=device, memory=memory)
        interpolant = recipe.interpolant
        last = start_time(NetworkDenoiser(torch.nn.Identity(), interpolant.path, interpolant.prediction))
        self.times = np.minimum(np.arange(1, TIMES + 1) / TIMES, last)
        classes = list(range(bank.classes)) if bank.labels is not None else []
        self.labels = regions.path_labels(classes, PATHS)
        self.source = regions.supervision(bank, PATHS, recipe.seed, classes).to(device)
        self._exact: dict[int, Any] = {}
        self._writer = None if tensorboard is None else _writer(tensorboard)

    def __call__(self, snapshot: Snapshot) -> None:
        """One look at the EMA network."""
        with torch.inference_mode():
            found = self.look(snapshot.network)
        file = snapshot.folder / "results.nc"
        point = found.expand_dims(step=[snapshot.step]).assign(loss=("step", [snapshot.loss]))
        if file.exists():
            before = results.load(file)
            point = xr.concat([before.sel(step=before["step"] < snapshot.step), point], "step", combine_attrs="drop")
        results.save(results.with_provenance(point, self._provenance()), file)
        numbers = summary(found)
        self.said = f"supervision loss {numbers['supervision_loss']:.4f}, error off the shells {numbers['extrapolated_error']:.3g}"
        if self._writer is not None:
            for name, value in ({"loss": snapshot.loss} | numbers).items():
                self._writer.add_scalar(name, value, snapshot.step)
            self._writer.flush()

    def look(self, network: torch.nn.Module) -> xr.Dataset:
        """All measurements of a network, in the variables of `results` without the dimension `model`."""
        model = on_linear_axis(self._denoiser(network))
        ends, states = self._trajectories(model)
        inside, outside = self._supervision(model), self._extrapolation(model, states)
        names = inside[0].keys() | outside[0].keys()
        data: dict[str, Any] = {}
        for name in sorted(names):
            stacked = [
                np.stack([cell[name] for cell in cells], 1) if name in cells[0] else np.full((PATHS, TIMES), np.nan)
                for cells in (inside, outside)
            ]
            data[name] = (("region", "path", "time"), np.stack(stacked))
        _, distance = neighbours(self.bank, ends, memorization.NEAREST)
        second, calibrated = memorization.ratios(distance.cpu())
        data |= {"ratio_second": (("path",), second), "ratio_calibrated": (("path",), calibrated)}
        return xr.Dataset(data, coords={"region": ["supervision", "extrapolation"], "time": self.times})

    def _denoiser(self, network: torch.nn.Module) -> Denoiser:
        classes = int(network.config.classes)  # type: ignore[union-attr, arg-type]
        interpolant = self.recipe.interpolant
        shape, null = self.bank.shape, classes or None
        return NetworkDenoiser(
            network, interpolant.path, interpolant.prediction, classes=classes, null_label=null, shape=shape, name="the EMA"
        )

    def _trajectories(self, model: Denoiser) -> tuple[torch.Tensor, torch.Tensor]:
        """Finished samples (P, *shape) and the states (P, T, *shape) before them."""
        begin = start_time(model)
        noise = begin * regions.noise(self.recipe.seed, PATHS, self.bank.shape, "path").to(self.device)
        asked = [0.0, *self.times.tolist()]
        labels = self.labels if model.classes else None
        states = trajectory(model, noise, asked, labels, start=begin, method="heun", steps=STEPS, seed=self.recipe.seed)
        return states[:, 0], states[:, 1:]

    def _supervision(self, model: Denoiser) -> list[dict[str, np.ndarray]]:
        """The cells of the training pairs, time by time; their exact posteriors are found once."""
        label = self.source.label if model.classes else None
        if not self._exact:
            self._exact = dict(
                self._posteriors(lambda tag: self.truth.supervision_sweep(self.source.x, self.source.eps, self._at, tag), label)
            )
        views = (
            View("supervision", float(t), self.source.at(float(t)), label, model, self._exact[k], self.source)
            for k, t in enumerate(self.times)
        )
        return [self._cell(view, (score_error.PROBE, supervision_loss.PROBE, relative_distance.PROBE)) for view in views]

    def _extrapolation(self, model: Denoiser, states: torch.Tensor) -> list[dict[str, np.ndarray]]:
        """The cells of the trajectories."""
        label = self.labels if model.classes else None
        exact = dict(self._posteriors(lambda tag: self.truth.trajectory_sweep(states, self._at, tag), label))
        views = (View("extrapolation", float(t), states[:, k], label, model, exact[k], None) for k, t in enumerate(self.times))
        return [self._cell(view, (score_error.PROBE, relative_distance.PROBE)) for view in views]

    @property
    def _at(self) -> torch.Tensor:
        return torch.from_numpy(self.times)

    def _posteriors(self, sweep: Any, label: torch.Tensor | None) -> Iterator[tuple[int, Any]]:
        """What a view wants to know exactly, for every time."""
        whole = dict(sweep(None))
        conditional = whole if label is None else dict(sweep(label))
        for k in whole:
            yield k, SimpleNamespace(whole=whole[k], conditional=conditional[k], score=self.truth)

    @staticmethod
    def _cell(view: View, probes: Any) -> dict[str, np.ndarray]:
        return {name: value.cpu().numpy() for probe in probes for name, value in probe.measure(view).items()}

    def _provenance(self) -> dict[str, Any]:
        return {
            "version": __version__, "torch": str(torch.__version__), "recipe": self.recipe.record(), "seed": self.recipe.seed,
            "paths": PATHS, "solver": f"heun, {STEPS} steps", "tolerance": self.truth.tolerance,
            "bank": {"name": self.bank.name, "fingerprint": self.bank.fingerprint, "rows": len(self.bank.rows)},
        }  # fmt: skip


def summary(found: xr.Dataset) -> dict[str, float]:
    """The means of a look that a curve is drawn of."""
    inside, outside = found.sel(region="supervision"), found.sel(region="extrapolation")
    numbers = {
        "supervision_loss": float(inside["score_error"].mean()),
        "dsm_loss_minus_optimum": float((inside["dsm_loss"] - inside["dsm_optimum"]).mean()),
        "extrapolated_error": float(outside["score_error"].mean()),
        "memorized_share": float((found["ratio_second"] < COPY).mean()),
    }
    return numbers | {f"r_star_{int(100 * q)}": float(outside["r_star"].quantile(q)) for q in QUANTILES}


def _writer(folder: Path) -> Any:
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ModuleNotFoundError as missing:
        raise InputError("--tensorboard needs tensorboard, which is not installed", "pip install tensorboard") from missing
    return SummaryWriter(str(folder))
