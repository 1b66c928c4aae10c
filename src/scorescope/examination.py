"""The main job: states → measurements → results, in cells that are written as they are done, so that a killed run continues.

    OUT/plan.json                     settings; the same command continues, other settings are refused
    OUT/states/MODEL/paths-*.safetensors   sampling trajectories, a few paths a file
    OUT/cells/…                       one file for each (region, time, model) and each whole probe
    OUT/results.nc  report.html  charts/

Models are asked about the same noise, and about the same states where a region does not depend on the model; then the exact posterior
is computed once for all of them.
"""

from __future__ import annotations

import re
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError, safe_open
from torch import Tensor

from scorescope import __version__, plan, regions, results
from scorescope.denoiser import Denoiser, on_linear_axis
from scorescope.empirical import EmpiricalScore, Posterior
from scorescope.files import replacing, write_tensors
from scorescope.plan import Plan, Sizes
from scorescope.probes import StateProbe, Subject, View, WholeProbe
from scorescope.probes.base import Truths
from scorescope.progress import Board
from scorescope.regions import REGIONS, Noised
from scorescope.rows import Bank
from scorescope.sampler import start_time, trajectory

CHUNK = 32  # paths in one file of states
SCRUBBED = 4  # paths whose states can be looked at


@dataclass
class Run:
    """A finished examination.

    Attributes:
        folder: Where everything lies.
        results: Every number, per state (see `scorescope.results`).
    """

    folder: Path
    results: xr.Dataset

    def report(self, path: str | Path | None = None) -> Path:
        """Write the HTML report; to the run's folder unless a path is given."""
        from scorescope import report

        return report.write(self.results, self.folder / "report.html" if path is None else Path(path))

    def findings(self) -> list[str]:
        """The three main findings in plain words."""
        from scorescope import claims

        return claims.three(self.results)


def examine(
    model: Denoiser | Sequence[Denoiser],
    bank: Bank,
    probes: Sequence[str] | None = None,
    seed: int = 0,
    *,
    paths: int = Sizes.paths,
    times: int = Sizes.times,
    origins: int = Sizes.origins,
    nulls: int = Sizes.nulls,
    labels: str | Sequence[int] = "auto",
    tolerance: float = 1e-4,
    solver: str = "dopri5",
    steps: int = 50,
    shared_states: str | None = None,
    batch: int = 256,
    device: str = "cpu",
    memory: int | None = None,
    out: str | Path | None = None,
    force: bool = False,
    quiet: bool = False,
    command: str = "",
) -> Run:
    """Measure one or several models against the exact empirical score of their training set.

    Args:
        model: A `Denoiser`, or several: then the report compares them.
        bank: What they were trained on.
        probes: Names of probes; all unless given.
        seed: Names every random stream.
        paths, times, origins, nulls: How much to measure (`Sizes`).
        labels: "auto" (the bank's classes where the models have them), "none", or class numbers.
        tolerance: Of the exact posterior means (`EmpiricalScore`).
        solver, steps: How samples are drawn; `steps` for the solvers with fixed steps.
        shared_states: Name of the model whose trajectories all models are asked about; each its own unless given.
        batch: Paths sampled together; changes no number beyond float32 rounding.
        device: Where to compute.
        memory: Bytes for the bank's rows (`EmpiricalScore`).
        out: Folder of the run, continued if it was cut; a temporary one unless given.
        force: Replace another run in `out`.
        quiet: Show no progress.
        command: Recorded in the report.

    Raises:
        InputError: Anything that does not fit, in one line; nothing is written then.
    """
    sizes = Sizes(paths, times, origins, nulls)
    planned = plan.make(
        model, bank, probes=probes, seed=seed, sizes=sizes, labels=labels, tolerance=tolerance, solver=solver, steps=steps,
        shared_states=shared_states, device=device,
    )  # fmt: skip
    folder = Path(tempfile.mkdtemp(prefix="scorescope-") if out is None else out)
    continued = plan.claim(folder, planned, force)
    if continued and (folder / "results.nc").exists():
        return Run(folder, results.load(folder / "results.nc"))
    try:
        with Board(quiet) as board:
            measured = _Job(planned, bank, folder, device, memory, batch, command).run(board, continued)
        results.save(measured, folder / "results.nc")
    except BaseException:
        if out is None:
            shutil.rmtree(folder, ignore_errors=True)
        raise
    run = Run(folder, measured)
    if out is None:
        weakref.finalize(run, shutil.rmtree, folder, ignore_errors=True)
    return run


