"""The main job: states → measurements → results, in cells that are written as they are done, so that a killed run continues.

    OUT/run.json                      settings; the same command continues, other settings are refused (`runs`)
    OUT/states/MODEL/paths-*.safetensors   sampling trajectories, a few paths a file
    OUT/cells/…                       one file for each (region, time, model) and each whole probe
    OUT/results.nc  report.html  charts/

Models are asked about the same noise, and about the same states where a region does not depend on the model; then the exact posterior
is computed once for all of them.
"""

from __future__ import annotations

import json
import re
import shutil
import tempfile
import time
import weakref
import zipfile
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, fields, replace
from datetime import UTC, datetime
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import torch
import xarray as xr
from safetensors import SafetensorError, safe_open
from torch import Tensor

from scorescope import __version__, plan, regions, results, runs
from scorescope.denoiser import Denoiser, on_linear_axis
from scorescope.empirical import EmpiricalScore
from scorescope.errors import InputError, unknown
from scorescope.files import replacing, write_tensors
from scorescope.measure import Cell, cells, measure_whole, table, together
from scorescope.prepare import Prepared, prepare
from scorescope.probes import StateProbe, Subject, WholeProbe
from scorescope.probes.base import Setting
from scorescope.progress import Board
from scorescope.reading import outside, readings, spill_warning, value_range, warnings_of
from scorescope.regions import REGIONS, Noised, States
from scorescope.rows import Bank
from scorescope.sampler import start_time, trajectory

CHUNK = 32  # paths in one file of states
RESULTS, REPORT = "results.nc", "report.html"
KIND = runs.Kind(
    "an examination",
    (
        *("states/*/paths-[0-9]*.safetensors", "cells/*/*/time-[0-9]*.npz", "cells/*/*.nc"),
        *(RESULTS, REPORT, "charts/*.svg", "charts/*.png", "charts/*.csv", "charts/*.json"),
    ),
    before=("plan.json",),
)


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

        return report.write(self.results, self.folder / REPORT if path is None else Path(path))

    @property
    def claims(self) -> list[dict[str, Any]]:
        """Every claim and what the data say about it: name, model, region, value, low, high, n, unit, verdict, rule, text."""
        from scorescope import claims

        return claims.records(self.results)

    def findings(self) -> list[str]:
        """The three main findings in plain words."""
        from scorescope import claims

        return claims.three(self.results)


@dataclass(frozen=True)
class Machine:
    """How an examination is computed; changes no number beyond float32 rounding.

    Attributes:
        device: Where to compute.
        batch: Paths sampled together.
        memory: Bytes for the bank's rows (`EmpiricalScore`); a quarter of what is free unless given.
        quiet: Show no progress.
        command: Recorded in the report.
        as_is: Measure models, too, that are not read right (see `scorescope.reading`); nothing is judged of them.
    """

    device: str = "cpu"
    batch: int = 256
    memory: int | None = None
    quiet: bool = False
    command: str = ""
    as_is: bool = False

    def __post_init__(self) -> None:
        if self.batch < 1:
            raise InputError(f"batch {self.batch} is not a positive number", "--batch 256")


def examine(
    model: Denoiser | Sequence[Denoiser],
    bank: Bank,
    probes: Sequence[str] | None = None,
    seed: int | None = None,
    *,
    preset: str = "default",
    out: str | Path | None = None,
    force: bool = False,
    **options: Any,
) -> Run:
    """Measure one or several models against the exact empirical score of their training set.

    Args:
        model: A `Denoiser`, or several: then the report compares them.
        bank: What they were trained on.
        probes: Names of probes; all unless given.
        seed: Names every random stream.
        preset: The plan whose values hold for all that is not given: default, quick, demo or paper.
        out: Folder of the run, continued if it was cut; a temporary one unless given.
        force: Begin again, in place of the run in `out`.
        **options: Fields of `scorescope.plan.Plan` (paths, times, origins, nulls, labels, tolerance, solver, steps, shared_states) and
            of `Machine` (device, batch, memory, quiet, command, as_is).

    Raises:
        InputError: Anything that does not fit, or a model that is not read right, in one line; nothing is written then.
    """
    given = {**options, **({} if probes is None else {"probes": tuple(probes)}), **({} if seed is None else {"seed": seed})}
    known = {field.name: kind for kind in (plan.Plan, Machine) for field in fields(kind)}
    for name in given:
        if name not in known:
            raise unknown("option of examine", name, known)
    if "labels" in given:
        labels = given["labels"]
        given["labels"] = (labels,) if isinstance(labels, str) else tuple(str(label) for label in labels)
    chosen = replace(plan.preset(preset), **{name: value for name, value in given.items() if known[name] is plan.Plan})
    machine = Machine(**{name: value for name, value in given.items() if known[name] is Machine})
    prepared = prepare(chosen, model, bank, machine.device)
    if out is not None:
        return _examined(prepared, bank, Path(out), machine, force)
    folder = Path(tempfile.mkdtemp(prefix="scorescope-"))
    try:
        run = _examined(prepared, bank, folder, machine, force)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    weakref.finalize(run, shutil.rmtree, folder, ignore_errors=True)
    return run