class _Job:
    """One examination under way."""

    def __init__(self, planned: Plan, bank: Bank, folder: Path, device: str, memory: int | None, batch: int, command: str) -> None:
        self.plan, self.bank, self.folder, self.batch, self.command = planned, bank, folder, batch, command
        self.device, self.seed = torch.device(device), int(planned.settings["seed"])
        self.truth = EmpiricalScore(bank, tolerance=planned.settings["tolerance"], device=device, memory=memory)
        self.models = {name: on_linear_axis(model.to(device)) for name, model in planned.models.items()}
        self.solver = {"method": planned.settings["solver"], "steps": planned.settings["steps"] or 50, "batch": batch}
        self.timings: dict[str, float] = {}
        labels = regions.path_labels(planned.classes, planned.sizes.paths)
        self.labels = None if labels is None else labels.to(self.device)
        self.shared: dict[Any, Any] = {}

    def run(self, board: Board, continued: bool) -> xr.Dataset:
        state_probes = [probe for probe in self.plan.probes if isinstance(probe, StateProbe)]
        whole_probes = [probe for probe in self.plan.probes if isinstance(probe, WholeProbe)]
        bank, sizes = self.bank, self.plan.sizes
        board.say(f"examining {', '.join(self.models)} on {bank.name}: {len(bank):,} rows of {bank.shape}")
        board.say(f"{sizes.paths} paths × {len(self.plan.times)} times, probes {', '.join(probe.name for probe in self.plan.probes)}")
        board.say(f"run folder {self.folder} (killed, the same command continues)")
        if continued:
            board.say(f"continuing: {len(list(self.folder.glob('cells/**/*.n*')))} cells done")
        needs_samples = any(probe.regions != ("supervision",) for probe in state_probes) or any(not probe.of_bank for probe in whole_probes)
        if needs_samples:
            for name in self.models:
                self._sample(board, name)
        parts: list[xr.Dataset] = []
        for region in REGIONS:
            wanted = [probe for probe in state_probes if region in probe.regions]
            if wanted:
                self._measure_region(board, region, wanted)
        if state_probes:
            parts.append(self._collect(state_probes))
        for probe in whole_probes:
            parts.append(self._measure_whole(board, probe))
        if needs_samples:
            parts.append(self._pictures())
        parts.append(self._paths())
        together = xr.merge(parts, join="outer", compat="no_conflicts", combine_attrs="override")
        together = together.merge(self._rows(together), combine_attrs="override")
        return results.with_provenance(together, self._provenance())

    # ---- states -----------------------------------------------------------------------------------------------------------------

    def _states_folder(self, model: str) -> Path:
        return self.folder / "states" / _file_name(model)

    def _owner(self, model: str) -> str:
        """The model whose trajectories `model` is asked about."""
        return self.plan.settings["shared_states"] or model

    def _sample(self, board: Board, name: str) -> None:
        """The trajectories of one model, a file for every `CHUNK` paths; the finished sample is time 0."""
        model, total, begun = self.models[name], self.plan.sizes.paths, time.monotonic()
        grid = [0.0, *self.plan.times.tolist()]
        with board.row(f"sampling {name}", total) as row:
            for first in range(0, total, CHUNK):
                items = list(range(first, min(first + CHUNK, total)))
                path = self._states_folder(name) / f"paths-{first:06d}.safetensors"
                if not _whole(path):
                    start = start_time(model)
                    noise = start * regions.noise(self.seed, total, self.bank.shape, "path")[items].to(self.device)
                    label = None if self.labels is None else self.labels[items]
                    states = trajectory(model, noise, grid, label, start=start, seed=self.seed, items=items, **self.solver)
                    write_tensors(path, {"states": states})
                row(len(items))
        self.timings[f"sampling {name}"] = time.monotonic() - begun

    def _states(self, model: str, k: int) -> Tensor:
        """(P, *shape) states of a model's own paths at time k of the plan; k = −1 gives its finished samples."""
        parts = []
        for path in sorted(self._states_folder(model).glob("paths-*.safetensors")):
            with safe_open(path, framework="pt") as opened:
                parts.append(opened.get_slice("states")[:, k + 1])
        return torch.cat(parts).to(self.device)

    def _source(self, region: str, model: str) -> Noised | None:
        if region == "supervision":
            found = regions.supervision(self.bank, self.plan.sizes.paths, self.seed, self.plan.classes)
        elif region == "renoised":
            found = regions.renoised(self._states(self._owner(model), -1).cpu(), self.labels, self.seed)
        else:
            return None
        return found.to(self.device)

    # ---- measurements at states ---------------------------------------------------------------------------------------------------

    def _cell(self, model: str, region: str, k: int) -> Path:
        return self.folder / "cells" / _file_name(model) / region / f"time-{k:04d}.npz"

    def _measure_region(self, board: Board, region: str, probes: Sequence[StateProbe]) -> None:
        begun, times = time.monotonic(), self.plan.times
        same_states = region == "supervision" or self.plan.settings["shared_states"] is not None
        groups = [list(self.models)] if same_states else [[name] for name in self.models]
        title = f"{region}: {', '.join(probe.name for probe in probes)}"
        with board.row(title, len(times) * len(self.models)) as row:
            for names in groups:
                todo = [k for k in range(len(times)) if not all(self._cell(name, region, k).exists() for name in names)]
                row(len(names) * (len(times) - len(todo)))
                todo.sort(key=lambda k: -times[k])  # from noise to data, as the exact score sweeps
                source = self._source(region, names[0])
                truths = self._truths(self._owner(names[0]), source, todo)
                for step, k in enumerate(todo):
                    t, truth = float(times[k]), truths.at(step)
                    for name in names:
                        if self._cell(name, region, k).exists():
                            continue
                        z = self._states(self._owner(name), k) if source is None else source.at(t)
                        view = View(region, t, z, truths.label, self.models[name], truth, source)
                        with torch.inference_mode():
                            found = self._measure_cell(view, probes)
                        with replacing(self._cell(name, region, k)) as temporary, open(temporary, "wb") as opened:
                            np.savez(opened, **found)  # type: ignore[arg-type]
                    row(len(names), f"t = {t:.2f}")
        self.timings[region] = time.monotonic() - begun

    def _truths(self, owner: str, source: Noised | None, todo: Sequence[int]) -> Truths:
        """The exact posteriors at the times `todo` of the plan, of one model's trajectories or of noised points."""
        times = torch.from_numpy(self.plan.times[list(todo)])
        if source is not None:
            return Truths(self.truth, lambda label: self.truth.supervision_sweep(source.x, source.eps, times, label), source.label)

        def sweep(label: Tensor | None) -> Iterator[tuple[int, Posterior]]:
            return self.truth.trajectory_sweep(torch.stack([self._states(owner, k) for k in todo], 1), times, label)

        return Truths(self.truth, sweep, self.labels)

    def _measure_cell(self, view: View, probes: Sequence[StateProbe]) -> dict[str, np.ndarray]:
        found: dict[str, np.ndarray] = {}
        for probe in probes:
            found |= {name: value.cpu().numpy() for name, value in probe.measure(view).items()}
        if view.region == "extrapolation":
            kept = slice(0, SCRUBBED)
            pictures = {"scrub_state": view.z, "scrub_model_mean": view.model_mean, "scrub_truth_mean": view.truth.conditional.mean}
            found |= {name: value[kept].float().cpu().numpy() for name, value in pictures.items()}
        return found

    def _collect(self, probes: Sequence[StateProbe]) -> xr.Dataset:
        """All cells as variables (model, region, path, time), and the scrubbed paths' pictures."""
        plan_, shape = self.plan, (len(self.models), len(REGIONS), self.plan.sizes.paths, len(self.plan.times))
        about = {name: text for probe in probes for name, text in probe.variables.items()}
        states = {
            name: np.full(shape, -1 if name == "top_index" else np.nan, np.int64 if name == "top_index" else np.float64) for name in about
        }
        pictures: dict[str, np.ndarray] = {}
        for m, model in enumerate(self.models):
            for r, region in enumerate(REGIONS):
                for k in range(len(plan_.times)):
                    path = self._cell(model, region, k)
                    if not path.exists():
                        continue
                    with np.load(path) as cell:
                        for name in cell.files:
                            if name in states:
                                states[name][m, r, :, k] = cell[name]
                            else:
                                value = cell[name]
                                room = pictures.setdefault(
                                    name, np.full((shape[0], len(value), shape[3], *value.shape[1:]), np.nan, np.float32)
                                )
                                room[m, :, k] = value
        data: dict[str, Any] = {}
        for name, value in states.items():
            data[name] = (("model", "region", "path", "time"), value, {"long_name": about[name][0], "units": about[name][1]})
        dims = ("model", "scrub", "time", *results.image_dims(self.bank.shape))
        data |= {name: (dims, value) for name, value in pictures.items()}
        if pictures:
            data["scrub_path"] = (("scrub",), np.arange(next(iter(pictures.values())).shape[1]))
        return xr.Dataset(data, coords=self._coordinates() | {"region": list(REGIONS)})

    def _coordinates(self) -> dict[str, Any]:
        return {"model": list(self.models), "time": self.plan.times}

    # ---- measurements of a whole model or bank --------------------------------------------------------------------------------------

    def _measure_whole(self, board: Board, probe: WholeProbe) -> xr.Dataset:
        begun, parts = time.monotonic(), []
        names = list(self.models)[:1] if probe.of_bank else list(self.models)
        for name in names:
            path = self.folder / "cells" / ("bank" if probe.of_bank else _file_name(name)) / f"{probe.name}.nc"
            if path.exists():
                parts.append(results.load(path))
                continue
            subject = self._subject(name, probe)
            title = probe.name if probe.of_bank or len(names) == 1 else f"{probe.name} {name}"
            with board.row(title, probe.work(subject)) as row:
                subject.tick = row
                with torch.inference_mode():
                    measured = probe.measure(subject)
            results.save(measured, path)
            parts.append(measured)
        self.timings[probe.name] = time.monotonic() - begun
        if probe.of_bank:
            return parts[0]
        about_bank = [name for name in parts[0].data_vars if str(name).startswith(("null_", "origin_row"))]
        own = xr.concat([part.drop_vars(about_bank) for part in parts], dim=xr.IndexVariable("model", names), combine_attrs="override")
        return own.merge(parts[0][about_bank], combine_attrs="override")

    def _subject(self, name: str, probe: WholeProbe) -> Subject:
        samples = torch.zeros(0, *self.bank.shape) if probe.of_bank else self._states(name, -1)
        return Subject(
            self.models[name], self.truth, self.bank, samples, self.labels, self.plan.times, self.seed, vars(self.plan.sizes),
            self.plan.classes, self.solver, lambda units: None, self.shared,
        )  # fmt: skip

    # ---- what the report needs besides numbers --------------------------------------------------------------------------------------

    def _pictures(self) -> xr.Dataset:
        samples = np.stack([self._states(name, -1).float().cpu().numpy() for name in self.models])
        dims = ("model", "path", *results.image_dims(self.bank.shape))
        return xr.Dataset({"sample": (dims, samples)}, coords={"model": list(self.models)})

    def _paths(self) -> xr.Dataset:
        """Which rows and classes the paths have."""
        source = regions.supervision(self.bank, self.plan.sizes.paths, self.seed, self.plan.classes)
        label = np.full((len(self.models), len(REGIONS), self.plan.sizes.paths), -1)
        if source.label is not None and self.labels is not None:
            label[:, 0], label[:, 1], label[:, 2] = source.label.numpy(), self.labels.cpu().numpy(), self.labels.cpu().numpy()
        data = {"label": (("model", "region", "path"), label), "supervision_row": (("path",), source.row)}
        return xr.Dataset(data, coords={"model": list(self.models), "region": list(REGIONS)})

    def _rows(self, measured: xr.Dataset) -> xr.Dataset:
        """Pictures of the rows that the results point at and a report may show."""
        wanted: set[int] = set()
        for name in ("nearest_index", "null_row", "null_index", "closest_pair", "closest_pair_class", "copier_row"):
            if name in measured:
                wanted |= set(np.asarray(measured[name].values).astype(np.int64).ravel().tolist())
        if "origin_row" in measured:
            wanted |= set(measured["origin_row"].values[: measured.sizes.get("strip", 0)].tolist())
        if "top_index" in measured and "scrub_path" in measured:
            shown = measured["top_index"].sel(region="extrapolation").isel(path=measured["scrub_path"].values)
            wanted |= set(shown.values.astype(np.int64).ravel().tolist())
        index = np.array(sorted(k for k in wanted if k >= 0), dtype=np.int64)
        labels = np.full(len(index), -1) if self.bank.labels is None else self.bank.labels[index % len(self.bank.rows)]
        data = {
            "row_index": (("row",), index),
            "row_image": (("row", *results.image_dims(self.bank.shape)), self.bank[index].numpy()),
            "row_label": (("row",), labels),
        }
        return xr.Dataset(data)

    def _provenance(self) -> dict[str, Any]:
        bank, warnings = self.bank, list(self.plan.warnings)
        models = []
        for name, model in self.plan.models.items():
            about = model.about
            models.append(
                {
                    "name": name,
                    "file": about.get("file", ""),
                    "sha256": about.get("sha256", self.plan.settings["models"][name]),
                    "parameters": model.parameters_count,
                    "schedule": repr(model.schedule)[:200],
                    "prediction": getattr(model, "prediction", "posterior mean"),
                    "recipe": about.get("recipe", {}),
                }
            )
        about_bank = {
            "name": bank.name,
            "rows": len(bank.rows),
            "shape": list(bank.shape),
            "classes": bank.classes,
            "class_names": list(bank.class_names or []),
            "flips": bank.flips,
            "fingerprint": bank.fingerprint,
            "radius": bank.radius,
            "low": bank.low,
            "high": bank.high,
            "source": str(bank.manifest.get("source", "")),
        }
        return {
            "version": __version__,
            "torch": str(torch.__version__),
            "numpy": str(np.__version__),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": self.command,
            "settings": self.plan.settings,
            "seed": self.seed,
            "tolerance": self.truth.tolerance,
            "device": str(self.device),
            "dtype": "float32 networks, float64 statistics",
            "models": models,
            "bank": about_bank,
            "timings": {name: round(seconds, 2) for name, seconds in self.timings.items()},
            "warnings": warnings,
            "not_judged": self.plan.not_judged,
        }


def _file_name(model: str) -> str:
    """A model's name as a folder; other characters become underscores, told apart by a short hash."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", model).strip("._") or "model"
    if plain == model:
        return plain
    import hashlib

    return f"{plain}-{hashlib.sha256(model.encode()).hexdigest()[:6]}"


def _whole(path: Path) -> bool:
    """Whether a file of states can be read."""
    try:
        with safe_open(path, framework="pt") as opened:
            return "states" in opened.keys()  # noqa: SIM118
    except (OSError, SafetensorError):
        return False


__all__ = ["Run", "examine"]