def _readings(prepared: Prepared, bank: Bank, folder: Path, machine: Machine, force: bool) -> dict[str, Any]:
    """Whether the models are read right; as the run that is continued has found it."""
    if runs.continues(folder, KIND, prepared.settings, force=force):
        known = (runs.record_of(folder) or {}).get("reading")
        if isinstance(known, dict) and known.keys() == prepared.models.keys():
            return known
    return readings(prepared.models, bank, prepared.classes, prepared.plan.seed, machine.device, machine.as_is)


def _examined(prepared: Prepared, bank: Bank, folder: Path, machine: Machine, force: bool) -> Run:
    reading = _readings(prepared, bank, folder, machine, force)
    truth = EmpiricalScore(bank, tolerance=prepared.plan.tolerance, device=machine.device, memory=machine.memory)
    with runs.claimed(folder, KIND, prepared.settings, notes={"reading": reading}, force=force) as continued:
        if continued and (folder / RESULTS).exists():
            with suppress(InputError):  # damaged: its cells are there still
                return Run(folder, results.load(folder / RESULTS))
        with Board(machine.quiet) as board:
            measured = _Job(prepared, bank, truth, folder, machine, reading).run(board, continued)
        results.save(measured, folder / RESULTS)
        return Run(folder, measured)


class _Job:
    """One examination under way."""

    def __init__(
        self, prepared: Prepared, bank: Bank, truth: EmpiricalScore, folder: Path, machine: Machine, reading: dict[str, Any]
    ) -> None:
        self.prepared, self.bank, self.truth, self.folder, self.machine, self.reading = prepared, bank, truth, folder, machine, reading
        self.device, self.plan = torch.device(machine.device), prepared.plan
        self.models = {name: on_linear_axis(model.to(self.device)) for name, model in prepared.models.items()}
        self.timings: dict[str, float] = {}
        labels = regions.path_labels(prepared.classes, self.plan.paths)
        self.labels = None if labels is None else labels.to(self.device)
        solver = {"method": self.plan.solver, "steps": self.plan.steps, "batch": machine.batch}
        self.setting = Setting(prepared.times, self.plan.sizes, self.plan.seed, prepared.classes, solver, {})

    def run(self, board: Board, continued: bool) -> xr.Dataset:
        state_probes = [probe for probe in self.prepared.probes if isinstance(probe, StateProbe)]
        whole_probes = [probe for probe in self.prepared.probes if isinstance(probe, WholeProbe)]
        board.say(f"examining {', '.join(self.models)} on {self.bank.name}: {len(self.bank):,} rows of {self.bank.shape}")
        names = ", ".join(probe.name for probe in self.prepared.probes)
        board.say(f"{self.plan.paths} paths × {len(self.prepared.times)} times, probes {names}")
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
            parts.append(table(state_probes, list(self.models), REGIONS, self.prepared.times, self._read))
        parts += [self._measure_whole(board, probe) for probe in whole_probes]
        if needs_samples:
            parts.append(self._pictures())
        parts.append(self._paths())
        merged = xr.merge(parts, join="outer", compat="no_conflicts", combine_attrs="override")
        merged = merged.merge(self._rows(merged), combine_attrs="override")
        low, high = value_range(self.bank)
        share = {name: outside(self._states(name, -1).cpu(), low, high) for name in (self.models if needs_samples else ())}
        return results.with_provenance(merged, self._provenance(share, (low, high)))

    # ---- states -----------------------------------------------------------------------------------------------------------------

    def _owner(self, model: str) -> str:
        """The model whose trajectories `model` is asked about."""
        return self.plan.shared_states or model

    def _sample(self, board: Board, name: str) -> None:
        """The trajectories of one model, a file for every `CHUNK` paths; the finished sample is time 0."""
        model, total, begun = self.models[name], self.plan.paths, time.monotonic()
        grid = [0.0, *self.prepared.times.tolist()]
        with board.row(f"sampling {name}", total) as row:
            for first in range(0, total, CHUNK):
                items = list(range(first, min(first + CHUNK, total)))
                path = self.folder / "states" / file_name(name) / f"paths-{first:06d}.safetensors"
                if not _whole(path, (len(items), len(grid), *self.bank.shape)):
                    start = start_time(model)
                    noise = start * regions.noise(self.plan.seed, total, self.bank.shape, "path")[items].to(self.device)
                    label = None if self.labels is None else self.labels[items]
                    solver = self.setting.solver
                    states = trajectory(model, noise, grid, label, start=start, seed=self.plan.seed, items=items, **solver)
                    write_tensors(path, {"states": states})
                row(len(items))
        self.timings[f"sampling {name}"] = time.monotonic() - begun

    def _states(self, model: str, k: int) -> Tensor:
        """(P, *shape) states of a model's own paths at time k; k = −1 gives its finished samples."""
        parts = []
        for first in range(0, self.plan.paths, CHUNK):
            with safe_open(self.folder / "states" / file_name(model) / f"paths-{first:06d}.safetensors", framework="pt") as opened:
                parts.append(opened.get_slice("states")[:, k + 1])
        return torch.cat(parts).to(self.device)

    def _region(self, region: str, owner: str) -> States:
        """The states of a region, where trajectories and samples are those of `owner`."""
        times = self.prepared.times
        if region == "extrapolation":
            return States(region, times, self.labels, along=lambda k: self._states(owner, k))
        return States.noised(region, times, (self._pairs() if region == "supervision" else self._renoised(owner)).to(self.device))

    def _pairs(self) -> Noised:
        return regions.supervision(self.bank, self.plan.paths, self.plan.seed, self.prepared.classes)

    def _renoised(self, owner: str) -> Noised:
        return regions.renoised(self._states(owner, -1).cpu(), self.labels, self.plan.seed)

    # ---- measurements -------------------------------------------------------------------------------------------------------------

    def _cell(self, model: str, region: str, k: int) -> Path:
        return self.folder / "cells" / file_name(model) / region / f"time-{k:04d}.npz"

    def _read(self, model: str, region: str, k: int) -> Cell | None:
        """A cell; None where there is none, or a damaged one."""
        try:
            with open(self._cell(model, region, k), "rb") as opened, np.load(opened) as cell:
                return dict(cell)
        except (OSError, ValueError, EOFError, zipfile.BadZipFile):
            return None

    def _measure_region(self, board: Board, region: str, probes: Sequence[StateProbe]) -> None:
        """All cells of a region that are not there yet."""
        begun, times = time.monotonic(), self.prepared.times
        same_states = region == "supervision" or self.plan.shared_states is not None
        groups = [list(self.models)] if same_states else [[name] for name in self.models]
        asked = {name for probe in probes for name in probe.variables}
        with board.row(f"{region}: {', '.join(probe.name for probe in probes)}", len(times) * len(self.models)) as row:
            for names in groups:
                done = {(name, k) for name in names for k in range(len(times)) if asked <= (self._read(name, region, k) or {}).keys()}
                todo = [k for k in range(len(times)) if any((name, k) not in done for name in names)]
                row.skip(len(names) * (len(times) - len(todo)))
                models = {name: self.models[name] for name in names}
                for k, name, found in cells(models, self.truth, self._region(region, self._owner(names[0])), probes, todo):
                    with replacing(self._cell(name, region, k)) as temporary, open(temporary, "wb") as opened:
                        np.savez(opened, **found)  # type: ignore[arg-type]
                    row(1, f"t = {times[k]:.2f}")
        self.timings[region] = time.monotonic() - begun

    def _measure_whole(self, board: Board, probe: WholeProbe) -> xr.Dataset:
        """What a whole probe says of all models, or of the bank."""
        begun, parts = time.monotonic(), {}
        for name in list(self.models)[:1] if probe.of_bank else list(self.models):
            path = self.folder / "cells" / ("bank" if probe.of_bank else file_name(name)) / f"{probe.name}.nc"
            with suppress(InputError):
                parts[name] = results.load(path)
                continue
            samples = torch.zeros(0, *self.bank.shape) if probe.of_bank else self._states(name, -1)
            subject = Subject(self.models[name], self.truth, self.bank, samples, self.labels, self.setting)
            title = probe.name if probe.of_bank or len(self.models) == 1 else f"{probe.name} {name}"
            with board.row(title, probe.work(subject)) as row:
                subject.tick = row
                parts[name] = measure_whole(probe, subject)
            results.save(parts[name], path)
        self.timings[probe.name] = time.monotonic() - begun
        return together(probe, parts)

    # ---- what the report needs besides numbers --------------------------------------------------------------------------------------

    def _pictures(self) -> xr.Dataset:
        samples = np.stack([self._states(name, -1).float().cpu().numpy() for name in self.models])
        dims = ("model", "path", *results.image_dims(self.bank.shape))
        return xr.Dataset({"sample": (dims, samples)}, coords={"model": list(self.models)})

    def _paths(self) -> xr.Dataset:
        """Which rows and classes the paths have."""
        source = self._pairs()
        label = np.full((len(self.models), len(REGIONS), self.plan.paths), -1)
        if source.label is not None and self.labels is not None:
            label[:, 0], label[:, 1:] = source.label.numpy(), self.labels.cpu().numpy()
        data = {"label": (("model", "region", "path"), label), "supervision_row": (("path",), source.row)}
        return xr.Dataset(data, coords={"model": list(self.models), "region": list(REGIONS)})

    def _rows(self, measured: xr.Dataset) -> xr.Dataset:
        """Pictures of the rows that the probes point at."""
        wanted = {int(k) for probe in self.prepared.probes for part in probe.rows(measured) for k in np.ravel(part)}
        index = np.array(sorted(k for k in wanted if k >= 0), dtype=np.int64)
        labels = np.full(len(index), -1) if self.bank.labels is None else self.bank.labels[index % len(self.bank.rows)]
        data = {
            "row_index": (("row",), index),
            "row_image": (("row", *results.image_dims(self.bank.shape)), self.bank[index].numpy()),
            "row_label": (("row",), labels),
        }
        return xr.Dataset(data)

    def _provenance(self, share: dict[str, float], span: tuple[float, float]) -> dict[str, Any]:
        bank, settings = self.bank, self.prepared.settings
        return {
            "version": __version__,
            "torch": str(torch.__version__),
            "numpy": str(np.__version__),
            "date": datetime.now(UTC).isoformat(timespec="seconds"),
            "command": self.machine.command,
            "settings": settings,
            "seed": self.plan.seed,
            "tolerance": self.truth.tolerance,
            "device": str(self.device),
            "dtype": "float32 networks, float64 statistics",
            "models": [_about(name, model, settings["models"][name]) for name, model in self.prepared.models.items()],
            "bank": {
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
            },
            "timings": {name: round(seconds, 2) for name, seconds in self.timings.items()},
            "reading": self.reading,
            "outside": share,
            "warnings": [
                *warnings_of(self.reading),
                *(line for name in share for line in spill_warning(name, share[name], *span)),
                *self.prepared.warnings,
            ],
            "not_measured": self.prepared.not_measured,
        }


def _about(name: str, model: Denoiser, identity: Any) -> dict[str, Any]:
    """What the results say of a model."""
    return {
        "name": name,
        "file": model.about.get("file", ""),
        "sha256": model.about.get("sha256") or sha256(json.dumps(identity, sort_keys=True).encode()).hexdigest(),
        "parameters": model.parameters_count,
        "schedule": repr(model.schedule)[:200],
        "prediction": getattr(model, "prediction", "posterior mean"),
        "recipe": model.about.get("recipe", {}),
    }


def file_name(model: str) -> str:
    """A model's name as a folder; other characters become underscores, told apart by a short hash."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "_", model).strip("._") or "model"
    return plain if plain == model else f"{plain}-{sha256(model.encode()).hexdigest()[:6]}"


def _whole(path: Path, shape: tuple[int, ...]) -> bool:
    """Whether a file of states can be read, and holds what it should."""
    try:
        with safe_open(path, framework="pt") as opened:
            return tuple(opened.get_slice("states").get_shape()) == shape
    except (OSError, SafetensorError):
        return False


__all__ = ["Machine", "Run", "examine"]
